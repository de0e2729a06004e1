"""Small two-stage networks out of torchvision's parts: five convolutions, a feature pyramid and narrow heads."""

from __future__ import annotations

from typing import Any, Literal

from edgecv.models.reference_detectors import strided_body
from edgecv.models.two_stage import FixedShapes, TwoStage

__all__ = ["small_rcnn", "small_two_stage"]

KEYPOINTS = 17
_WIDTHS = (12, 20, 28, 40, 48)
_PYRAMID = 24
_BOX_FEATURES = 30
_MASK_LAYERS = (16, 16)
_POOLED = 7
_ANCHORS = ((14,), (28,), (56,), (90,))
_RATIOS = (0.5, 1.0, 2.0)

Kind = Literal["faster", "mask", "keypoint"]


def small_rcnn(kind: Kind, *, num_classes: int, **options: Any) -> Any:
    """torchvision's Faster, Mask or Keypoint R-CNN in small, as it is trained: about 100,000 parameters.

    Strides are 8, 16, 32 and 64; ``num_classes`` counts the background. ``options`` are torchvision's.
    """
    from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

    body = strided_body(_WIDTHS)
    backbone = BackboneWithFPN(body, {"2": "0", "3": "1", "4": "2"}, [*_WIDTHS[2:]], _PYRAMID)
    parts: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(_ANCHORS, (_RATIOS,) * len(_ANCHORS)),
        "box_head": TwoMLPHead(_PYRAMID * _POOLED**2, _BOX_FEATURES),
        "box_predictor": FastRCNNPredictor(_BOX_FEATURES, num_classes),
    }
    last = _MASK_LAYERS[-1]
    if kind == "mask":
        parts["mask_head"] = MaskRCNNHeads(_PYRAMID, _MASK_LAYERS, 1)
        parts["mask_predictor"] = MaskRCNNPredictor(last, last, num_classes)
        return MaskRCNN(backbone, **parts, **options)
    if kind == "keypoint":
        parts["keypoint_head"] = KeypointRCNNHeads(_PYRAMID, _MASK_LAYERS)
        parts["keypoint_predictor"] = KeypointRCNNPredictor(last, KEYPOINTS)
        return KeypointRCNN(backbone, **parts, **options)
    return FasterRCNN(backbone, **parts, **options)


def small_two_stage(
    *,
    num_classes: int,
    kind: Kind = "faster",
    height: int = 128,
    width: int = 160,
    candidates: int = 64,
    proposals: int = 32,
    detections: int = 8,
    rounds: int = 4,
) -> TwoStage:
    """`small_rcnn` in fixed shapes for pictures of ``height`` x ``width`` (see `edgecv.models.two_stage`)."""
    shapes = FixedShapes(candidates, proposals, detections, rounds)
    return TwoStage(small_rcnn(kind, num_classes=num_classes), size=(height, width), shapes=shapes)
