"""Pictures as arrays: pure functions on numpy and OpenCV."""
