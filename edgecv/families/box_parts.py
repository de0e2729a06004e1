"""Which found objects are right, wrong or ignored at each IoU, as COCO decides it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgecv.core.results import Detections, DetectionTruth
from edgecv.families.ranked import FALSE, IGNORED, TRUE, RankedParts

IOU_THRESHOLDS: tuple[float, ...] = tuple(float(value) for value in np.linspace(0.5, 0.95, 10))
MAX_FOUND = 100
"""Of each picture and class so many findings count at most, the best ones."""

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Crowd = npt.NDArray[np.bool_]

Overlaps = Callable[[int, Ints, Ints, Crowd], Floats]
"""``overlaps(picture, found, true, crowd)``: IoU `(D, G)` of those rows of what was found and is true in a picture; of
a true one that is a crowd the share of what was found that lies on it."""


class Found(Protocol):
    """What was found in a picture."""

    @property
    def scores(self) -> npt.NDArray[np.float32]: ...

    @property
    def class_ids(self) -> Ints: ...


class Wanted(Protocol):
    """What is to be found in a picture."""

    @property
    def class_ids(self) -> Ints: ...

    @property
    def crowd(self) -> Crowd | None: ...


def box_parts(
    results: Sequence[Detections],
    truths: Sequence[DetectionTruth],
    *,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> RankedParts:
    """`object_parts` of boxes."""

    def overlaps(picture: int, found: Ints, true: Ints, crowd: Crowd) -> Floats:
        return _overlaps(_sides(results[picture].boxes[found]), _sides(truths[picture].boxes[true]), crowd)

    return object_parts(results, truths, overlaps, thresholds=thresholds)


def object_parts(
    results: Sequence[Found],
    truths: Sequence[Wanted],
    overlaps: Overlaps,
    *,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> RankedParts:
    """What each picture brings to an average precision over objects at the IoU ``thresholds``.

    The rules are COCO's (T.-Y. Lin et al., 2014, arXiv:1405.0312): within a picture and class the best
    finding chooses first, each takes the free true box of the largest IoU, and one that fits no true box but
    lies on a crowd is ignored.
    """
    limits = np.minimum(np.asarray(thresholds, dtype=np.float64), 1 - 1e-10)
    pictures: list[int] = []
    classes: list[int] = []
    scores: list[Floats] = []
    states: list[Codes] = []
    wanted: list[tuple[int, int, int]] = []
    for picture, (result, truth) in enumerate(zip(results, truths, strict=True)):
        for index, found, true, crowd in _by_class(result, truth):
            missing = int((~crowd).sum())
            if missing:
                wanted.append((picture, index, missing))
            pictures += [picture] * len(found)
            classes += [index] * len(found)
            scores.append(result.scores[found].astype(np.float64))
            states.append(_states(overlaps(picture, found, true, crowd), crowd, limits))
    empty = np.zeros((len(limits), 0), dtype=np.uint8)
    return RankedParts(
        len(results),
        np.array(pictures, dtype=np.int64),
        np.array(classes, dtype=np.int64),
        np.concatenate([*scores, np.zeros(0)]),
        np.concatenate([*states, empty], axis=1),
        np.array(wanted, dtype=np.int64).reshape(-1, 3),
    )


def _by_class(result: Found, truth: Wanted) -> Iterator[tuple[int, Ints, Ints, Crowd]]:
    """Class, rows of the findings (best first), rows of the true objects (crowds last) and which are crowds."""
    is_crowd = np.zeros(len(truth.class_ids), dtype=bool) if truth.crowd is None else truth.crowd
    for index in np.union1d(result.class_ids, truth.class_ids):
        found = np.flatnonzero(result.class_ids == index)
        found = found[np.argsort(-result.scores[found], kind="stable")][:MAX_FOUND]
        true = np.flatnonzero(truth.class_ids == index)
        true = true[np.argsort(is_crowd[true], kind="stable")]
        yield int(index), found, true, is_crowd[true]


def _states(overlaps: Floats, crowd: Crowd, limits: Floats) -> Codes:
    """`(T, D)`: what each finding (best first) is at each threshold, by its ``overlaps`` `(D, G)`."""
    states = np.full((len(limits), len(overlaps)), FALSE, dtype=np.uint8)
    if overlaps.size == 0:
        return states
    normal = int((~crowd).sum())
    free = np.ones((len(limits), normal), dtype=bool)
    on_crowd = overlaps[:, normal:].max(axis=1, initial=0.0)
    for row in np.flatnonzero(overlaps.max(axis=1) >= limits.min()):
        if normal:
            # Of equal overlaps the last true box is taken, as the reference does.
            mine = np.where(free, overlaps[row, :normal], -1.0)[:, ::-1]
            best = normal - 1 - mine.argmax(axis=1)
            hit = np.flatnonzero(overlaps[row, best] * free[np.arange(len(limits)), best] >= limits)
            states[hit, row] = TRUE
            free[hit, best[hit]] = False
        states[(states[:, row] == FALSE) & (on_crowd[row] >= limits), row] = IGNORED
    return states


def _sides(boxes: npt.NDArray[np.float32]) -> Floats:
    """Left, top, width and height, as the reference is given them."""
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1)


def _overlaps(found: Floats, true: Floats, crowd: Crowd) -> Floats:
    """IoU `(D, G)`; of a crowd the share of the found box that lies on it."""
    low = np.maximum(found[:, None, :2], true[:, :2])
    high = np.minimum(found[:, None, :2] + found[:, None, 2:], true[:, :2] + true[:, 2:])
    common = np.clip(high - low, 0.0, None).prod(axis=2)
    own = found[:, 2:].prod(axis=1)[:, None]
    union = np.where(crowd, own, own + true[:, 2:].prod(axis=1) - common)
    shares: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares
