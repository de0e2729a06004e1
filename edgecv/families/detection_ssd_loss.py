"""The loss of detectors with prior boxes (SSD) on labels, in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.errors import ModelError
from edgecv.families.detection_assign import overlaps
from edgecv.families.heads.common import setting
from edgecv.families.heads.ssd import SSD_OPTIONS, priors

__all__ = ["matched_priors", "ssd_loss"]

_MATCH = 0.5
_NEGATIVES = 3
_SMALLEST = 1e-6


def ssd_loss(outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    """Smooth L1 of the offsets and cross entropy of the classes, three negatives for each positive.

    W. Liu et al., "SSD: Single Shot MultiBox Detector", arXiv:1512.02325: ``outputs`` are offsets `(N, P, 4)` and
    scores `(N, P, C)`, with the background first where ``spec.background``. The negatives are the priors that are
    surest of something; priors in a crowd are none.

    Raises:
        ModelError: the outputs do not fit the priors that the head's options make.
    """
    import torch

    columns = len(spec.labels) + (1 if spec.background else 0)
    offsets, scores = _pair(outputs, columns)
    anchors = _priors(spec, offsets)
    shares = _shares(scores, spec)
    lost, positives = [offsets.new_zeros(())], 0
    for index, truth in enumerate(truths):
        owner, allowed = matched_priors(truth, anchors)
        cells = torch.nonzero(owner >= 0)[:, 0]
        wanted = torch.zeros_like(shares[index])
        classes = torch.from_numpy(_objects(truth)[1]).to(offsets.device)
        if len(cells):
            wanted[cells, classes[owner[cells]]] = 1.0
            boxes = offsets.new_tensor(_objects(truth)[0])[owner[cells]]
            target = _encoded(boxes, anchors[cells], spec)
            lost.append(torch.nn.functional.smooth_l1_loss(offsets[index, cells], target, reduction="sum"))
        each = _class_cost(shares[index], wanted, background=spec.background)
        with torch.no_grad():
            hard = torch.where((owner < 0) & allowed, each, torch.full_like(each, -1.0))
            hard = hard.topk(min(int((hard >= 0).sum()), _NEGATIVES * max(1, len(cells)))).indices
        lost.append(each[cells].sum() + each[hard].sum())
        positives += len(cells)
    return sum(lost[1:], lost[0]) / max(1, positives)


def matched_priors(truth: DetectionTruth, anchors: Any) -> tuple[Any, Any]:
    """For each prior `(P, 4)` (corners, shares of the input) the object that it overlaps by 0.5 or more, -1 for none.

    Each object gets at least the prior that overlaps it most, if any does. Second, which priors may be negatives.
    """
    import torch

    boxes, _ = _objects(truth)
    allowed = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    if truth.crowd is not None and truth.crowd.any():
        crowds = anchors.new_tensor(_shares_of(truth.boxes[truth.crowd], truth))
        middles = (anchors[:, :2] + anchors[:, 2:]) / 2
        inside = ((middles[:, None] >= crowds[None, :, :2]) & (middles[:, None] <= crowds[None, :, 2:])).all(dim=2)
        allowed = ~inside.any(dim=1)
    if not len(boxes):
        return torch.full((len(anchors),), -1, device=anchors.device), allowed
    found = overlaps(anchors.new_tensor(boxes), anchors)
    best, owner = found.max(dim=0)
    owner = torch.where(best >= _MATCH, owner, torch.full_like(owner, -1))
    for row, prior in enumerate(found.argmax(dim=1).tolist()):
        if found[row, prior] > 0:
            owner[prior] = row
    return owner, allowed


def _pair(outputs: Sequence[Any], columns: int) -> tuple[Any, Any]:
    if len(outputs) != 2:
        raise ModelError(f"the model gave {len(outputs)} outputs; head ssd needs offsets and scores")
    one, other = (output.float() for output in outputs)
    if columns != 4 and one.shape[-1] != 4:
        one, other = other, one
    return one.reshape(one.shape[0], -1, 4), other.reshape(other.shape[0], -1, columns)


def _priors(spec: FamilySpec, offsets: Any) -> Any:
    """Corners in shares of the input."""
    maps, scales, ratios = (
        _frozen(setting(SSD_OPTIONS, spec, name)) for name in ("feature_maps", "scales", "aspect_ratios")
    )
    sized = offsets.new_tensor(priors(maps, scales, ratios, setting(SSD_OPTIONS, spec, "clip")))
    if len(sized) != offsets.shape[1]:
        raise ModelError(f"the model gave {offsets.shape[1]} boxes; the head's options make {len(sized)} priors")
    import torch

    return torch.cat([sized[:, :2] - sized[:, 2:] / 2, sized[:, :2] + sized[:, 2:] / 2], dim=1)


def _shares(scores: Any, spec: FamilySpec) -> Any:
    """Probabilities of the labels `(N, P, C)`, without the background."""
    if spec.outputs != "probabilities":
        scores = scores.softmax(dim=-1) if spec.background else scores.sigmoid()
    return scores[..., 1:] if spec.background else scores


def _class_cost(shares: Any, wanted: Any, *, background: bool) -> Any:
    """Cross entropy of each prior `(P,)`: over labels and background, or of each label on its own."""
    if background:
        none = (1.0 - shares.sum(dim=1)).clamp_min(_SMALLEST)
        right = (shares.clamp_min(_SMALLEST).log() * wanted).sum(dim=1)
        return -(right + (1.0 - wanted.sum(dim=1)) * none.log())
    sure = shares.clamp(_SMALLEST, 1.0 - _SMALLEST)
    return -(wanted * sure.log() + (1.0 - wanted) * (1.0 - sure).log()).sum(dim=1)


def _encoded(boxes: Any, anchors: Any, spec: FamilySpec) -> Any:
    """What the network has to say for ``boxes``, `(K, 4)`: the inverse of what the head reads."""
    import torch

    centre, size = setting(SSD_OPTIONS, spec, "variances")
    sides, base = ((item[:, 2:] - item[:, :2]).clamp_min(_SMALLEST) for item in (boxes, anchors))
    away = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2
    return torch.cat([away / base / centre, (sides / base).log() / size], dim=1)


def _objects(truth: DetectionTruth) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Boxes in shares of the input and classes of what is to be found."""
    keep = slice(None) if truth.crowd is None else ~truth.crowd
    return _shares_of(truth.boxes[keep], truth), truth.class_ids[keep]


def _shares_of(boxes: np.ndarray[Any, Any], truth: DetectionTruth) -> np.ndarray[Any, Any]:
    assert truth.size is not None
    shares: np.ndarray[Any, Any] = (boxes / np.array([truth.size[1], truth.size[0]] * 2)).astype(np.float32)
    return shares


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
