"""Boxes: overlap, and of many boxes for one object the best one.

A box is x1, y1, x2, y2; any unit, x to the right, y down. A box with x2 <= x1 or y2 <= y1 is empty: its
overlap with every box is 0.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BLOCK = 128
"""Boxes that are held against each other at once: their tables stay in the processor's cache."""

_LIMIT = 1e9
"""Coordinates beyond this are cut to it, so that an area fits into float32."""

_FIRST = 40
"""Boxes of the first block: the best ones of a detector mostly take out nearly all others."""

_CHUNK = 512
"""Waiting boxes that are held against a block at once."""

_FEW, _FEW_OF_CLASS = 1, 16
"""Boxes that each kept one takes out, below which the sweep is faster (with classes it passes over other classes)."""

_MANY = 48
"""Candidates a box has on average, above which the sweep tries the other axis too."""

_MAX_PAIRS = 1 << 18
"""Pairs that the sweep looks at in one go."""

_NOT_LATER: Mask = np.tri(_BLOCK, dtype=bool)
_NOT_LATER.setflags(write=False)


def to_corners(boxes: npt.NDArray[Any]) -> Floats:
    """Boxes `(N, 4)` as centre x, centre y, width, height -> `(N, 4)` float32 as x1, y1, x2, y2."""
    corners = np.empty(boxes.shape, dtype=np.float32)
    half = boxes[:, 2:] * np.float32(0.5)
    np.subtract(boxes[:, :2], half, out=corners[:, :2])
    np.add(boxes[:, :2], half, out=corners[:, 2:])
    return corners


