"""What a detector predicts in training: the exported outputs as boxes in pixels and probabilities, differentiable.

The layouts are those of `edgecv.families.heads.yolo`; torch tensors, batch first. Nothing is cut or sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.heads.common import points
from edgecv.families.heads.yolo import END2END_OPTIONS, YOLO_OPTIONS, YOLOX_OPTIONS

__all__ = ["Predictions", "end2end_cells", "fastest_cells", "yolo_cells", "yolox_cells"]

_LARGEST_LOG = 20.0
_STRIDES = (4, 8, 16, 32, 64)
"""Of the maps of detectors that are known; a decoded output does not tell its own."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Predictions:
    """Of a batch of N pictures with M cells each.

    ``boxes`` `(N, M, 4)` x1, y1, x2, y2 in pixels of the network's input; ``scores`` `(N, M, C)` probabilities of the
    classes; ``objectness`` `(N, M)` where the head has one. ``centres`` `(M, 2)` in pixels and ``strides`` `(M,)` say
    which part of the picture a cell answers for; None where rows have no place of their own. ``exclusive``: a cell's
    scores sum to 1 (softmax).
    """

    boxes: Any
    scores: Any
    objectness: Any | None = None
    centres: FloatArray | None = None
    strides: FloatArray | None = None
    exclusive: bool = False


def yolox_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Predictions:
    """`(N, M, 5 + C)`: box relative to its cell (or in pixels, option ``decoded``), objectness, classes.

    Raises:
        ModelError: the output does not fit the labels, or the option ``strides``.
    """
    rows = _rows(outputs[0], 5 + len(spec.labels))
    strides = tuple(spec.options.get("strides", YOLOX_OPTIONS["strides"].default))
    cells = points(size, strides)
    _check_count(rows, cells, size, strides)
    boxes = rows[..., :4]
    if not spec.options.get("decoded", False):
        corner, step = _like(rows, cells[:, :2]), _like(rows, cells[:, 2:])
        boxes = _join([(boxes[..., :2] + corner) * step, boxes[..., 2:].clamp(max=_LARGEST_LOG).exp() * step])
    return Predictions(_corners(boxes), rows[..., 5:], rows[..., 4], *_places(cells))


def yolo_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Predictions:
    """`(N, 4 + C, M)` decoded, or raw maps `(N, 4 * reg_max + C, h, w)`, as the head ``yolo`` reads them.

    Raises:
        ModelError: the outputs do not fit the labels, or no maps of an input of this size have so many cells.
    """
    classes = len(spec.labels)
    if len(outputs) == 1 and outputs[0].ndim == 3:
        rows = _rows(outputs[0], 4 + classes, first=True)
        cells = points(size, _strides_of(rows.shape[1], size))
        boxes = rows[..., :4]
        if spec.options.get("normalized", False):
            boxes = boxes * _like(rows, np.array([size[1], size[0]] * 2, dtype=np.float32))
        return Predictions(_corners(boxes), rows[..., 4:], None, *_places(cells))
    bins = int(spec.options.get("reg_max", YOLO_OPTIONS["reg_max"].default))
    parts = [_raw_map(output, bins, classes, size) for output in outputs]
    boxes, scores = (_join([part[place] for part in parts], axis=1) for place in (0, 1))
    cells = np.concatenate([part[2] for part in parts])
    return Predictions(boxes, scores, None, *_places(cells))


def end2end_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> tuple[Predictions, Any]:
    """`(N, M, 6)`: boxes, scores `(N, M, 1)` of the one class that each row stands for, and that class `(N, M)`.

    Raises:
        ModelError: the output has another shape.
    """
    rows = _rows(outputs[0], 6)
    boxes = rows[..., :4]
    if spec.options.get("normalized", END2END_OPTIONS["normalized"].default):
        boxes = boxes * _like(rows, np.array([size[1], size[0]] * 2, dtype=np.float32))
    return Predictions(boxes, rows[..., 4:5]), rows[..., 5].detach().round().long()


