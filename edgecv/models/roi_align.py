"""RoIAlign in fixed shapes out of products of matrices, which every engine has (K. He et al., arXiv:1703.06870).

Linear interpolation at a grid of points that stands straight in the picture is separable: the features of a box are
``down @ features @ across.T``, where a row of either matrix holds the weights ``max(0, 1 - |x - i|)`` of the cells i
around a point x. Nothing is gathered, and no shape depends on data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["pyramid_align", "roi_align"]

CANONICAL_SIDE = 224.0
CANONICAL_LEVEL = 4
_LEVEL_MARGIN = 1e-6
_UNIT = 64.0


def roi_align(features: Tensor, boxes: Tensor, *, scale: float, size: int, samples: int = 2) -> Tensor:
    """Features `(K, C, size, size)` of boxes, the mean of ``samples`` x ``samples`` points in each cell of the result.

    ``features`` is `(1, C, H, W)`, ``boxes`` `(K, 4)` x1, y1, x2, y2 in pixels of the picture, inside it; ``scale``
    is the features' cells a pixel. The same as ``torchvision.ops.roi_align`` with ``aligned=False``.
    """
    height, width = int(features.shape[2]), int(features.shape[3])
    return _align(features, boxes, (height, width), len(boxes), scale=scale, size=size, samples=samples)


def pyramid_align(
    pyramid: Sequence[Tensor],
    boxes: Tensor,
    *,
    count: int,
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    size: int,
    samples: int = 2,
) -> Tensor:
    """`roi_align` of ``count`` boxes, each on the level of a feature pyramid that its area asks for.

    ``pyramid`` holds one `(1, C, H, W)` a level, of `(H, W)` ``sizes``, ``strides`` are its pixels a cell (powers of
    two, each twice the one before). A box is pooled on all levels and counted on its own: a box of 224 x 224 pixels on
    the level of stride 16, others by the logarithm of their side (T.-Y. Lin et al., arXiv:1612.03144, equation 1).
    Sizes are given and not read from the tensors, so that `torch.fx` can trace it.
    """
    if len(pyramid) == 1:
        return _align(pyramid[0], boxes, sizes[0], count, scale=1 / strides[0], size=size, samples=samples)
    # In units of 64 pixels the area of a large box is no more than a 16-bit float holds.
    sides = (boxes[:, 2:4] - boxes[:, 0:2]) * (1 / _UNIT)
    area = sides[:, 0:1] * sides[:, 1:2]
    reached = [torch.ge(area, _least_area(stride)).to(torch.float32) for stride in strides[1:]]
    pooled = []
    for place, (level, cells) in enumerate(zip(pyramid, sizes, strict=True)):
        share = 1.0 - reached[0] if place == 0 else reached[place - 1]
        if 0 < place < len(strides) - 1:
            share = share - reached[place]
        made = _align(level, boxes, cells, count, scale=1 / strides[place], size=size, samples=samples, share=share)
        pooled.append(made)
    total = pooled[0]
    for made in pooled[1:]:
        total = total + made
    return total


def _least_area(stride: int) -> float:
    """Area from which a box belongs to the level of ``stride`` or a coarser one, in square units."""
    side = CANONICAL_SIDE * 2.0 ** (math.log2(stride) - CANONICAL_LEVEL - _LEVEL_MARGIN)
    return (side / _UNIT) ** 2


def _align(
    features: Tensor,
    boxes: Tensor,
    cells: tuple[int, int],
    count: int,
    *,
    scale: float,
    size: int,
    samples: int,
    share: Tensor | None = None,
) -> Tensor:
    """`roi_align`, each box's result times its ``share`` `(K, 1)`."""
    height, width = cells
    placed = boxes * scale
    down = _weights(placed[:, 1:2], placed[:, 3:4], cells=height, points=size, samples=samples)
    across = _weights(placed[:, 0:1], placed[:, 2:3], cells=width, points=size, samples=samples)
    if share is not None:
        down = down * share.unsqueeze(2)
    table = features.permute(0, 2, 3, 1).reshape(height, -1)
    rows = torch.mm(down.reshape(count * size, height), table).reshape(count * size, width, -1)
    columns = across.unsqueeze(1).expand(count, size, size, width).reshape(count * size, size, width)
    return torch.bmm(columns, rows).reshape(count, size, size, -1).permute(0, 3, 1, 2)


def _weights(start: Tensor, end: Tensor, *, cells: int, points: int, samples: int) -> Tensor:
    """Weights `(K, points, cells)` of the cells for ``points`` stretches between ``start`` and ``end`` `(K, 1)`.

    Coordinates count cells; a box is at least one cell long. Points up to one cell beyond the outermost cells read
    those, the others nothing.
    """
    many = points * samples
    inner = torch.tensor([[(place + 0.5) / many for place in range(many)]])
    grid = torch.tensor([[[float(cell) for cell in range(cells)]]])
    where = start + (end - start).clamp(min=1.0) * inner
    inside = torch.le(where, float(cells)).to(torch.float32)
    near = torch.relu(1.0 - (where.clamp(0.0, float(cells - 1)).unsqueeze(2) - grid).abs())
    return (near * inside.unsqueeze(2)).reshape(-1, points, samples, cells).mean(dim=2)
