"""Which boxes may belong together: the pairs that overlap enough, out of two sets of boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecv.track.steps import Floats64, Ints

_ROUNDING = 1 - 1e-5
_ZERO, _TINY = np.float32(0), np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Pairs:
    """K pairs: ``rows`` (ascending) of one set, ``columns`` of the other, ``overlap`` 0..1, each `(K,)`."""

    rows: Ints
    columns: Ints
    overlap: Floats64

    def of(self, chosen: npt.NDArray[np.bool_]) -> "Pairs":
        """Those where ``chosen`` `(K,)` holds."""
        return Pairs(self.rows[chosen], self.columns[chosen], self.overlap[chosen])


_NO_PAIRS = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def pairs_above(one: Floats64, other: Floats64, least: float) -> Pairs:
    """Pairs of boxes `(4, N)` and `(4, M)` (rows x1, y1, x2, y2) whose intersection over union is ``least`` or more.

    Only pairs that meet at all are given; with ``least`` below 0 all pairs are. Overlaps are counted in float32.
    Fastest where ``other`` is the larger set.
    """
    left, right = one.astype(np.float32), other.astype(np.float32)
    if least < 0:
        places = np.arange(left.shape[1] * right.shape[1])
    else:
        # The other box must reach over so much of each side of this one, or even its side alone shares too little.
        margin = (left[2:] - left[:2]) * np.float32(least * _ROUNDING)
        (low_x, low_y), (high_x, high_y) = (left[:2] + margin)[..., np.newaxis], (left[2:] - margin)[..., np.newaxis]
        meet = low_x < right[2]
        meet &= high_x > right[0]
        meet &= low_y < right[3]
        meet &= high_y > right[1]
        places = meet.ravel().nonzero()[0]
        if not len(places):
            return _NO_PAIRS
    rows, columns = np.divmod(places, max(1, right.shape[1]))
    first, second = left.take(rows, axis=1), right.take(columns, axis=1)
    sides = np.minimum(first[2:], second[2:])
    sides -= np.maximum(first[:2], second[:2])
    np.maximum(sides, _ZERO, out=sides)
    shared = sides[0] * sides[1]
    union = _areas(first)
    union += _areas(second)
    union -= shared
    shared /= np.maximum(union, _TINY, out=union)
    if least > 0:
        enough = shared >= least
        rows, columns, shared = rows[enough], columns[enough], shared[enough]
    return Pairs(rows, columns, shared.astype(np.float64))


def _areas(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    sides = boxes[2:] - boxes[:2]
    areas: npt.NDArray[np.float32] = sides[0] * sides[1]
    return areas
