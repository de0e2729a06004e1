"""Layouts of a pose network's outputs: how keypoints are read from each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.families.heads.common import Option, flag, is_number, setting, sigmoid, softmax
from edgecv.vision.boxes import nms, to_corners, top_k

Points = npt.NDArray[np.float32]
Shape = tuple[int, ...]
Found = tuple[Points, FloatArray, FloatArray | None]
"""Keypoints `(N, K, 3)` in pixels of the network's input, scores `(N,)`, and boxes `(N, 4)` or None."""

_SMALLEST_SCORE = 1e-10
_FURTHEST_STEP = 1.0
_CANDIDATES = 3000
_FINEST = 4
"""Parts of a cell in which a peak is looked for."""


@dataclass(frozen=True)
class Head:
    """One layout of outputs: ``count`` tells how many keypoints outputs of these shapes have (None: they do not fit),
    ``decode`` reads them.
    """

    what: str
    count: Callable[[Sequence[Shape], FamilySpec], int | None]
    decode: Callable[[Sequence[FloatArray], FamilySpec, InputContract], Found]
    options: Mapping[str, Option] = field(default_factory=dict)


def _one_of(*names: str) -> Option:
    return Option(names[0], lambda value: value in names, " or ".join(names))


_POSITIVE = Option(2.0, lambda value: is_number(value) and value > 0, "a number above 0")

HEATMAP_OPTIONS: Mapping[str, Option] = {
    "refine": _one_of("quarter", "taylor", "none"),
    "cells": _one_of("centre", "corner"),
    "sigma": _POSITIVE,
}
"""``refine``: how a peak is found between cells; ``cells``: whether a cell's value stands at its centre or at its
upper left corner; ``sigma``: standard deviation in cells of the peaks that the network was trained on."""

SIMCC_OPTIONS: Mapping[str, Option] = {"softmax": flag(False), "sigma": _POSITIVE}
"""``softmax``: scores are probabilities of the best bins, not their raw values; ``sigma``: standard deviation of the
labels in training, in pixels of the network's input."""

REGRESSION_OPTIONS: Mapping[str, Option] = {"normalized": flag(True)}
"""``normalized``: coordinates are shares of the network's input, not pixels."""


def _movenet_count(shapes: Sequence[Shape], spec: FamilySpec) -> int | None:
    fits = len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][:2] == (1, 1) and shapes[0][3] == 3
    return shapes[0][2] if fits else None


def _movenet(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Found:
    height, width = contract.size
    values = outputs[0].reshape(1, -1, 3)
    points = np.stack([values[..., 1] * width, values[..., 0] * height, values[..., 2]], axis=-1).astype(np.float32)
    return points, points[..., 2].mean(axis=1), None


def maps_axis(shape: Shape, spec: FamilySpec) -> int:
    """Which axis of `(1, K, h, w)` or `(1, h, w, K)` has the maps.

    It is the one of as many as there are named keypoints, or else the one beside the two sides of a square, or else
    the shorter one.
    """
    first, middle, last = shape[1:]
    named = len(spec.keypoints)
    if named and named in (first, last):
        return 1 if first == named else 3
    if first != last and middle in (first, last):
        return 1 if middle == last else 3
    return 1 if first <= last else 3


def _heatmap_count(shapes: Sequence[Shape], spec: FamilySpec) -> int | None:
    fewest = 1 if len(spec.keypoints) == 1 else 2  # a single map must be named, or it could be any output
    fits = len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][0] == 1 and min(shapes[0][1:]) >= fewest
    return shapes[0][maps_axis(shapes[0], spec)] if fits else None