def fastest_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Predictions:
    """One map `(N, 5 + C, h, w)`: objectness, box and classes (which sum to 1) of each cell.

    Raises:
        ModelError: the output is no such map.
    """
    width = 5 + len(spec.labels)
    rows = _rows(outputs[0], width, first=True)
    if outputs[0].ndim != 4:
        raise ModelError(f"an output has shape {tuple(outputs[0].shape)}; head fastestdet needs (N, {width}, h, w)")
    high, wide = outputs[0].shape[2:] if outputs[0].shape[1] == width else outputs[0].shape[1:3]
    cells = _grid(high, wide, size)
    grid, whole = _like(rows, np.array([size[1] / wide, size[0] / high])), _like(rows, np.array(size[::-1]))
    centres = rows[..., 1:3].tanh() * grid + _like(rows, (cells[:, :2] * cells[:, 2:]))
    boxes = _corners(_join([centres, rows[..., 3:5].sigmoid() * whole]))
    return Predictions(boxes, rows[..., 5:], rows[..., 0], *_places(cells), exclusive=True)


def _raw_map(output: Any, bins: int, classes: int, size: Size) -> tuple[Any, Any, FloatArray]:
    """Boxes, scores and cells of one raw map. A side is the mean of its distribution (arXiv:2006.04388)."""
    width = 4 * bins + classes
    rows = _rows(output, width, first=True)
    high, wide = output.shape[2:] if output.shape[1] == width else output.shape[1:3]
    cells = _grid(high, wide, size)
    sides = rows[..., : 4 * bins].reshape(*rows.shape[:2], 4, bins)
    places = _like(rows, np.arange(bins))
    away = sides.softmax(dim=-1) @ places if bins > 1 else sides[..., 0]
    centre, step = _like(rows, cells[:, :2] + 0.5), _like(rows, np.array([size[1] / wide, size[0] / high]))
    boxes = _join([(centre - away[..., :2]) * step, (centre + away[..., 2:]) * step])
    return boxes, rows[..., 4 * bins :].sigmoid(), cells


def _rows(output: Any, width: int, *, first: bool = False) -> Any:
    """`(N, M, width)` float32 of `(N, M, width)`, `(N, width, M)`, `(N, width, h, w)` or `(N, h, w, width)`."""
    shape = tuple(output.shape)
    if len(shape) not in (3, 4) or width not in (shape[1], shape[-1]):
        raise ModelError(f"an output has shape {shape}; {width} values for each box are needed. Check the labels.")
    if shape[1] == width and (first or shape[-1] != width):
        return output.float().flatten(2).transpose(1, 2)
    return output.float().reshape(shape[0], -1, width)


def _strides_of(count: int, size: Size) -> tuple[int, ...]:
    """The strides of maps that together have ``count`` cells: 8, 16, 32 where that fits, else a row of others."""
    places = range(len(_STRIDES) + 1)
    rows = [_STRIDES[first:last] for first in places for last in places if first < last]
    for strides in sorted(rows, key=lambda row: row != (8, 16, 32)):
        if len(points(size, strides)) == count:
            return strides
    raise ModelError(
        f"the output has {count} boxes; no maps of an input of {list(size)} have so many cells. "
        "To train on labels, export raw maps, or set distill: 1.0."
    )


def _grid(high: int, wide: int, size: Size) -> FloatArray:
    """Column, row and stride of each cell of one map, as `points` gives them."""
    y, x = np.divmod(np.arange(high * wide, dtype=np.float32), np.float32(wide))
    return np.stack([x, y, np.full(high * wide, size[0] / high, dtype=np.float32)], axis=1)


def _places(cells: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centres in pixels and strides."""
    return (cells[:, :2] + np.float32(0.5)) * cells[:, 2:], cells[:, 2]


def _check_count(rows: Any, cells: FloatArray, size: Size, strides: tuple[int, ...]) -> None:
    if rows.shape[1] != len(cells):
        raise ModelError(
            f"the output has {rows.shape[1]} boxes; an input of {list(size)} has {len(cells)} cells at strides "
            f"{list(strides)}. Set the option 'strides' of the head."
        )


def _corners(boxes: Any) -> Any:
    """Centre and size -> corners."""
    return _join([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2])


def _join(parts: Sequence[Any], *, axis: int = -1) -> Any:
    import torch

    return torch.cat(list(parts), dim=axis)


def _like(tensor: Any, array: Any) -> Any:
    return tensor.new_tensor(np.asarray(array, dtype=np.float32))