def iou(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
    """Intersection over union of each box of ``one`` `(N, 4)` with each of ``other`` `(M, 4)`; `(N, M)` float32, 0..1.

    Coordinates are finite. Two empty boxes, and an empty one with any other, have 0.
    """
    left, right = _columns(one), _columns(other)
    shared = _overlap(left, right)
    both = np.add.outer(_areas(left), _areas(right)) - shared
    result: Floats = np.zeros_like(shared)
    np.divide(shared, both, out=result, where=shared > 0)
    return result


def nms(
    boxes: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    *,
    iou_threshold: float,
    class_ids: npt.NDArray[Any] | None = None,
    max_detections: int | None = None,
) -> Ints:
    """Greedy non-maximum suppression: the rows to keep, best first, at most ``max_detections``.

    ``boxes`` `(N, 4)`, ``scores`` `(N,)`. A box goes when a better one that is kept overlaps it by more than
    ``iou_threshold`` (0..1); with ``class_ids`` `(N,)` only one of the same class counts. Of equal scores the
    first row is the better one. Rows with NaN or infinity are never kept; empty boxes overlap with
    nothing, so they are.

    Small sets are compared all with all. Large ones first in blocks, which takes out the many that lie on the
    best boxes, then by a sweep along x: only boxes whose left sides lie so near that they may overlap
    enough are compared.
    """
    order, ranked, _ = _ranked(boxes, scores)
    classes = None if class_ids is None else np.asarray(class_ids)[order]
    limit = len(order) if max_detections is None else max_detections
    if len(order) <= _BLOCK:
        kept: Ints = np.flatnonzero(_settle(ranked, classes, iou_threshold))
    else:
        kept = _by_blocks(ranked, classes, iou_threshold, limit)
    return order[kept[:limit]]


def soft_nms(
    boxes: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    *,
    sigma: float = 0.5,
    class_ids: npt.NDArray[Any] | None = None,
    score_threshold: float = 0.001,
    max_detections: int | None = None,
) -> tuple[Ints, Floats]:
    """Soft-NMS with the Gaussian penalty (Bodla et al., ICCV 2017): the rows to keep and their new scores `(K,)`.

    Again and again the best row is taken, and the scores of the others (with ``class_ids``: of its class) are
    multiplied by ``exp(-iou ** 2 / sigma)``, until all are below ``score_threshold`` or ``max_detections`` are
    taken. Best first by the new score. Rows with NaN or infinity are never kept.
    """
    rows, left, values = _ranked(boxes, scores)
    classes = None if class_ids is None else np.asarray(class_ids)[rows]
    limit = len(rows) if max_detections is None else max_detections
    kept: list[int] = []
    gained: list[float] = []
    while len(kept) < limit and len(rows):
        best = int(values.argmax())
        if values[best] < score_threshold:
            break
        kept.append(int(rows[best]))
        gained.append(float(values[best]))
        overlaps = iou(left[best : best + 1], left)[0]
        if classes is not None:
            overlaps[classes != classes[best]] = 0
        values = values * np.exp(-(overlaps**2) / np.float32(sigma), dtype=np.float32)
        stays = values >= score_threshold
        stays[best] = False
        rows, left, values = rows[stays], left[stays], values[stays]
        classes = None if classes is None else classes[stays]
    return np.array(kept, dtype=np.int64), np.array(gained, dtype=np.float32)


def top_k(scores: npt.NDArray[Any], count: int) -> Ints:
    """Rows of the ``count`` highest of ``scores`` `(N,)`, best first, of equal ones the first; without NaN."""
    values = np.asarray(scores)
    rows: Ints = np.flatnonzero(values == values)
    if len(rows) > count:
        border = np.partition(values[rows], len(rows) - count)[len(rows) - count]
        rows = rows[values[rows] >= border]
    return rows[np.argsort(-values[rows], kind="stable")][:count]


def _single(values: npt.NDArray[Any]) -> Floats:
    """As float32; what is too large for it becomes infinite."""
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _ranked(boxes: npt.NDArray[Any], scores: npt.NDArray[Any]) -> tuple[Ints, Floats, Floats]:
    """The rows without NaN or infinity, best first, with their boxes (within `_LIMIT`) and scores."""
    places, values = _single(boxes), _single(scores)
    order: Ints = np.argsort(-values, kind="stable")
    if len(order) and not (cv2.checkRange(places, True, -_LIMIT, _LIMIT)[0] and cv2.checkRange(values)[0]):
        sound = np.isfinite(places).all(axis=1) & np.isfinite(values)
        order = order[sound[order]]
        places = np.clip(places, -_LIMIT, _LIMIT)
    return order, places.take(order, axis=0), values.take(order)


def _columns(boxes: npt.NDArray[Any]) -> Floats:
    """`(N, 4)` -> contiguous `(4, N)` float32, none of negative size."""
    columns: Floats = np.array(boxes.T, dtype=np.float32, order="C")  # a copy, also of one box
    np.maximum(columns[2:], columns[:2], out=columns[2:])
    return columns


def _overlap(one: Floats, other: Floats) -> Floats:
    """Of columns `(4, N)` and `(4, M)`: the areas of the intersections, `(N, M)`.

    Boxes that do not meet have 0 or, where one lies above the other, less: one clipping is saved.
    """
    low = np.maximum(one[:2, :, np.newaxis], other[:2, np.newaxis, :])
    sides = np.minimum(one[2:, :, np.newaxis], other[2:, np.newaxis, :])
    np.subtract(sides, low, out=sides)
    np.maximum(sides[0], 0, out=sides[0])
    shared: Floats = np.multiply(sides[0], sides[1], out=sides[0])
    return shared


def _areas(columns: Floats) -> Floats:
    sides = columns[2:] - columns[:2]
    areas: Floats = sides[0] * sides[1]
    return areas


def _share(threshold: float) -> np.float32:
    """The part of the sum of both areas that two boxes of IoU ``threshold`` share: no division for each pair.

    A little more, so that rounding does not lift an IoU of just the threshold above it.
    """
    return np.float32(threshold / (1.0 + threshold) * (1.0 + 5e-7))


def _apart(
    one: Floats, other: Floats, classes: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None, threshold: float
) -> Mask:
    """Whether the IoU of columns `(4, N)` and `(4, M)` is at most ``threshold`` or the classes differ; `(N, M)`."""
    share = _share(threshold)
    apart: Mask = _overlap(one, other) <= np.add.outer(_areas(one) * share, _areas(other) * share)
    if classes is not None:
        apart |= classes[0][:, np.newaxis] != classes[1]
    return apart


def _settle(boxes: Floats, classes: npt.NDArray[Any] | None, threshold: float) -> Mask:
    """Which of at most `_BLOCK` ranked boxes are kept."""
    count = len(boxes)
    columns = _columns(boxes)
    spared = _apart(columns, columns, None if classes is None else (classes, classes), threshold)
    spared |= _NOT_LATER[:count, :count]
    alive: Mask = np.ones(count, dtype=bool)
    is_alive = alive.data  # reading one value of a memoryview is twice as fast
    for row in np.flatnonzero(~spared.all(axis=1)).tolist():
        if is_alive[row]:
            alive &= spared[row]
    return alive


def _by_blocks(boxes: Floats, classes: npt.NDArray[Any] | None, threshold: float, limit: int) -> Ints:
    """Kept rows of many ranked boxes: block after block, until a block no longer takes out many of the rest."""
    waiting: Ints = np.arange(len(boxes))
    kept: list[Ints] = []
    found = 0
    size = _FIRST
    few = _FEW if classes is None else _FEW_OF_CLASS
    while len(waiting) and found < limit:
        head, waiting = waiting[:size], waiting[size:]
        size = _BLOCK
        best = head[_settle(boxes[head], None if classes is None else classes[head], threshold)]
        kept.append(best)
        found += len(best)
        before = len(waiting)
        if before == 0 or found >= limit:
            break
        waiting = waiting[~_beaten(boxes, classes, best, waiting, threshold)]
        if len(waiting) > _BLOCK and before - len(waiting) < few * len(best):
            rest = boxes[waiting], None if classes is None else classes[waiting]
            kept.append(waiting[_by_sweep(*rest, threshold)])
            break
    return np.concatenate(kept) if kept else waiting


def _beaten(boxes: Floats, classes: npt.NDArray[Any] | None, best: Ints, waiting: Ints, threshold: float) -> Mask:
    """Which of the ``waiting`` rows collide with one of the ``best``."""
    beaten: Mask = np.empty(len(waiting), dtype=bool)
    columns = _columns(boxes[best])
    for start in range(0, len(waiting), _CHUNK):
        rows = waiting[start : start + _CHUNK]
        groups = None if classes is None else (classes[best], classes[rows])
        apart = _apart(columns, _columns(boxes[rows]), groups, threshold)
        np.logical_not(apart.all(axis=0), out=beaten[start : start + _CHUNK])
    return beaten


def _by_sweep(boxes: Floats, classes: npt.NDArray[Any] | None, threshold: float) -> Ints:
    """Kept rows of many ranked boxes of which few overlap."""
    count = len(boxes)
    # Empty boxes collide with nothing, but thousands at one place would all have to be compared.
    full: Ints = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    if len(full) == 0:
        return np.arange(count)
    better, worse = (full[part] for part in _pairs(boxes[full], None if classes is None else classes[full], threshold))
    kept: Mask = np.zeros(count, dtype=bool)
    open_: Mask = np.ones(count, dtype=bool)
    while len(worse):
        beaten: Mask = np.zeros(count, dtype=bool)
        beaten[worse] = True
        safe = open_ & ~beaten  # nothing better that might be kept overlaps it
        kept |= safe
        open_ &= beaten
        open_[worse[safe[better]]] = False
        undecided = open_[better] & open_[worse]
        better, worse = better[undecided], worse[undecided]
    return np.flatnonzero(kept | open_)


def _pairs(boxes: Floats, classes: npt.NDArray[Any] | None, threshold: float) -> tuple[Ints, Ints]:
    """Rows of all pairs that collide: the better ones, and the worse ones.

    Where the IoU is above t, the shared width is above t times either width, so the left sides are
    nearer than (1 - t) times the width of the box that begins first; the same holds for heights.
    """
    columns = _columns(boxes)
    groups = np.zeros(len(boxes)) if classes is None else np.unique(classes, return_inverse=True)[1].astype(np.float64)
    reach = (columns[2:] - columns[:2]) * np.float32((1.0 - threshold) * 1.0001)  # a little more, for rounding
    axis = 0
    order, counts = _windows(columns[0], reach[0], groups)
    if counts.sum() > _MANY * len(order):
        other, fewer = _windows(columns[1], reach[1], groups)
        if fewer.sum() < counts.sum():
            axis, order, counts = 1, other, fewer
    ends = np.cumsum(counts)
    side, far = columns[1 - axis][order], reach[1 - axis][order]
    found: list[tuple[Ints, Ints]] = []
    start = 0
    while start < len(order):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _MAX_PAIRS, side="right")))
        here = np.repeat(np.arange(start, stop), counts[start:stop])
        there = np.arange(len(here)) + np.repeat(
            done + np.arange(start, stop) + 1 - ends[start:stop] + counts[start:stop], counts[start:stop]
        )
        gap = side[there] - side[here]
        near = np.flatnonzero((gap <= far[here]) & (-gap <= far[there]))
        found.append(_colliding(boxes, order[here[near]], order[there[near]], threshold))
        start = stop
    return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])


def _windows(begins: Floats, reach: Floats, groups: npt.NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Rows in the order in which the boxes begin, and how many after each begin within its reach."""
    span = float(begins.max()) - float(begins.min()) + float(reach.max()) + 1.0
    position = begins.astype(np.float64) + groups * span  # groups lie side by side, too far apart to meet
    order: Ints = np.argsort(position, kind="stable")
    sorted_ = position[order]
    last: Ints = np.searchsorted(sorted_, sorted_ + reach[order], side="right")
    return order, last - np.arange(1, len(order) + 1)


def _colliding(boxes: Floats, one: Ints, other: Ints, threshold: float) -> tuple[Ints, Ints]:
    """Those of the pairs of rows whose IoU is above ``threshold``, the better (lower) row first."""
    left, right = _columns(boxes[one]), _columns(boxes[other])
    sides = np.minimum(left[2:], right[2:]) - np.maximum(left[:2], right[:2])
    np.maximum(sides, 0, out=sides)
    shared = sides[0] * sides[1]
    share = _share(threshold)
    hits = shared > _areas(left) * share + _areas(right) * share
    first, second = one[hits], other[hits]
    return np.minimum(first, second), np.maximum(first, second)