def _heatmap(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Found:
    """The highest cell of each map, then a part of a cell further as the option ``refine`` says."""
    maps = np.ascontiguousarray(np.moveaxis(outputs[0], maps_axis(outputs[0].shape, spec), 1)[0], dtype=np.float32)
    count, rows, columns = maps.shape
    best = maps.reshape(count, -1).argmax(axis=1)
    y, x = np.divmod(best, columns)
    refine = setting(HEATMAP_OPTIONS, spec, "refine")
    shift = np.zeros((count, 2))
    if refine == "quarter":
        shift = _quarter(maps, x, y)
    elif refine == "taylor":
        shift = _taylor(maps, x, y, float(setting(HEATMAP_OPTIONS, spec, "sigma")))
    inner = 0.5 if setting(HEATMAP_OPTIONS, spec, "cells") == "centre" else 0.0
    scale_x, scale_y = contract.size[1] / columns, contract.size[0] / rows
    places = ((x + inner + shift[:, 0]) * scale_x, (y + inner + shift[:, 1]) * scale_y)
    points = np.stack([*places, np.clip(maps[np.arange(count), y, x], 0.0, 1.0)], axis=-1)
    found = points[np.newaxis].astype(np.float32)
    return found, found[..., 2].mean(axis=1), None


def _quarter(maps: FloatArray, x: Any, y: Any) -> npt.NDArray[np.float64]:
    """A quarter cell towards the higher neighbour, x and y `(K, 2)` (Xiao et al., arXiv:1804.06208)."""
    count, rows, columns = maps.shape
    number = np.arange(count)
    inside = (x > 0) & (x < columns - 1) & (y > 0) & (y < rows - 1)
    left, right = maps[number, y, np.maximum(x - 1, 0)], maps[number, y, np.minimum(x + 1, columns - 1)]
    up, down = maps[number, np.maximum(y - 1, 0), x], maps[number, np.minimum(y + 1, rows - 1), x]
    shift: npt.NDArray[np.float64] = np.stack([np.sign(right - left), np.sign(down - up)], axis=1) * 0.25
    shift[~inside] = 0.0
    return shift


def _taylor(maps: FloatArray, x: Any, y: Any, sigma: float) -> npt.NDArray[np.float64]:
    """The top of the parabola through the logarithm of each smoothed map, x and y `(K, 2)`, within a cell.

    Distribution-aware coordinate representation: F. Zhang et al., 2020, arXiv:1910.06278.
    """
    count, rows, columns = maps.shape
    logs = np.stack([_log_map(plane, sigma) for plane in maps])
    number = np.arange(count)
    inside = (x > 1) & (x < columns - 2) & (y > 1) & (y < rows - 2)
    column, row = np.clip(x, 2, max(2, columns - 3)), np.clip(y, 2, max(2, rows - 3))
    if min(rows, columns) < 5:
        return np.zeros((count, 2))

    def at(dx: int, dy: int) -> npt.NDArray[np.float64]:
        values: npt.NDArray[np.float64] = logs[number, row + dy, column + dx]
        return values

    slope_x, slope_y = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    bend_x, bend_y = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4, (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    twist = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    determinant = bend_x * bend_y - twist * twist
    top = inside & (determinant > _SMALLEST_SCORE) & (bend_x < 0)  # a maximum, not a saddle
    safe = np.where(top, determinant, 1.0)
    step_x, step_y = -(bend_y * slope_x - twist * slope_y) / safe, -(bend_x * slope_y - twist * slope_x) / safe
    steps: npt.NDArray[np.float64] = np.stack([step_x, step_y], axis=1) * top[:, None]
    return np.clip(steps, -_FURTHEST_STEP, _FURTHEST_STEP)


def _log_map(plane: FloatArray, sigma: float) -> npt.NDArray[np.float64]:
    smooth = cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE).astype(np.float64)
    logs: npt.NDArray[np.float64] = np.log(np.maximum(smooth, _SMALLEST_SCORE))
    return logs


def _simcc_count(shapes: Sequence[Shape], spec: FamilySpec) -> int | None:
    fits = len(shapes) == 2 and all(len(shape) == 3 and shape[0] == 1 for shape in shapes)
    return shapes[0][1] if fits and shapes[0][1] == shapes[1][1] else None


def _simcc(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Found:
    """One vector an axis, several bins a pixel (Li et al., arXiv:2107.03332); the x output comes first."""
    across, down = outputs[0][0], outputs[1][0]
    if setting(SIMCC_OPTIONS, spec, "softmax") and spec.outputs == "logits":
        across, down = softmax(across), softmax(down)
    x, y = across.argmax(axis=1), down.argmax(axis=1)
    score = np.minimum(across.max(axis=1), down.max(axis=1))
    width, height = contract.size[1], contract.size[0]
    points = np.stack([x * width / across.shape[1], y * height / down.shape[1], np.clip(score, 0.0, 1.0)], axis=-1)
    found = points[np.newaxis].astype(np.float32)
    return found, found[..., 2].mean(axis=1), None


def _yolo_count(shapes: Sequence[Shape], spec: FamilySpec) -> int | None:
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != 1:
        return None
    width = min(shapes[0][1:])
    return (width - 5) // 3 if width > 5 and (width - 5) % 3 == 0 else None


def _yolo(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Found:
    """``(1, 5 + 3K, N)`` or turned: box as centre and size, score, then x, y, score of each keypoint, in pixels."""
    table = outputs[0][0]
    if table.shape[0] < table.shape[1]:
        table = table.T
    rows = np.flatnonzero(table[:, 4] >= spec.score_threshold)
    rows = rows[top_k(table[rows, 4], _CANDIDATES)]
    boxes, scores = to_corners(table[rows, :4]), table[rows, 4]
    kept = nms(boxes, scores, iou_threshold=spec.iou_threshold, max_detections=spec.max_detections)
    points = table[rows[kept], 5:].reshape(len(kept), (table.shape[1] - 5) // 3, 3).astype(np.float32)
    return points, scores[kept], boxes[kept]


def _regression_count(shapes: Sequence[Shape], spec: FamilySpec) -> int | None:
    if len(shapes) != 1 or shapes[0][:1] != (1,):
        return None
    shape = shapes[0]
    if len(shape) == 3:
        return shape[1] if shape[2] == 2 and shape[1] > 0 else None
    flat = len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))
    return shape[1] // 2 if flat and shape[1] >= 2 and shape[1] % 2 == 0 else None


def _regression(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Found:
    """x and y of each keypoint in turn, as networks for the landmarks of faces give them; they know no scores."""
    pairs = outputs[0].reshape(1, -1, 2).astype(np.float32)
    if setting(REGRESSION_OPTIONS, spec, "normalized"):
        pairs = pairs * np.array([contract.size[1], contract.size[0]], dtype=np.float32)
    points = np.concatenate([pairs, np.ones((*pairs.shape[:2], 1), dtype=np.float32)], axis=-1)
    return points, np.ones(1, dtype=np.float32), None


def _rois_count(shapes: Sequence[Shape], spec: FamilySpec) -> int | None:
    if [len(shape) for shape in shapes] != [3, 2, 4]:
        return None
    boxes, scores, maps = shapes
    count = scores[1]
    fits = boxes == (1, count, 4) and scores[0] == maps[0] == 1 and count > 0 and maps[1] % count == 0
    return maps[1] // count or None if fits else None


def _rois(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Found:
    """Boxes in pixels, scores, and for each box in turn a map of logits a keypoint on a grid over the box.

    As Mask R-CNN reads them (K. He et al., arXiv:1703.06870): the map is enlarged to the box's pixels by cubic
    interpolation, and its highest one is the keypoint; boxes of more than 224 pixels take a quarter of a cell. A
    keypoint's score is the sigmoid of that logit.
    """
    boxes, scores = outputs[0][0], outputs[1][0]
    maps = outputs[2][0].reshape(len(boxes), -1, *outputs[2].shape[2:])
    rows = np.flatnonzero((scores >= spec.score_threshold) & (scores > 0))
    kept = nms(boxes[rows], scores[rows], iou_threshold=spec.iou_threshold, max_detections=spec.max_detections)
    rows = rows[kept]
    points = np.zeros((len(rows), maps.shape[1], 3), dtype=np.float32)
    for person, row in enumerate(rows):
        points[person] = _peaks(np.ascontiguousarray(maps[row], dtype=np.float32), boxes[row])
    return points, scores[rows].astype(np.float32), boxes[rows].astype(np.float32)


def _peaks(maps: FloatArray, box: FloatArray) -> FloatArray:
    """x, y in pixels and score of each of `(K, h, w)` ``maps`` over ``box``; `(K, 3)`."""
    sides = [max(float(box[axis + 2] - box[axis]), 1.0) for axis in (0, 1)]
    wide, high = (min(math.ceil(side), _FINEST * cells) for side, cells in zip(sides, maps.shape[:0:-1], strict=True))
    found = np.empty((len(maps), 3), dtype=np.float32)
    for number, plane in enumerate(maps):
        large = cv2.resize(plane, (wide, high), interpolation=cv2.INTER_CUBIC)
        row, column = divmod(int(large.argmax()), wide)
        found[number] = (
            box[0] + (column + 0.5) * sides[0] / wide,
            box[1] + (row + 0.5) * sides[1] / high,
            large[row, column],
        )
    found[:, 2] = sigmoid(found[:, 2])
    return found


HEADS: dict[str, Head] = {
    "movenet": Head("one output (1, 1, K, 3): y, x, score, 0..1", _movenet_count, _movenet),
    "heatmap": Head(
        "one output (1, K, h, w) or (1, h, w, K): a map a keypoint", _heatmap_count, _heatmap, HEATMAP_OPTIONS
    ),
    "simcc": Head("two outputs (1, K, x bins) and (1, K, y bins)", _simcc_count, _simcc, SIMCC_OPTIONS),
    "yolo-pose": Head("one output (1, 5 + 3K, N): boxes, scores, keypoints", _yolo_count, _yolo),
    "regression": Head(
        "one output (1, 2K) or (1, K, 2): x and y of each keypoint", _regression_count, _regression, REGRESSION_OPTIONS
    ),
    "rois": Head(
        "three outputs: boxes (1, D, 4), scores (1, D), maps (1, D * K, h, w) of each box", _rois_count, _rois
    ),
}
"""By name; a new layout is one row."""
