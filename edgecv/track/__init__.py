"""Multi-object tracking: detections of single frames get ids that last."""
