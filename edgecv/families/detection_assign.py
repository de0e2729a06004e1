"""Which cell of a detector learns which object: the published ways, on one picture. Torch, without gradients.

Each gives ``owner`` `(M,)`: the object that a cell answers for, -1 for none; and how much it is that object, `(M,)`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["aligned", "central", "matched", "overlaps", "paired", "sim_ota"]

_TOP = 10
_CENTRE_CELLS = 2.5
_OUTSIDE = 1e5
_TINY = 1e-9
_SCORE_POWER, _OVERLAP_POWER = 0.5, 6.0
_CENTRE_POINTS = 1.5
_RANGE = 4.0


def aligned(scores: Any, boxes: Any, centres: Any, truth: Any, classes: Any, *, each: int) -> tuple[Any, Any]:
    """Task-aligned assignment (Feng et al., TOOD, arXiv:2108.07755, with the powers that YOLOv8 and later take).

    For each object the ``each`` cells, with their centre in its box, of the largest ``score ** 0.5 * IoU ** 6``; a cell
    that several objects want goes to the one that it overlaps most. ``each`` 1 is the one-to-one assignment of
    YOLOv10 (arXiv:2405.14458). An object between all centres takes the nearest one. ``scores`` `(M, C)`, ``boxes``
    `(M, 4)` and ``truth`` `(G, 4)` in pixels, ``centres`` `(M, 2)`, ``classes`` `(G,)`. The weight of a cell is its
    alignment, scaled so that each object's best cell has its IoU.
    """
    import torch

    found = overlaps(truth, boxes).clamp_min(0)
    align = scores[:, classes].T.clamp_min(_TINY) ** _SCORE_POWER * found**_OVERLAP_POWER
    near = _inside(centres, truth) | _nearest(centres, truth)
    # Where no box overlaps yet, the order still has to mean something: the nearer to the middle, the better.
    away = (centres[None] - _middle(truth)[:, None]).square().sum(dim=2)
    order = torch.where(near, align + _TINY / (1 + away), torch.full_like(align, -1.0))
    chosen = torch.zeros_like(near)
    best = order.topk(min(each, order.shape[1]), dim=1).indices
    chosen.scatter_(1, best, torch.ones_like(best, dtype=torch.bool))
    chosen &= near
    share = torch.where(chosen, found + _TINY, torch.zeros_like(found))
    owner = share.argmax(dim=0)
    taken = chosen.any(dim=0)
    kept = torch.where(taken, owner, torch.full_like(owner, -1))
    mine = torch.zeros_like(chosen)
    columns = torch.nonzero(taken)[:, 0]
    mine[owner[columns], columns] = True
    align, found = align * mine, found * mine
    scale = found.amax(dim=1, keepdim=True) / align.amax(dim=1, keepdim=True).clamp_min(_TINY)
    return kept, (align * scale).amax(dim=0).clamp(0, 1)


def sim_ota(cost_of_classes: Any, boxes: Any, centres: Any, strides: Any, truth: Any) -> tuple[Any, Any]:
    """SimOTA (Ge et al., YOLOX, arXiv:2107.08430).

    ``cost_of_classes`` `(G, M)` is what each object would cost in each cell by its class; the cost of its box,
    ``-3 * log(IoU)``, is added. Cells lie in the object's box or within 2.5 cells of its middle, those in both come
    first. An object takes as many cells as the ten best overlaps sum to, at least 1; the weight of a cell is its IoU.
    """
    import torch

    found = overlaps(truth, boxes).clamp_min(0)
    inside = _inside(centres, truth)
    reach = (_CENTRE_CELLS * strides)[None, :, None]
    central = ((centres[None] - _middle(truth)[:, None]).abs() < reach).all(dim=2)
    near = (inside | central).any(dim=0)
    cost = cost_of_classes - 3.0 * (found + 1e-8).log() + _OUTSIDE * (~(inside & central))
    cost = torch.where(near[None], cost, torch.full_like(cost, torch.inf))
    counts = (found * near).topk(min(_TOP, found.shape[1]), dim=1).values.sum(dim=1).int().clamp_min(1)
    chosen = torch.zeros_like(inside)
    for row, count in enumerate(counts.tolist()):
        chosen[row, cost[row].topk(min(count, int(near.sum())), largest=False).indices] = True
    owner = torch.where(chosen, cost, torch.full_like(cost, torch.inf)).argmin(dim=0)
    kept = torch.where(chosen.any(dim=0), owner, torch.full_like(owner, -1))
    return kept, found.gather(0, owner[None])[0]


def paired(scores: Any, boxes: Any, kinds: Any, truth: Any, classes: Any) -> tuple[Any, Any]:
    """One row for each object and one object for each row, the best pair first (one-to-one, as arXiv:2405.14458).

    For rows that stand for one class: ``scores`` `(M,)`, ``kinds`` `(M,)`. Only rows of the object's class that
    overlap it are taken, by ``score ** 0.5 * IoU ** 6``; the weight of a row is its IoU.
    """
    import torch

    found = overlaps(truth, boxes).clamp_min(0)
    fits = (kinds[None] == classes[:, None]) & (found > 0)
    worth = torch.where(fits, scores[None].clamp_min(_TINY) ** _SCORE_POWER * found**_OVERLAP_POWER + _TINY, 0 * found)
    owner = torch.full_like(kinds, -1)
    weight = torch.zeros_like(scores)
    for _ in range(len(truth)):
        row, column = divmod(int(worth.argmax()), worth.shape[1])
        if worth[row, column] <= 0:
            break
        owner[column], weight[column] = row, found[row, column]
        worth[row], worth[:, column] = 0, 0
    return owner, weight


def matched(anchors: Any, truth: Any, *, match: float, free: float) -> tuple[Any, Any]:
    """For each anchor `(M, 4)` the object `(G, 4)` that it overlaps by ``match`` or more; all are corners in pixels.

    Each object also gets the anchor that overlaps it most, if any does (W. Liu et al., "SSD", arXiv:1512.02325).
    Second, which anchors are neither: they overlap one by ``free`` or more, and not by ``match`` (T.-Y. Lin et al.,
    "Focal loss for dense object detection", arXiv:1708.02002, section 4).
    """
    import torch

    none = torch.full((len(anchors),), -1, dtype=torch.long, device=anchors.device)
    if not len(truth):
        return none, none > 0
    found = overlaps(truth, anchors)
    best, owner = found.max(dim=0)
    owner = torch.where(best >= match, owner, none)
    for row, anchor in enumerate(found.argmax(dim=1).tolist()):
        if found[row, anchor] > 0:
            owner[anchor] = row
    return owner, (owner < 0) & (best >= free)


def central(points: Any, strides: Any, truth: Any) -> Any:
    """FCOS's way (Z. Tian et al., arXiv:1904.01355): the object that each point `(M, 2)` in its box answers for.

    A point lies within 1.5 strides of the object's middle, and its map is for objects of this size: the farthest side
    is between 4 and 8 strides away, with no lower end for the finest map and no upper end for the coarsest. Of several
    objects the smallest counts. ``strides`` `(M,)` are those of the points' maps, ``truth`` `(G, 4)`; all in pixels.
    """
    import torch

    none = torch.full((len(points),), -1, dtype=torch.long, device=points.device)
    if not len(truth):
        return none
    before, after = points[None] - truth[:, None, :2], truth[:, None, 2:] - points[None]
    sides = torch.cat([before, after], dim=2)
    farthest = sides.amax(dim=2)
    lowest = torch.where(strides == strides.min(), torch.zeros_like(strides), _RANGE * strides)
    highest = torch.where(strides == strides.max(), torch.full_like(strides, torch.inf), 2 * _RANGE * strides)
    near = (points[None] - _middle(truth)[:, None]).abs().amax(dim=2) < _CENTRE_POINTS * strides
    fits = near & (sides.amin(dim=2) > 0) & (farthest > lowest) & (farthest < highest)
    area = (truth[:, 2:] - truth[:, :2]).prod(dim=1)[:, None].expand_as(fits)
    smallest = torch.where(fits, area, torch.full_like(area, torch.inf)).argmin(dim=0)
    return torch.where(fits.any(dim=0), smallest, none)


def overlaps(one: Any, other: Any) -> Any:
    """IoU `(G, M)` of boxes `(G, 4)` and `(M, 4)` as corners."""
    low = _maximum(one[:, None, :2], other[None, :, :2])
    high = -_maximum(-one[:, None, 2:], -other[None, :, 2:])
    shared = (high - low).clamp_min(0).prod(dim=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(dim=1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clamp_min(_TINY)


def _maximum(one: Any, other: Any) -> Any:
    import torch

    return torch.maximum(one, other)


def _middle(boxes: Any) -> Any:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _inside(centres: Any, truth: Any) -> Any:
    """`(G, M)`: whether a cell's centre lies in an object's box."""
    return ((centres[None] > truth[:, None, :2]) & (centres[None] < truth[:, None, 2:])).all(dim=2)


def _nearest(centres: Any, truth: Any) -> Any:
    """`(G, M)`: the cell whose centre is nearest to an object's middle, where no centre lies in its box."""
    import torch

    away = (centres[None] - _middle(truth)[:, None]).square().sum(dim=2)
    nearest = torch.zeros_like(away, dtype=torch.bool)
    nearest.scatter_(1, away.argmin(dim=1, keepdim=True), True)
    return nearest & ~_inside(centres, truth).any(dim=1, keepdim=True)
