"""What detectors with anchors share: the anchors of all cells, and boxes as offsets from them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.tensor import FloatArray
from edgecv.families.heads.common import Strides

LARGEST = math.log(1000 / 16)
"""The most that the logarithm of a side may grow, as in the first Faster R-CNN code and all that came from it."""


def frozen(value: Any) -> Any:
    """Lists as tuples, so that they can be a key."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def moved(anchors: FloatArray, offsets: FloatArray, *, centre: float = 1.0, side: float = 1.0) -> FloatArray:
    """Boxes `(M, 4)` as centre and size from anchors of that form and ``offsets`` `(M, 4)`.

    Centres move by shares of the anchor's sides, whose logarithms grow; offsets are first multiplied by ``centre`` and
    ``side`` (S. Ren et al., "Faster R-CNN", 2015).
    """
    placed: FloatArray = np.empty_like(offsets)
    placed[:, :2] = anchors[:, :2] + offsets[:, :2] * np.float32(centre) * anchors[:, 2:]
    placed[:, 2:] = anchors[:, 2:] * np.exp(np.minimum(offsets[:, 2:] * np.float32(side), np.float32(LARGEST)))
    return placed


def inside(boxes: FloatArray, contract: InputContract) -> FloatArray:
    """Boxes `(M, 4)` as corners in pixels, cut at the edges of the network's input."""
    height, width = contract.size
    cut: FloatArray = boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))
    return cut


def corners_of_cells(size: tuple[int, int], strides: Strides) -> tuple[FloatArray, ...]:
    """For each map the place `(cells, 2)` of each cell's corner in pixels, x and y, row by row.

    The maps of an input of (height, width) ``size`` have ``ceil(size / stride)`` cells. As torchvision has it, cells
    are ``size // cells`` pixels apart, so a little less than ``stride`` where that does not divide the size.
    """
    places = []
    for stride in strides:
        high, wide = -(-size[0] // stride), -(-size[1] // stride)
        y, x = np.divmod(np.arange(high * wide), wide)
        places.append(np.stack([x * (size[1] // wide), y * (size[0] // high)], axis=1).astype(np.float32))
    return tuple(places)


@lru_cache(maxsize=8)
def anchor_boxes(
    size: tuple[int, int],
    strides: Strides,
    sizes: tuple[tuple[float, ...], ...],
    aspect_ratios: tuple[float, ...],
) -> FloatArray:
    """Anchors `(P, 4)` float32 as centre and size in pixels, map by map, cell by cell.

    Each cell has one for each of ``aspect_ratios`` (height to width) and each of its map's ``sizes`` (the side of a
    square of the same area); corners are rounded to whole pixels, as in torchvision (T.-Y. Lin et al., "Focal loss for
    dense object detection", 2017, section 4).
    """
    parts = []
    for places, sides in zip(corners_of_cells(size, strides), sizes, strict=True):
        roots = np.sqrt(np.array(aspect_ratios, dtype=np.float32))
        squares = np.array(sides, dtype=np.float32)
        shapes = np.stack([np.outer(1 / roots, squares), np.outer(roots, squares)], axis=2).reshape(-1, 2)
        shapes = 2 * np.rint(shapes / 2)
        count = len(shapes)
        parts.append(np.concatenate([places.repeat(count, axis=0), np.tile(shapes, (len(places), 1))], axis=1))
    boxes: FloatArray = np.concatenate(parts).astype(np.float32)
    boxes.setflags(write=False)  # shared by all callers
    return boxes
