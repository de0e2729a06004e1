"""Detectors that predict boxes in the cells of grids: YOLO in its generations, YOLOX and FastestDet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.heads.common import (
    MULTI_LABEL,
    NORMALIZED,
    STRIDES,
    Candidates,
    Head,
    Ints,
    Option,
    Shape,
    check_scores,
    flag,
    growth,
    is_count,
    is_list,
    is_number,
    logit,
    map_of,
    pick,
    points,
    rows_of,
    setting,
    sigmoid,
    softmax,
    to_pixels,
    together,
    width_problems,
)
from edgecv.vision.boxes import to_corners

# Anchor sizes in pixels of YOLOv5's COCO models, finest map first.
_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


def _is_size(value: Any) -> bool:
    return is_list(value, lambda number: is_number(number) and number > 0, length=2)


def _are_anchors(value: Any) -> bool:
    return is_list(value, lambda scale: is_list(scale, _is_size)) and len({len(scale) for scale in value}) == 1


ANCHOR_OPTIONS = {
    "anchors": Option(
        _ANCHORS,
        _are_anchors,
        "a list for each map, finest first, of [width, height] pairs in pixels, equally many for each map",
    ),
    "normalized": NORMALIZED,
    "multi_label": MULTI_LABEL,
}
YOLOX_OPTIONS = {"strides": STRIDES, "decoded": flag(False), "multi_label": MULTI_LABEL}
YOLO_OPTIONS = {
    "reg_max": Option(16, is_count, "a whole number of at least 1"),
    "normalized": NORMALIZED,
    "multi_label": MULTI_LABEL,
    # How training on labels chooses the cells of an object: some, or one alone (what an end-to-end network needs).
    "assign": Option("many", lambda value: value in ("many", "one"), "many or one"),
}
END2END_OPTIONS = {"normalized": NORMALIZED}
FASTEST_OPTIONS = {"multi_label": MULTI_LABEL}


def _with_objectness(
    rows: FloatArray, threshold: float, *, multi_label: bool
) -> tuple[FloatArray, Ints, Ints, FloatArray]:
    """Of rows `(N, 5 + C)` (box, objectness, classes; probabilities) those that are good enough.

    No class can lift a score above the objectness, so few rows are ever looked at as a whole.
    Gives their boxes, row numbers, classes and scores.
    """
    objectness = rows[:, 4]
    check_scores(objectness)
    hopeful: Ints = np.flatnonzero(objectness >= threshold)
    few = rows[hopeful]
    inner, classes, scores = pick(few[:, 5:] * few[:, 4:5], threshold, multi_label=multi_label)
    return few[inner, :4], hopeful[inner], classes, scores


# --- yolo-anchor: v5, v7


def _anchor_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    width = 5 + len(spec.labels)
    if len(shapes) == 1 and len(shapes[0]) == 3:
        return width_problems(shapes, width, f"a box, an objectness and {len(spec.labels)} labels")
    anchors = setting(ANCHOR_OPTIONS, spec, "anchors")
    if len(shapes) != len(anchors):
        return [f"the model has {len(shapes)} outputs; there are anchors for {len(anchors)} maps (option 'anchors')"]
    count = len(anchors[0])
    wide = count * width
    return [
        f"an output has shape {shape}; {count} anchors x ({len(spec.labels)} labels + 5) need (1, {wide}, h, w), "
        f"(1, h, w, {wide}) or (1, {count}, h, w, {width})"
        for shape in shapes
        if not _is_anchor_map(shape, count, width)
    ]


def _is_anchor_map(shape: Shape, count: int, width: int) -> bool:
    if len(shape) == 5:
        return shape[:2] == (1, count) and shape[4] == width
    return len(shape) == 4 and shape[0] == 1 and count * width in (shape[1], shape[3])


def _anchor_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    multi_label = setting(ANCHOR_OPTIONS, spec, "multi_label")
    width = 5 + len(spec.labels)
    if len(outputs) == 1 and outputs[0].ndim == 3:
        rows = rows_of(outputs[0], width)
        boxes, _, classes, scores = _with_objectness(rows, spec.score_threshold, multi_label=multi_label)
        sized = to_pixels(boxes, contract, normalized=setting(ANCHOR_OPTIONS, spec, "normalized"))
        return Candidates(to_corners(sized), scores, classes)
    anchors = setting(ANCHOR_OPTIONS, spec, "anchors")
    if len(outputs) != len(anchors):
        raise ModelError(f"the model gave {len(outputs)} outputs; there are anchors for {len(anchors)} maps")
    maps = [_anchor_map(output, len(anchors[0]), width) for output in outputs]
    maps.sort(key=lambda found: -found[1] * found[2])
    return together(
        [
            _anchor_cells(cells, (high, wide), np.array(sizes, dtype=np.float32), spec, contract)
            for (cells, high, wide), sizes in zip(maps, anchors, strict=True)
        ]
    )


def _anchor_map(output: FloatArray, count: int, width: int) -> tuple[FloatArray, int, int]:
    """A view `(anchors, cells, width)` of a raw map, with its height and width."""
    shape = output.shape
    if not _is_anchor_map(shape, count, width):
        raise ModelError(f"an output has shape {shape}; {count} anchors x {width} values for each cell are needed")
    if len(shape) == 5:
        return output.reshape(count, -1, width), shape[2], shape[3]
    if shape[1] == count * width:
        return output.reshape(count, width, -1).transpose(0, 2, 1), shape[2], shape[3]
    return output.reshape(-1, count, width).transpose(1, 0, 2), shape[1], shape[2]


def _anchor_cells(
    cells: FloatArray, grid: tuple[int, int], sizes: FloatArray, spec: FamilySpec, contract: InputContract
) -> Candidates:
    check_scores(cells[:, :, 4])
    anchor, cell = np.nonzero(cells[:, :, 4] >= logit(spec.score_threshold))
    values = sigmoid(cells[anchor, cell])
    multi_label = setting(ANCHOR_OPTIONS, spec, "multi_label")
    boxes, inner, classes, scores = _with_objectness(values, spec.score_threshold, multi_label=multi_label)
    anchor, cell = anchor[inner], cell[inner]
    step = np.array([contract.size[1] / grid[1], contract.size[0] / grid[0]], dtype=np.float32)
    corner = np.stack([cell % grid[1], cell // grid[1]], axis=1).astype(np.float32)
    placed = np.empty_like(boxes)
    placed[:, :2] = (boxes[:, :2] * 2 - np.float32(0.5) + corner) * step
    placed[:, 2:] = (boxes[:, 2:] * 2) ** 2 * sizes[anchor]
    return Candidates(to_corners(placed), scores, classes)


# --- yolox


def _yolox_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    if len(shapes) != 1:
        return [f"the model has {len(shapes)} outputs; head 'yolox' needs one (1, N, {5 + len(spec.labels)})"]
    return width_problems(shapes, 5 + len(spec.labels), f"a box, an objectness and {len(spec.labels)} labels")


def _yolox_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    rows = rows_of(outputs[0], 5 + len(spec.labels))
    multi_label = setting(YOLOX_OPTIONS, spec, "multi_label")
    boxes, chosen, classes, scores = _with_objectness(rows, spec.score_threshold, multi_label=multi_label)
    if setting(YOLOX_OPTIONS, spec, "decoded"):
        return Candidates(to_corners(boxes), scores, classes)
    cells = points(contract.size, tuple(setting(YOLOX_OPTIONS, spec, "strides")))
    if len(cells) != len(rows):
        raise ModelError(
            f"the output has {len(rows)} boxes; an input of {list(contract.size)} has {len(cells)} cells at strides "
            f"{list(setting(YOLOX_OPTIONS, spec, 'strides'))}. Set the option 'strides' of the head."
        )
    cell = cells[chosen]
    placed = np.empty_like(boxes)
    placed[:, :2] = (boxes[:, :2] + cell[:, :2]) * cell[:, 2:]
    placed[:, 2:] = growth(boxes[:, 2:]) * cell[:, 2:]
    return Candidates(to_corners(placed), scores, classes)


# --- yolo: v8, v9, 11


def _yolo_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    classes = len(spec.labels)
    if all(len(shape) == 4 for shape in shapes):
        reg_max = setting(YOLO_OPTIONS, spec, "reg_max")
        return width_problems(shapes, 4 * reg_max + classes, f"4 sides x reg_max {reg_max} and {classes} labels")
    if len(shapes) != 1:
        return [f"the model has {len(shapes)} outputs; head 'yolo' needs one (1, {4 + classes}, N), or only raw maps"]
    return width_problems(shapes, 4 + classes, f"a box and {classes} labels")


def _yolo_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    multi_label = setting(YOLO_OPTIONS, spec, "multi_label")
    classes = len(spec.labels)
    if len(outputs) != 1 or outputs[0].ndim == 4:
        return together([_yolo_map(output, spec, contract) for output in outputs])
    rows = rows_of(outputs[0], 4 + classes, first=True)
    chosen, ids, scores = pick(rows[:, 4:], spec.score_threshold, multi_label=multi_label)
    boxes = to_pixels(rows[chosen, :4], contract, normalized=setting(YOLO_OPTIONS, spec, "normalized"))
    return Candidates(to_corners(boxes), scores, ids)


def _yolo_map(output: FloatArray, spec: FamilySpec, contract: InputContract) -> Candidates:
    """One raw map: for each side of the box a distribution over its distance in cells, then class logits."""
    bins = setting(YOLO_OPTIONS, spec, "reg_max")
    rows, high, wide = map_of(output, 4 * bins + len(spec.labels))
    multi_label = setting(YOLO_OPTIONS, spec, "multi_label")
    chosen, ids, logits = pick(rows[:, 4 * bins :], logit(spec.score_threshold), multi_label=multi_label)
    sides = rows[chosen, : 4 * bins].reshape(-1, 4, bins)
    # A side is the mean of its distribution (X. Li et al., "Generalized Focal Loss", 2020).
    away = softmax(sides) @ np.arange(bins, dtype=np.float32) if bins > 1 else sides[:, :, 0]
    centre = np.stack([chosen % wide, chosen // wide], axis=1).astype(np.float32) + np.float32(0.5)
    step = np.array([contract.size[1] / wide, contract.size[0] / high], dtype=np.float32)
    boxes = np.concatenate([(centre - away[:, :2]) * step, (centre + away[:, 2:]) * step], axis=1)
    return Candidates(boxes, sigmoid(logits), ids)


# --- yolo-end2end: v10, 26


def _end2end_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    if len(shapes) != 1:
        return [f"the model has {len(shapes)} outputs; head 'yolo-end2end' needs one (1, N, 6)"]
    return width_problems(shapes, 6, "a box, a score and a class")


def _end2end_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    rows = rows_of(outputs[0], 6)
    check_scores(rows[:, 4])
    chosen = rows[rows[:, 4] >= spec.score_threshold]
    boxes = to_pixels(chosen[:, :4], contract, normalized=setting(END2END_OPTIONS, spec, "normalized"))
    return Candidates(boxes, chosen[:, 4], np.rint(chosen[:, 5]).astype(np.int64))


# --- fastestdet


def _fastest_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    width = 5 + len(spec.labels)
    if len(shapes) != 1 or len(shapes[0]) != 4:
        return [f"the model has outputs of shape {list(shapes)}; head 'fastestdet' needs one map (1, {width}, h, w)"]
    return width_problems(shapes, width, f"an objectness, a box and {len(spec.labels)} labels")


def _fastest_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    """Objectness, box and classes of each cell; the score is ``objectness ** 0.6 * class ** 0.4``."""
    rows, high, wide = map_of(outputs[0], 5 + len(spec.labels))
    check_scores(rows[:, 0])
    hopeful = np.flatnonzero(rows[:, 0] >= spec.score_threshold ** (1 / 0.6))
    few = rows[hopeful]
    shares = np.maximum(few, np.float32(0))
    scores: FloatArray = np.power(shares[:, :1], np.float32(0.6)) * np.power(shares[:, 5:], np.float32(0.4))
    multi_label = setting(FASTEST_OPTIONS, spec, "multi_label")
    inner, ids, values = pick(scores, spec.score_threshold, multi_label=multi_label)
    boxes, cell = few[inner, 1:5], hopeful[inner]
    corner = np.stack([cell % wide, cell // wide], axis=1).astype(np.float32)
    centre = (np.tanh(boxes[:, :2]) + corner) / np.array([wide, high], dtype=np.float32)
    placed = np.concatenate([centre, sigmoid(boxes[:, 2:])], axis=1)
    return Candidates(to_corners(to_pixels(placed, contract)), values, ids)


HEADS = {
    "yolo-anchor": Head(
        "YOLOv5 and v7: raw maps with anchors, or (1, N, 5 + C) decoded",
        _anchor_problems,
        _anchor_decode,
        ANCHOR_OPTIONS,
    ),
    "yolox": Head("YOLOX: (1, N, 5 + C), boxes relative to the cells", _yolox_problems, _yolox_decode, YOLOX_OPTIONS),
    "yolo": Head(
        "YOLOv8, v9 and 11: (1, 4 + C, N) decoded, or raw maps of distances", _yolo_problems, _yolo_decode, YOLO_OPTIONS
    ),
    "yolo-end2end": Head(
        "YOLOv10 and 26: (1, N, 6) as x1, y1, x2, y2, score, class",
        _end2end_problems,
        _end2end_decode,
        END2END_OPTIONS,
        suppress=False,
        ranked=True,
    ),
    "fastestdet": Head("FastestDet: one map (1, 5 + C, h, w)", _fastest_problems, _fastest_decode, FASTEST_OPTIONS),
}
