"""The heads with grids against a plain loop over boxes, in every layout that engines write."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from edgecv.errors import ModelError
from edgecv.families.heads.common import logit, pick, points, rows_of, sigmoid

from .detection_cases import around, check, run, s, spec_of

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has the same numbers, whichever run before it."""
    monkeypatch.setattr(sys.modules[__name__], "RNG", np.random.default_rng(0))


def decoded_rows(count: int, *, objectness: bool) -> np.ndarray:
    """Rows of box (centre, size, pixels), perhaps objectness, and class probabilities."""
    boxes = np.stack(
        [RNG.uniform(0, 96, count), RNG.uniform(0, 64, count), RNG.uniform(5, 40, count), RNG.uniform(5, 40, count)], 1
    )
    shares = RNG.uniform(0, 0.9, (count, 5 + objectness))
    return np.concatenate([boxes, shares], axis=1).astype(np.float32)


def best_of(row: np.ndarray, first: int) -> tuple[float, int]:
    index = int(row[first:].argmax())
    return float(row[first + index]), index


# --- yolo-anchor


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_yolo_anchor_decoded(turned: bool, normalized: bool) -> None:
    rows = decoded_rows(60, objectness=True)
    wanted = []
    for row in rows:
        share, index = best_of(row, 5)
        if row[4] * share >= 0.3:
            wanted.append((*around(*row[:4]), row[4] * share, index))
    if normalized:
        rows = rows / np.array([96, 64, 96, 64, *[1] * 6], dtype=np.float32)
    output = (rows.T if turned else rows)[np.newaxis]
    check(run(spec_of("yolo-anchor", options={"normalized": normalized}), output), wanted)


def test_yolo_anchor_several_classes_of_one_box() -> None:
    rows = decoded_rows(30, objectness=True)
    wanted = [
        (*around(*row[:4]), row[4] * share, index)
        for row in rows
        for index, share in enumerate(row[5:])
        if row[4] * share >= 0.3
    ]
    check(run(spec_of("yolo-anchor", options={"multi_label": True}), rows[np.newaxis]), wanted)


ANCHORS = [[[10, 13], [16, 30]], [[30, 61], [62, 45]]]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "5d"])
def test_yolo_anchor_raw_maps(layout: str) -> None:
    maps = [RNG.normal(-0.5, 1.5, (2, 10, *grid)).astype(np.float32) for grid in ((8, 12), (4, 6))]
    wanted = []
    for level, raw in enumerate(maps):
        stride = 8 * (level + 1)
        for anchor, y, x in np.ndindex(2, *raw.shape[2:]):
            tx, ty, tw, th, obj, *classes = (s(float(value)) for value in raw[anchor, :, y, x])
            score, index = max((obj * share, -place) for place, share in enumerate(classes))
            if score >= 0.3:
                w, h = ((2 * t) ** 2 * side for t, side in zip((tw, th), ANCHORS[level][anchor], strict=True))
                wanted.append((*around((2 * tx - 0.5 + x) * stride, (2 * ty - 0.5 + y) * stride, w, h), score, -index))
    if layout == "5d":
        outputs = [raw.transpose(0, 2, 3, 1)[np.newaxis] for raw in maps]
    else:
        outputs = [raw.reshape(1, 20, *raw.shape[2:]) for raw in maps]
    if layout == "NHWC":
        outputs = [output.transpose(0, 2, 3, 1) for output in outputs]
    spec = spec_of("yolo-anchor", options={"anchors": ANCHORS})
    check(run(spec, *outputs), wanted)
    check(run(spec, *outputs[::-1]), wanted)  # the maps are told apart by their size


# --- yolox


