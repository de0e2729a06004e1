"""Losses of RetinaNet and FCOS on labels: the focal loss keeps the many empty cells from drowning the rest.

T.-Y. Lin et al., "Focal loss for dense object detection", arXiv:1708.02002; Z. Tian et al., "FCOS", arXiv:1904.01355.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.families.detection_anchored import fcos_rows, retinanet_rows
from edgecv.families.detection_assign import central, matched
from edgecv.families.detection_rows import corners, like
from edgecv.families.detection_targets import SMALLEST, logits_of, objects, one_hot, outside_crowds, size_of

__all__ = ["fcos_loss", "retinanet_loss"]

_MATCH, _FREE = 0.5, 0.4
"""Anchors that overlap an object by the first share learn it; those between the two learn nothing."""


def retinanet_loss(outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    """Focal loss of the classes and L1 of the offsets, in shares of one anchor that shows an object (arXiv:1708.02002).

    Raises:
        ModelError: the outputs do not fit the labels or the anchors that the head's options make.
    """
    found = retinanet_rows(outputs, spec, size_of(truths))
    anchors = like(found.offsets, found.anchors)
    boxes = corners(anchors)
    lost, positives = [found.offsets.new_zeros(())], 0
    logits = logits_of(found.label_values(), shares=spec.outputs == "probabilities")
    for index, truth in enumerate(truths):
        real, classes = objects(truth, boxes)
        owner, unclear = matched(boxes, real, match=_MATCH, free=_FREE)
        counts = outside_crowds(truth, anchors[:, :2]) * ~unclear
        rows = owner >= 0
        counts[rows] = 1.0
        lost.append(_focal(logits[index], one_hot(owner, classes, logits.shape[2]), counts))
        wanted = found.wanted(real[owner[rows]], rows)
        lost.append((found.offsets[index, rows] - wanted).abs().sum())
        positives += int(rows.sum())
    return sum(lost[1:], lost[0]) / max(1, positives)


def fcos_loss(outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    """Focal loss of the classes, generalised IoU of the boxes and cross entropy of the centre-ness (arXiv:1904.01355).

    Points near an object's middle learn it (`edgecv.families.detection_assign.central`); in shares of one such point.

    Raises:
        ModelError: the outputs do not fit the labels or the cells that the option ``strides`` makes.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits
    from torchvision.ops import generalized_box_iou_loss

    found = fcos_rows(outputs, spec, size_of(truths))
    points, strides, boxes = like(found.sides, found.points), like(found.sides, found.strides), found.boxes()
    shares = spec.outputs == "probabilities"
    logits, middles = (logits_of(values, shares=shares) for values in (found.values, found.centrality))
    lost, positives = [boxes.new_zeros(())], 0
    for index, truth in enumerate(truths):
        real, classes = objects(truth, boxes)
        owner = central(points, strides, real)
        rows = owner >= 0
        counts = outside_crowds(truth, points)
        counts[rows] = 1.0
        lost.append(_focal(logits[index], one_hot(owner, classes, logits.shape[2]), counts))
        mine = real[owner[rows]]
        lost.append(generalized_box_iou_loss(boxes[index, rows], mine, reduction="sum"))
        wanted = _centrality(points[rows], mine)
        lost.append(binary_cross_entropy_with_logits(middles[index, rows], wanted, reduction="sum"))
        positives += int(rows.sum())
    return sum(lost[1:], lost[0]) / max(1, positives)


def _focal(logits: Any, wanted: Any, counts: Any) -> Any:
    """Sum over rows `(M, C)` that count, with the published alpha 0.25 and gamma 2."""
    from torchvision.ops import sigmoid_focal_loss

    return (sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2.0).sum(dim=1) * counts).sum()


def _centrality(points: Any, boxes: Any) -> Any:
    """How near to the middle of its box `(P, 4)` each point `(P, 2)` is: 1 there, 0 at the edges."""
    before, after = points - boxes[:, :2], boxes[:, 2:] - points
    near, far = before.minimum(after), before.maximum(after)
    return (near / far.clamp_min(SMALLEST)).clamp(0, 1).prod(dim=1).sqrt()
