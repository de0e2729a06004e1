"""The loss of DETR and its kin on labels: each object has one query, and which one is the cheapest pairing of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.families.detection_anchored import Queries, detr_rows
from edgecv.families.detection_rows import corners, like
from edgecv.families.detection_targets import SMALLEST, logits_of, objects, outside_crowds, size_of

__all__ = ["paired_at_least_cost", "set_loss"]

_DISTANCE, _OVERLAP = 5.0, 2.0
_NOTHING = 0.1
"""Queries that show no object count so much: most of them show none."""
_ALPHA, _GAMMA = 0.75, 2.0
_NO_AREA = 1e-12


def set_loss(outputs: Sequence[Any], truths: Sequence[DetectionTruth], spec: FamilySpec) -> Any:
    """Classes, L1 distance and generalised IoU of the queries that stand for objects, in shares of one object.

    N. Carion et al., "DETR", arXiv:2005.12872. Classes by cross entropy where the network has a value for "no
    object"; where it has a sigmoid for each class, as RT-DETR (Y. Zhao et al., arXiv:2304.08069), by the varifocal
    loss towards the overlap of the box (H. Zhang et al., arXiv:2008.13367). Fine-tuning asks it of each of a network's
    stages (`edgecv.models.transformer_detectors`); an exported graph gives the last alone, and its choice of queries,
    which has no gradient, stays as it was.

    Raises:
        ModelError: the outputs do not fit the labels.
    """
    found = detr_rows(outputs, spec)
    whole = like(found.boxes, [size_of(truths)[1], size_of(truths)[0]] * 2)
    placed = corners(found.boxes)
    real, classes, counts = _padded(found, truths, whole)
    pairs = _pairs(found, placed, real, classes, counts, spec)
    shown, there = placed[pairs.picture, pairs.query], real[pairs.picture, pairs.object]
    away = (found.boxes[pairs.picture, pairs.query] - _centred(there)).abs().sum()
    apart = (1 - _generalised(shown, there)).sum()
    weights, count = _weights(found, truths, whole), max(1, sum(counts))
    weights[pairs.picture, pairs.query] = 1.0
    owned = classes[pairs.picture, pairs.object]
    if found.exclusive:
        named = _exclusive_lost(found.values, pairs, owned, weights, spec)
    else:
        overlap, _ = _shared(shown.detach(), there)
        named = _varifocal_lost(found.values, pairs, owned, weights, spec, overlap) / count
    return named + (_DISTANCE * away + _OVERLAP * apart) / count


@dataclass(frozen=True)
class _Pairs:
    """Which query of which picture stands for which of its objects: three index tensors `(P,)`."""

    picture: Any
    query: Any
    object: Any


def _padded(found: Queries, truths: Sequence[DetectionTruth], whole: Any) -> tuple[Any, Any, list[int]]:
    """Boxes `(N, G, 4)` in shares of the sides, classes `(N, G)` and how many objects each picture has.

    Rows beyond are empty boxes of class 0.
    """
    import torch

    sets = [objects(truth, found.boxes) for truth in truths]
    pad = torch.nn.utils.rnn.pad_sequence
    real = pad([boxes / whole for boxes, _ in sets], batch_first=True)
    return real, pad([classes for _, classes in sets], batch_first=True), [len(boxes) for boxes, _ in sets]


def _pairs(found: Queries, placed: Any, real: Any, classes: Any, counts: list[int], spec: FamilySpec) -> _Pairs:
    """The cheapest pairing of each picture."""
    import torch

    cost = _cost(found, placed, real, classes, spec).cpu()
    each = [paired_at_least_cost(cost[index, :, :count]) for index, count in enumerate(counts)]
    picture = torch.cat([torch.full((len(rows),), index) for index, (rows, _) in enumerate(each)])
    parts = (picture, torch.cat([rows for rows, _ in each]), torch.cat([columns for _, columns in each]))
    return _Pairs(*(part.to(placed.device) for part in parts))


def _weights(found: Queries, truths: Sequence[DetectionTruth], whole: Any) -> Any:
    """`(N, Q)`: 0 for queries that lie in a crowd, where nothing is sure, else 1."""
    import torch

    centres = found.boxes[..., :2].detach() * whole[:2]
    return torch.stack([outside_crowds(truth, rows) for truth, rows in zip(truths, centres, strict=True)])


def paired_at_least_cost(cost: Any) -> tuple[Any, Any]:
    """Rows and columns of the pairing with the least sum of ``cost`` `(Q, G)`: each object one query, at most."""
    import torch
    from scipy.optimize import linear_sum_assignment

    # A network that has run away is reported by its loss, which is not finite either.
    rows, columns = linear_sum_assignment(cost.detach().nan_to_num(1e6, 1e6, -1e6).cpu().numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(columns, device=cost.device)


def _cost(found: Queries, placed: Any, real: Any, classes: Any, spec: FamilySpec) -> Any:
    """What it would cost that a query stands for an object, `(N, Q, G)`, without gradient."""
    import torch

    with torch.no_grad():
        wanted = classes[:, None].expand(-1, found.values.shape[1], -1)
        shares = _shares(found.values, spec, exclusive=found.exclusive)
        if found.exclusive:
            named = -shares.gather(2, wanted)
        else:
            shares = shares.clamp(SMALLEST, 1 - SMALLEST)
            right = 0.25 * (1 - shares) ** _GAMMA * -shares.log()
            wrong = 0.75 * shares**_GAMMA * -(1 - shares).log()
            named = 2.0 * (right - wrong).gather(2, wanted)
        away = torch.cdist(found.boxes, _centred(real), p=1)
        return named + _DISTANCE * away - _OVERLAP * _generalised(placed[:, :, None], real[:, None])


def _shared(one: Any, other: Any) -> tuple[Any, Any]:
    """IoU and union of boxes `(..., 4)` whose shapes fit, `(...)` each; torchvision's takes one picture alone."""
    import torch

    sides = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    common = sides.clamp_min(0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (one, other)]
    union = areas[0] + areas[1] - common
    return common / union.clamp_min(_NO_AREA), union


