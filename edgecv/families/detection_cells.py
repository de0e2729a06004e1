"""What a detector predicts in training: the exported outputs as boxes in pixels and probabilities, differentiable.

The one reader of losses and of distillation. The layouts are those of `edgecv.families.heads`; torch tensors, batch
first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.detection_anchored import detr_cells, fcos_cells, retinanet_cells, ssd_cells, ultraface_cells
from edgecv.families.detection_rows import Cells, Size, corners, growth, joined, like, places, rows_of
from edgecv.families.heads.common import points, setting
from edgecv.families.heads.yolo import ANCHOR_OPTIONS, END2END_OPTIONS, YOLO_OPTIONS, YOLOX_OPTIONS
from edgecv.families.heads.yunet import HEADS as YUNET_HEADS

__all__ = ["CELL_HEADS", "end2end_cells", "fastest_cells", "yolo_cells", "yolox_cells"]

_STRIDES = (4, 8, 16, 32, 64)
"""Of the maps of detectors that are known; a decoded output does not tell its own."""
_LANDMARKS = 5

Reader = Callable[[Sequence[Any], FamilySpec, Size], Cells]


def yolox_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """`(N, M, 5 + C)`: box relative to its cell (or in pixels, option ``decoded``), objectness, classes.

    Decoded cells have no known place where the option ``strides`` does not fit.

    Raises:
        ModelError: the output does not fit the labels, or the option ``strides``.
    """
    rows = rows_of(outputs[0], 5 + len(spec.labels))
    strides = tuple(setting(YOLOX_OPTIONS, spec, "strides"))
    cells = points(size, strides)
    boxes = rows[..., :4]
    if setting(YOLOX_OPTIONS, spec, "decoded"):
        if rows.shape[1] != len(cells):
            return Cells(rows[..., 5:], rows[..., 4], corners(boxes))
    else:
        _check_count(rows, cells, size, strides)
        corner, step = like(rows, cells[:, :2]), like(rows, cells[:, 2:])
        boxes = joined([(boxes[..., :2] + corner) * step, growth(boxes[..., 2:]) * step])
    return Cells(rows[..., 5:], rows[..., 4], corners(boxes), None, *places(cells))


def anchor_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """`(N, M, 5 + C)` decoded, or raw maps with a box for each anchor of each cell: the head ``yolo-anchor``.

    Raises:
        ModelError: the outputs do not fit the labels, or the option ``anchors``.
    """
    width = 5 + len(spec.labels)
    whole = np.array([size[1], size[0]], dtype=np.float32)
    if len(outputs) == 1 and outputs[0].ndim == 3:
        rows = rows_of(outputs[0], width)
        unit = whole if setting(ANCHOR_OPTIONS, spec, "normalized") else np.ones(2, dtype=np.float32)
        return Cells(rows[..., 5:], rows[..., 4], corners(rows[..., :4] * like(rows, np.tile(unit, 2))))
    anchors = setting(ANCHOR_OPTIONS, spec, "anchors")
    if len(outputs) != len(anchors):
        raise ModelError(f"the model gave {len(outputs)} outputs; there are anchors for {len(anchors)} maps")
    count = len(anchors[0])
    maps = sorted((_anchor_map(output, count, width) for output in outputs), key=lambda found: -found[1] * found[2])
    parts, middles, steps = [], [], []
    for (values, high, wide), sizes in zip(maps, anchors, strict=True):
        shares, cells = values.sigmoid(), _grid(high, wide, size)
        step = like(values, whole / np.array([wide, high], dtype=np.float32))
        centres = (shares[..., :2] * 2 - 0.5 + like(values, cells[:, :2])) * step
        sides = (shares[..., 2:4] * 2).square() * like(values, sizes).reshape(1, count, 1, 2)
        parts.append(joined([corners(joined([centres, sides])), shares[..., 4:]]).flatten(1, 2))
        middles.append(np.tile(places(cells)[0], (count, 1)))
        steps.append(np.tile(cells[:, 2], count))
    rows = joined(parts, axis=1)
    return Cells(rows[..., 5:], rows[..., 4], rows[..., :4], None, np.concatenate(middles), np.concatenate(steps))


def yolo_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """`(N, 4 + C, M)` decoded, or raw maps `(N, 4 * reg_max + C, h, w)`, as the head ``yolo`` reads them.

    Cells have no known place where no maps of an input of this size have so many.

    Raises:
        ModelError: the outputs do not fit the labels.
    """
    classes = len(spec.labels)
    if len(outputs) == 1 and outputs[0].ndim == 3:
        rows = rows_of(outputs[0], 4 + classes, first=True)
        boxes = rows[..., :4]
        if setting(YOLO_OPTIONS, spec, "normalized"):
            boxes = boxes * like(rows, [size[1], size[0]] * 2)
        strides = _strides_of(rows.shape[1], size)
        where = (None, None) if strides is None else places(points(size, strides))
        return Cells(rows[..., 4:], None, corners(boxes), None, *where)
    bins = int(setting(YOLO_OPTIONS, spec, "reg_max"))
    parts = [_raw_map(output, bins, classes, size) for output in outputs]
    boxes, scores = (joined([part[place] for part in parts], axis=1) for place in (0, 1))
    cells = np.concatenate([part[2] for part in parts])
    return Cells(scores, None, boxes, None, *places(cells))


def end2end_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> tuple[Cells, Any]:
    """`(N, M, 6)`: boxes, scores `(N, M, 1)` of the one class that each row stands for, and that class `(N, M)`.

    Raises:
        ModelError: the output has another shape.
    """
    rows = rows_of(outputs[0], 6)
    boxes = rows[..., :4]
    if setting(END2END_OPTIONS, spec, "normalized"):
        boxes = boxes * like(rows, [size[1], size[0]] * 2)
    return Cells(rows[..., 4:5], None, boxes), rows[..., 5].detach().round().long()


def fastest_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """One map `(N, 5 + C, h, w)`: objectness, box and classes (which sum to 1) of each cell.

    Raises:
        ModelError: the output is no such map.
    """
    width = 5 + len(spec.labels)
    rows = rows_of(outputs[0], width, first=True)
    if outputs[0].ndim != 4:
        raise ModelError(f"an output has shape {tuple(outputs[0].shape)}; head fastestdet needs (N, {width}, h, w)")
    high, wide = outputs[0].shape[2:] if outputs[0].shape[1] == width else outputs[0].shape[1:3]
    cells = _grid(high, wide, size)
    grid, whole = like(rows, [size[1] / wide, size[0] / high]), like(rows, size[::-1])
    centres = rows[..., 1:3].tanh() * grid + like(rows, cells[:, :2] * cells[:, 2:])
    boxes = corners(joined([centres, rows[..., 3:5].sigmoid() * whole]))
    return Cells(rows[..., 5:], rows[..., 0], boxes, None, *places(cells), exclusive=True)


def yunet_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """Four outputs for each stride: classes, objectness, boxes relative to their cell, and landmarks.

    Raises:
        ModelError: an output is missing.
    """
    widths = [len(spec.labels), 1, 4, 2 * (len(spec.keypoints) or _LANDMARKS)]
    parts: list[list[Any]] = []
    strides = tuple(setting(YUNET_HEADS["yunet"].options, spec, "strides"))
    for stride in strides:
        count = len(points(size, (stride,)))
        row = []
        for place, width in enumerate(widths):
            fitting = [output for output in outputs if tuple(output.shape[1:]) == (count, width)]
            if len(fitting) <= widths[:place].count(width):
                raise ModelError(f"no output has shape (N, {count}, {width}); check the labels and the head's strides")
            row.append(fitting[widths[:place].count(width)].float())
        parts.append(row)
    classes, objectness, boxes, marks = (joined(part, axis=1) for part in zip(*parts, strict=True))
    cells = points(size, strides)
    corner, step = like(boxes, cells[:, :2]), like(boxes, cells[:, 2:])
    placed = joined([(boxes[..., :2] + corner) * step, growth(boxes[..., 2:]) * step])
    landmarks = ((marks.unflatten(-1, (-1, 2)) + corner[:, None]) * step[:, None]).flatten(-2)
    return Cells(classes, objectness[..., 0], corners(placed), landmarks, *places(cells))


def _anchor_map(output: Any, count: int, width: int) -> tuple[Any, int, int]:
    """`(N, anchors, cells, width)` of a raw map, with its height and width."""
    output = output.float()
    if output.ndim == 5:
        return output.flatten(2, 3), output.shape[2], output.shape[3]
    if output.shape[1] == count * width:
        rows = output.reshape(output.shape[0], count, width, -1).transpose(2, 3)
        return rows, output.shape[2], output.shape[3]
    rows = output.reshape(output.shape[0], -1, count, width).transpose(1, 2)
    return rows, output.shape[1], output.shape[2]


def _raw_map(output: Any, bins: int, classes: int, size: Size) -> tuple[Any, Any, FloatArray]:
    """Boxes, scores and cells of one raw map. A side is the mean of its distribution (arXiv:2006.04388)."""
    width = 4 * bins + classes
    rows = rows_of(output, width, first=True)
    high, wide = output.shape[2:] if output.shape[1] == width else output.shape[1:3]
    cells = _grid(high, wide, size)
    sides = rows[..., : 4 * bins].reshape(*rows.shape[:2], 4, bins)
    away = sides.softmax(dim=-1) @ like(rows, np.arange(bins)) if bins > 1 else sides[..., 0]
    centre, step = like(rows, cells[:, :2] + 0.5), like(rows, [size[1] / wide, size[0] / high])
    boxes = joined([(centre - away[..., :2]) * step, (centre + away[..., 2:]) * step])
    return boxes, rows[..., 4 * bins :].sigmoid(), cells


def _strides_of(count: int, size: Size) -> tuple[int, ...] | None:
    """The strides of maps that together have ``count`` cells: 8, 16, 32 where that fits, else a row of others."""
    starts = range(len(_STRIDES) + 1)
    rows = [_STRIDES[first:last] for first in starts for last in starts if first < last]
    for strides in sorted(rows, key=lambda row: row != (8, 16, 32)):
        if len(points(size, strides)) == count:
            return strides
    return None


def _grid(high: int, wide: int, size: Size) -> FloatArray:
    """Column, row and stride of each cell of one map, as `points` gives them."""
    y, x = np.divmod(np.arange(high * wide, dtype=np.float32), np.float32(wide))
    return np.stack([x, y, np.full(high * wide, size[0] / high, dtype=np.float32)], axis=1)


def _check_count(rows: Any, cells: FloatArray, size: Size, strides: tuple[int, ...]) -> None:
    if rows.shape[1] != len(cells):
        raise ModelError(
            f"the output has {rows.shape[1]} boxes; an input of {list(size)} has {len(cells)} cells at strides "
            f"{list(strides)}. Set the option 'strides' of the head."
        )


CELL_HEADS: Mapping[str, Reader] = {
    "yolo-anchor": anchor_cells,
    "yolox": yolox_cells,
    "yolo": yolo_cells,
    "fastestdet": fastest_cells,
    "ssd": ssd_cells,
    "retinanet": retinanet_cells,
    "fcos": fcos_cells,
    "ultraface": ultraface_cells,
    "detr": detr_cells,
    "yunet": yunet_cells,
}
"""Heads whose cells are the same in every picture. The others (end-to-end, two-stage) give sorted rows, which do not
line up."""
