"""Average precision from what each picture brings to it, so that pictures can be counted any number of times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgecv.core.tensor import Array

Ints = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

FORM = "ranked"
FALSE, TRUE, IGNORED = 0, 1, 2

_RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK_ELEMENTS = 1 << 21


@dataclass(frozen=True)
class _Class:
    """The findings of one class, best first, up to the last one that is right at any threshold.

    ``pictures`` `(D,)`; ``states`` `(T, D)`; true objects by picture: ``truth_pictures`` and ``truth_counts`` `(M,)`.
    """

    pictures: Ints
    states: npt.NDArray[np.uint8]
    truth_pictures: Ints
    truth_counts: Ints


@dataclass(frozen=True)
class RankedParts:
    """What every picture brings to an average precision.

    Findings of all pictures: ``pictures``, ``classes`` `(D,)` int64, ``scores`` `(D,)` float, picture by
    picture, and in each of them best first; ``states`` `(T, D)` uint8 says of each finding at each of T
    thresholds whether it is `FALSE`, `TRUE` or `IGNORED`. ``truths`` `(M, 3)` int64: picture, class and how
    many objects of it there are to be found. ``samples`` is the number of pictures.
    """

    samples: int
    pictures: Ints
    classes: Ints
    scores: Values
    states: npt.NDArray[np.uint8]
    truths: Ints

    @property
    def work(self) -> int:
        """How many numbers one count of the pictures goes through."""
        return sum(group.states.size // 8 + 8 * int((group.states == TRUE).sum()) for group in self._groups)

    def values(self, counts: npt.NDArray[np.integer]) -> Values:
        """The average precision `(R,)`, 0..1, with every picture counted as ``counts`` `(R, samples)` says.

        Mean over thresholds and over the classes that have something to be found; of each class the mean of the
        precision at 101 recalls, no smaller than at any higher recall (as COCO computes it: T.-Y. Lin et
        al., 2014, arXiv:1405.0312). 0 where nothing is to be found.
        """
        total, present = np.zeros(len(counts)), np.zeros(len(counts))
        for group in self._groups:
            step = max(1, _CHUNK_ELEMENTS // max(1, len(group.pictures)))
            for start in range(0, len(counts), step):
                rows = slice(start, start + step)
                found, there = _class_values(group, counts[rows])
                total[rows] += found
                present[rows] += there
        return np.divide(total, present, out=np.zeros_like(total), where=present > 0)

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays that `from_arrays` takes."""
        return {
            "form": np.array(FORM),
            "samples": np.array(self.samples),
            "pictures": self.pictures.astype(np.int32),
            "classes": self.classes.astype(np.int32),
            "scores": self.scores,
            "states": self.states,
            "truths": self.truths.astype(np.int32),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> RankedParts:
        """What `arrays` gave.

        Raises:
            KeyError: an array is missing.
        """
        return RankedParts(
            int(arrays["samples"]),
            arrays["pictures"].astype(np.int64),
            arrays["classes"].astype(np.int64),
            arrays["scores"].astype(np.float64),
            arrays["states"].astype(np.uint8),
            arrays["truths"].astype(np.int64),
        )

    @cached_property
    def _groups(self) -> tuple[_Class, ...]:
        return tuple(self._grouped())

    def _grouped(self) -> Iterator[_Class]:
        # By class, then by falling score; of equals the earlier picture first.
        order = np.lexsort((-self.scores, self.classes))
        sorted_classes = self.classes[order]
        for index in np.unique(self.truths[:, 1]):
            first, last = np.searchsorted(sorted_classes, [index, index + 1])
            rows = order[first:last]
            right = np.flatnonzero((self.states[:, rows] == TRUE).any(axis=0))
            rows = rows[: right[-1] + 1] if right.size else rows[:0]
            mine = self.truths[self.truths[:, 1] == index]
            yield _Class(self.pictures[rows], self.states[:, rows], mine[:, 0], mine[:, 2])


def _class_values(group: _Class, counts: npt.NDArray[np.integer]) -> tuple[Values, Values]:
    """Mean precision of one class over thresholds, and whether it has something to be found, both `(R,)`."""
    wanted = counts[:, group.truth_pictures].astype(np.float64) @ group.truth_counts
    weights = counts[:, group.pictures].astype(np.float64)
    seen = weights.cumsum(axis=1)
    total = np.zeros(len(counts))
    for states in group.states:
        right = np.flatnonzero(states == TRUE)
        if right.size:
            shown = seen[:, right]
            if (states == IGNORED).any():
                shown = shown - (weights * (states == IGNORED)).cumsum(axis=1)[:, right]
            total += _precision(weights[:, right].cumsum(axis=1), shown, wanted)
    there = (wanted > 0).astype(np.float64)
    return there * total / len(group.states), there


def _precision(right: Values, shown: Values, wanted: Values) -> Values:
    """Mean precision over 101 recalls `(R,)`, from the counts at every right finding.

    ``right`` `(R, L)`: right ones so far; ``shown`` `(R, L)`: right and wrong ones so far; ``wanted`` `(R,)`.
    Between two right findings precision only falls, so that no other place can hold a largest one.
    """
    precision = np.divide(right, shown, out=np.zeros_like(right), where=shown > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = np.divide(right, wanted[:, None], out=np.zeros_like(right), where=wanted[:, None] > 0)
    near = (recall * 100.0 + 1e-9).astype(np.int64)
    # As doubles, a recall of 7/100 is below 7 * 0.01, and so it is in COCO's code.
    reached = near + (_RECALLS[near] <= recall)
    value: Values = np.einsum("rl,rl->r", best, np.diff(reached, axis=1, prepend=0)) / len(_RECALLS)
    return value
