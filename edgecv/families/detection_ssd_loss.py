"""The loss of detectors with prior boxes (SSD) on labels, in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.families.detection_anchored import ssd_rows
from edgecv.families.detection_assign import matched
from edgecv.families.detection_rows import corners, like
from edgecv.families.detection_targets import SMALLEST, cross_entropy, objects, one_hot, outside_crowds, size_of

__all__ = ["ssd_loss"]

_MATCH = 0.5
_NEGATIVES = 3


def ssd_loss(outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    """Smooth L1 of the offsets and cross entropy of the classes, three negatives for each positive.

    W. Liu et al., "SSD: Single Shot MultiBox Detector", arXiv:1512.02325: ``outputs`` are offsets `(N, P, 4)` and
    scores `(N, P, C)`, with the background first where ``spec.background``. The negatives are the priors that are
    surest of something; priors in a crowd are none.

    Raises:
        ModelError: the outputs do not fit the priors that the head's options make.
    """
    import torch

    found = ssd_rows(outputs, spec, size_of(truths))
    offsets, shares = found.offsets, _shares(found.values, spec)
    anchors = like(offsets, found.anchors)
    boxes = corners(anchors)
    lost, positives = [offsets.new_zeros(())], 0
    for index, truth in enumerate(truths):
        real, classes = objects(truth, boxes)
        owner, _ = matched(boxes, real, match=_MATCH, free=_MATCH)
        rows = owner >= 0
        wanted = found.wanted(real[owner[rows]], rows)
        lost.append(torch.nn.functional.smooth_l1_loss(offsets[index, rows], wanted, reduction="sum"))
        each = _class_cost(shares[index], one_hot(owner, classes, shares.shape[2]), background=spec.background)
        with torch.no_grad():
            allowed = ~rows & (outside_crowds(truth, anchors[:, :2]) > 0)
            hard = torch.where(allowed, each, torch.full_like(each, -1.0))
            count = int(rows.sum())
            hardest = hard.topk(min(int(allowed.sum()), _NEGATIVES * max(1, count))).indices
        lost.append(each[rows].sum() + each[hardest].sum())
        positives += count
    return sum(lost[1:], lost[0]) / max(1, positives)


def _shares(scores: Any, spec: FamilySpec) -> Any:
    """Probabilities of the labels `(N, P, C)`, without the background."""
    if spec.outputs != "probabilities":
        scores = scores.softmax(dim=-1) if spec.background else scores.sigmoid()
    return scores[..., 1:] if spec.background else scores


def _class_cost(shares: Any, wanted: Any, *, background: bool) -> Any:
    """Cross entropy of each prior `(P,)`: over labels and background, or of each label on its own."""
    if not background:
        return cross_entropy(shares, wanted).sum(dim=1)
    none = (1.0 - shares.sum(dim=1)).clamp_min(SMALLEST)
    right = (shares.clamp_min(SMALLEST).log() * wanted).sum(dim=1)
    return -(right + (1.0 - wanted.sum(dim=1)) * none.log())