def _generalised(one: Any, other: Any) -> Any:
    """Generalised IoU of the same boxes, -1..1 (H. Rezatofighi et al., arXiv:1902.09630)."""
    import torch

    overlap, union = _shared(one, other)
    around = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    hull = around.clamp_min(0).prod(dim=-1)
    return overlap - (hull - union) / hull.clamp_min(_NO_AREA)


def _shares(values: Any, spec: FamilySpec, *, exclusive: bool) -> Any:
    if spec.outputs == "probabilities":
        return values
    return values.softmax(dim=-1) if exclusive else values.sigmoid()


def _exclusive_lost(values: Any, pairs: _Pairs, classes: Any, weights: Any, spec: FamilySpec) -> Any:
    """Weighted mean of the cross entropy over all queries; the last class is "no object"."""
    import torch

    shares = values.clamp_min(SMALLEST).log() if spec.outputs == "probabilities" else values.log_softmax(dim=-1)
    wanted = torch.full(values.shape[:2], values.shape[2] - 1, device=values.device)
    wanted[pairs.picture, pairs.query] = classes
    weights = _NOTHING * weights
    weights[pairs.picture, pairs.query] = 1.0
    return -(shares.gather(2, wanted[..., None])[..., 0] * weights).sum() / weights.sum().clamp_min(SMALLEST)


def _varifocal_lost(values: Any, pairs: _Pairs, classes: Any, weights: Any, spec: FamilySpec, overlap: Any) -> Any:
    """Cross entropy of each class towards the ``overlap`` `(P,)` of its query's box, nothing easy counting much."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    logits = logits_of(values, shares=spec.outputs == "probabilities")
    wanted = torch.zeros_like(logits)
    wanted[pairs.picture, pairs.query, classes] = overlap
    weight = _ALPHA * logits.detach().sigmoid() ** _GAMMA
    weight[pairs.picture, pairs.query, classes] = overlap
    each = binary_cross_entropy_with_logits(logits, wanted, weight=weight, reduction="none")
    return (each.sum(dim=2) * weights).sum()


def _centred(boxes: Any) -> Any:
    """Corners -> centre and size."""
    import torch

    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)