@pytest.mark.parametrize("turned", [False, True])
def test_yolox(turned: bool) -> None:
    cells = [(x, y, stride) for stride in (8, 16, 32) for y in range(64 // stride) for x in range(96 // stride)]
    raw = np.concatenate([RNG.normal(0, 0.6, (len(cells), 4)), RNG.uniform(0, 1, (len(cells), 6))], axis=1)
    wanted = []
    for row, (x, y, stride) in zip(raw, cells, strict=True):
        share, index = best_of(row, 5)
        if row[4] * share >= 0.3:
            sides = (math.exp(row[2]) * stride, math.exp(row[3]) * stride)
            wanted.append((*around((row[0] + x) * stride, (row[1] + y) * stride, *sides), row[4] * share, index))
    output = (raw.T if turned else raw)[np.newaxis]
    check(run(spec_of("yolox"), output), wanted)
    with pytest.raises(ModelError, match=r"126 boxes; .* 96 cells at strides \[8\].*option 'strides'"):
        run(spec_of("yolox", options={"strides": [8]}), output)


def test_yolox_with_decoded_boxes() -> None:
    rows = decoded_rows(40, objectness=True)
    wanted = []
    for row in rows:
        share, index = best_of(row, 5)
        if row[4] * share >= 0.3:
            wanted.append((*around(*row[:4]), row[4] * share, index))
    check(run(spec_of("yolox", options={"decoded": True}), rows[np.newaxis]), wanted)


# --- yolo


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_yolo_decoded(turned: bool, normalized: bool) -> None:
    rows = decoded_rows(70, objectness=False)
    wanted = []
    for row in rows:
        share, index = best_of(row, 4)
        if share >= 0.3:
            wanted.append((*around(*row[:4]), share, index))
    if normalized:
        rows = rows / np.array([96, 64, 96, 64, *[1] * 5], dtype=np.float32)
    output = (rows if turned else rows.T)[np.newaxis]
    check(run(spec_of("yolo", options={"normalized": normalized}), output), wanted)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("bins", [1, 16])
def test_yolo_raw_maps(last: bool, bins: int) -> None:
    maps = [RNG.normal(-1, 1.5, (4 * bins + 5, *grid)).astype(np.float32) for grid in ((8, 12), (4, 6), (2, 3))]
    wanted = []
    for level, raw in enumerate(maps):
        stride = 8 << level
        raw[: 4 * bins] += 2  # mostly outwards
        for y, x in np.ndindex(*raw.shape[1:]):
            value, index = best_of(raw[:, y, x], 4 * bins)
            if s(value) < 0.3:
                continue
            away = []
            for side in raw[: 4 * bins, y, x].reshape(4, bins).astype(float):
                powers = np.exp(side - side.max())
                away.append(float((powers / powers.sum() * np.arange(bins)).sum()) if bins > 1 else float(side[0]))
            left, top, right, bottom = away
            corners = (x + 0.5 - left, y + 0.5 - top, x + 0.5 + right, y + 0.5 + bottom)
            wanted.append((*(corner * stride for corner in corners), s(value), index))
    outputs = [(raw.transpose(1, 2, 0) if last else raw)[np.newaxis] for raw in maps]
    check(run(spec_of("yolo", options={"reg_max": bins}), *outputs), wanted)
    check(run(spec_of("yolo", options={"reg_max": bins}), *outputs[::-1]), wanted)


def test_yolo_with_one_label_and_with_as_many_boxes_as_values() -> None:
    rows = decoded_rows(30, objectness=False)[:, :5]
    wanted = [(*around(*row[:4]), row[4], 0) for row in rows if row[4] >= 0.3]
    check(run(spec_of("yolo", labels=("a",)), rows.T[np.newaxis]), wanted)
    square = decoded_rows(9, objectness=False)  # 9 boxes of 4 + 5 values: the usual order counts
    square[:, 4:] += 0.3
    wanted = [(*around(*row[:4]), *best_of(row, 4)) for row in square]
    check(run(spec_of("yolo"), square.T[np.newaxis]), wanted)


def test_yolo_end2end() -> None:
    rows = np.concatenate(
        [RNG.uniform(0, 40, (50, 2)), RNG.uniform(41, 64, (50, 2)), RNG.uniform(0, 1, (50, 1)), np.ones((50, 1)) * 3], 1
    )
    wanted = [(*row[:4], row[4], 3) for row in rows if row[4] >= 0.3]
    check(run(spec_of("yolo-end2end"), rows[np.newaxis]), wanted)
    overlapping = np.repeat(rows[:1], 5, axis=0)
    overlapping[:, 4] = 0.9
    assert len(run(spec_of("yolo-end2end", iou_threshold=0.1), overlapping[np.newaxis])) == 5  # as the network says
    assert len(run(spec_of("yolo-end2end", max_detections=2), overlapping[np.newaxis])) == 2


# --- fastestdet


@pytest.mark.parametrize("last", [False, True])
def test_fastestdet(last: bool) -> None:
    raw = np.concatenate([RNG.uniform(0, 1, (1, 4, 6)), RNG.normal(0, 1, (4, 4, 6)), RNG.uniform(0, 1, (5, 4, 6))])
    wanted = []
    for y, x in np.ndindex(4, 6):
        cell = raw[:, y, x]
        share, index = best_of(cell, 5)
        score = cell[0] ** 0.6 * share**0.4
        if score >= 0.3:
            centre = (x + math.tanh(cell[1])) / 6 * 96, (y + math.tanh(cell[2])) / 4 * 64
            wanted.append((*around(*centre, s(cell[3]) * 96, s(cell[4]) * 64), score, index))
    check(run(spec_of("fastestdet"), (raw.transpose(1, 2, 0) if last else raw)[np.newaxis]), wanted)


# --- what they share


def test_rows_of_refuses_other_shapes() -> None:
    with pytest.raises(ModelError, match=r"\(1, 8, 9\); 7 values for each box"):
        rows_of(np.zeros((1, 8, 9), np.float32), 7)


def test_points() -> None:
    cells = points((64, 96), (32, 64))
    assert cells.tolist()[:4] == [[0, 0, 32], [1, 0, 32], [2, 0, 32], [0, 1, 32]]
    assert cells.tolist()[6:] == [[0, 0, 64], [1, 0, 64]]  # 96 / 64 cells are rounded up


def test_sigmoid_and_logit() -> None:
    with np.errstate(all="raise"):
        assert sigmoid(np.float32([-300, 0, 300])).tolist() == [0, 0.5, 1]
    assert (logit(0), logit(1)) == (-math.inf, math.inf)
    assert s(logit(0.25)) == pytest.approx(0.25)


def test_pick_takes_the_threshold_itself() -> None:
    scores = np.float32([[0.5, 0.25], [0.25, 0.125]])
    rows, ids, values = pick(scores, 0.25)
    assert (rows.tolist(), ids.tolist(), values.tolist()) == ([0, 1], [0, 0], [0.5, 0.25])
    rows, ids, values = pick(scores, 0.25, multi_label=True)
    assert (rows.tolist(), ids.tolist(), values.tolist()) == ([0, 0, 1], [0, 1, 0], [0.5, 0.25, 0.25])


@pytest.mark.parametrize("rows", [0, 1, 2, 500])
@pytest.mark.parametrize("classes", [1, 2, 80])
def test_pick_in_every_memory_order(rows: int, classes: int) -> None:
    """Slices of what engines give: rows or columns first, and not to be written to."""
    plain = RNG.uniform(0, 1, (rows, 4 + classes)).astype(np.float32)
    for table in (plain, np.asfortranarray(plain)):
        table.setflags(write=False)
        found, ids, values = pick(table[:, 4:], 0.6)
        wanted = [row for row in range(rows) if plain[row, 4:].max() >= 0.6]
        assert found.tolist() == wanted
        assert ids.tolist() == [int(plain[row, 4:].argmax()) for row in wanted]
        assert values.tolist() == [plain[row, 4:].max() for row in wanted]
    if rows > 1:
        broken = plain.copy()
        broken[1, -1] = math.nan
        with pytest.raises(ModelError, match=f"1 of {rows} scores are NaN"):
            pick(broken[:, 4:], 0.6)
