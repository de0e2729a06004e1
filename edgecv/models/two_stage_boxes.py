"""Boxes in fixed shapes, as torch operators that every engine has: decoding, overlap, suppression."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["clipped", "decoded", "overlap", "survivors"]

_LARGEST_GROWTH = math.log(1000 / 16)
_SMALLEST_UNION = 1e-6
_UNIT = 64.0


def decoded(deltas: Tensor, boxes: Tensor, *, each: int, weights: Sequence[float]) -> Tensor:
    """``each`` boxes `(N, each * 4)` that ``deltas`` of this shape (dx, dy, dw, dh) make of each of ``boxes`` `(N, 4)`.

    Corners x1, y1, x2, y2 in pixels; ``weights`` divide the four deltas (R. Girshick et al., arXiv:1311.2524, C).
    """
    moves = deltas.reshape(-1, each, 4)
    sides = (boxes[:, 2:4] - boxes[:, 0:2]).unsqueeze(1)
    centres = boxes[:, 0:2].unsqueeze(1) + sides * 0.5
    scale = torch.tensor([1 / weight for weight in weights], dtype=torch.float32)
    placed = centres + moves[:, :, 0:2] * scale[:2] * sides
    half = torch.exp((moves[:, :, 2:4] * scale[2:]).clamp(max=_LARGEST_GROWTH)) * sides * 0.5
    return torch.cat([placed - half, placed + half], dim=2).reshape(-1, each * 4)


def clipped(boxes: Tensor, size: tuple[int, int], *, each: int) -> Tensor:
    """``boxes`` `(N, each * 4)` cut at the edges of a picture of (height, width) ``size``."""
    corners = boxes.reshape(-1, each * 2, 2)
    x = corners[:, :, 0:1].clamp(0.0, float(size[1]))
    y = corners[:, :, 1:2].clamp(0.0, float(size[0]))
    return torch.cat([x, y], dim=2).reshape(-1, each * 4)


def overlap(boxes: Tensor) -> Tensor:
    """Intersection over union `(N, N)` of ``boxes`` `(N, 4)` in pixels; 0 where both are empty."""
    units = boxes * (1 / _UNIT)  # areas that a 16-bit float holds
    low, high = units[:, 0:2], units[:, 2:4]
    sides = high - low
    area = sides[:, 0:1] * sides[:, 1:2]
    shared = torch.minimum(high.unsqueeze(1), high.unsqueeze(0)) - torch.maximum(low.unsqueeze(1), low.unsqueeze(0))
    shared = torch.relu(shared)
    both = shared[:, :, 0] * shared[:, :, 1]
    return both / (area + area.transpose(0, 1) - both).clamp(min=_SMALLEST_UNION)


def survivors(rivals: Tensor, *, count: int, rounds: int) -> Tensor:
    """1 for each box that non-maximum suppression leaves, else 0: `(N, 1)` float32, N = ``count``.

    ``rivals`` `(N, N)` is 1 where the box of a row would be suppressed by that of a column, for boxes sorted by their
    scores, best first; only what stands below the diagonal counts. One round is Fast NMS (D. Bolya et al.,
    arXiv:1904.02689), where boxes that are suppressed themselves still suppress others; each further round corrects
    that for one more step of such chains (Z. Zheng et al., "Cluster-NMS", arXiv:2005.03572), so with enough rounds the
    result is that of the usual greedy suppression.
    """
    better = rivals * torch.ones(count, count).tril(-1)
    kept = torch.ones(count, 1)
    for _ in range(rounds):
        kept = torch.lt(torch.mm(better, kept), 0.5).to(torch.float32)
    return kept
