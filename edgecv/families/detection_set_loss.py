"""The loss of DETR and its kin on labels: each object has one query, and which one is the cheapest pairing of all."""

from __future__ import annotations

from collections.abc import Sequence
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
    from torchvision.ops import generalized_box_iou_loss

    found = detr_rows(outputs, spec)
    whole = like(found.boxes, [size_of(truths)[1], size_of(truths)[0]] * 2)
    placed = corners(found.boxes)
    lost, count = [found.boxes.new_zeros(())], 0
    classes_lost = []
    for index, truth in enumerate(truths):
        real, classes = objects(truth, placed)
        real = real / whole
        mine, owner = paired_at_least_cost(_cost(found, index, placed[index], real, classes, spec))
        lost.append(_DISTANCE * (found.boxes[index, mine] - _centred(real[owner])).abs().sum())
        lost.append(_OVERLAP * generalized_box_iou_loss(placed[index, mine], real[owner], reduction="sum"))
        counts = outside_crowds(truth, found.boxes[index, :, :2].detach() * whole[:2])
        counts[mine] = 1.0
        classes_lost.append((found.values[index], mine, classes[owner], placed[index, mine], real[owner], counts))
        count += len(real)
    named = _exclusive_lost(classes_lost, spec) if found.exclusive else _varifocal_lost(classes_lost, spec, count)
    return named + sum(lost[1:], lost[0]) / max(1, count)


def paired_at_least_cost(cost: Any) -> tuple[Any, Any]:
    """Rows and columns of the pairing with the least sum of ``cost`` `(Q, G)`: each object one query, at most."""
    import torch
    from scipy.optimize import linear_sum_assignment

    # A network that has run away is reported by its loss, which is not finite either.
    rows, columns = linear_sum_assignment(cost.detach().nan_to_num(1e6, 1e6, -1e6).cpu().numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(columns, device=cost.device)


def _cost(found: Queries, index: int, placed: Any, real: Any, classes: Any, spec: FamilySpec) -> Any:
    """What it would cost that a query stands for an object, `(Q, G)`, without gradient."""
    import torch
    from torchvision.ops import generalized_box_iou

    with torch.no_grad():
        values = found.values[index]
        if found.exclusive:
            named = -_shares(values, spec, exclusive=True)[:, classes]
        else:
            shares = _shares(values, spec, exclusive=False).clamp(SMALLEST, 1 - SMALLEST)
            right = 0.25 * (1 - shares) ** _GAMMA * -shares.log()
            wrong = 0.75 * shares**_GAMMA * -(1 - shares).log()
            named = 2.0 * (right - wrong)[:, classes]
        away = torch.cdist(found.boxes[index], _centred(real), p=1)
        return named + _DISTANCE * away - _OVERLAP * generalized_box_iou(placed, real)


def _shares(values: Any, spec: FamilySpec, *, exclusive: bool) -> Any:
    if spec.outputs == "probabilities":
        return values
    return values.softmax(dim=-1) if exclusive else values.sigmoid()


def _exclusive_lost(parts: Sequence[tuple[Any, ...]], spec: FamilySpec) -> Any:
    """Weighted mean of the cross entropy over all queries; the last class is "no object"."""
    import torch

    lost, weights = 0.0, 0.0
    for values, mine, classes, _, _, counts in parts:
        shares = values.clamp_min(SMALLEST).log() if spec.outputs == "probabilities" else values.log_softmax(dim=1)
        wanted = torch.full((len(values),), values.shape[1] - 1, device=values.device)
        wanted[mine] = classes
        weight = _NOTHING * counts
        weight[mine] = 1.0
        lost = lost - (shares.gather(1, wanted[:, None])[:, 0] * weight).sum()
        weights = weights + weight.sum()
    return lost / weights.clamp_min(SMALLEST)  # type: ignore[attr-defined]


def _varifocal_lost(parts: Sequence[tuple[Any, ...]], spec: FamilySpec, count: int) -> Any:
    """Cross entropy of each class towards the overlap of its query's box, nothing easy counting much."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from torchvision.ops import box_iou

    lost = 0.0
    for values, mine, classes, boxes, real, counts in parts:
        logits = logits_of(values, shares=spec.outputs == "probabilities")
        wanted = torch.zeros_like(logits)
        overlap = box_iou(boxes.detach(), real).diagonal()
        wanted[mine, classes] = overlap
        weight = _ALPHA * logits.detach().sigmoid() ** _GAMMA
        weight[mine, classes] = overlap
        each = binary_cross_entropy_with_logits(logits, wanted, weight=weight, reduction="none")
        lost = lost + (each.sum(dim=1) * counts).sum()
    return lost / max(1, count)


def _centred(boxes: Any) -> Any:
    """Corners -> centre and size."""
    import torch

    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
