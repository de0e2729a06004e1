"""Histograms of streamed values with bounded memory, and int8 ranges searched on them.

A histogram has a fixed number of bins over -top..top. Where a value lies outside, ``top`` doubles and
pairs of bins merge, so nothing is ever kept but the bins. Histograms of tensors that share one scale add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgecv.errors import DataError

__all__ = ["Histogram", "Range", "Search", "best_range"]

BINS = 16384
"""Even, over both signs; 128 KiB a tensor. More than half of them are within the largest value seen."""
FIRST_TOP = 2.0**-10
LAST_TOP = 2.0**120
PERCENTILE = 99.99
CANDIDATES = 128
SMALLEST_BINS = 8
"""The smallest range that is tried, in bins from 0: it finds the bulk of values beside an outlier 500 times larger."""
STEPS = 256
MOST_CLIPPED = 0.01
"""Entropy alone would cut most of a picture's few distinct values: what is left is so simple that int8 loses none."""

Search = Literal["percentile", "mse", "entropy"]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """The values that int8 shall cover; 0 is always among them."""

    low: float
    high: float


@dataclass
class Histogram:
    """Counts of values over ``-top .. top``, of zeros apart, and the extremes seen.

    Zeros (half of what a ReLU gives) are exact in every range, so they must not weigh in a search.
    """

    counts: Array = field(default_factory=lambda: np.zeros(BINS))
    top: float = FIRST_TOP
    low: float = 0.0
    high: float = 0.0
    zeros: int = 0

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """Count float32 ``values`` of any shape.

        Raises:
            DataError: a value is not finite.
        """
        flat = values.reshape(-1)
        flat, size = flat[flat != 0], flat.size
        self.zeros += size - flat.size
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        largest = max(-low, high)
        if not math.isfinite(largest) or largest >= LAST_TOP:
            raise DataError(
                f"an activation reaches {low:g}..{high:g} on a calibration picture; int8 needs finite values"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.widen(largest)
        index = (flat * np.float32(BINS / 2 / self.top) + np.float32(BINS / 2)).astype(np.int32)
        np.clip(index, 0, BINS - 1, out=index)
        np.add(self.counts, np.bincount(index, minlength=BINS), out=self.counts)

    def widen(self, largest: float) -> None:
        """Double ``top`` until ``largest`` is inside."""
        while self.top < largest:
            merged = self.counts[::2] + self.counts[1::2]
            self.counts = np.zeros(BINS, dtype=np.float64)
            self.counts[BINS // 4 : BINS // 4 * 3] = merged
            self.top *= 2

    @property
    def centres(self) -> Array:
        """The middle of each bin."""
        centres: Array = np.asarray((np.arange(BINS) + 0.5) * (2 * self.top / BINS) - self.top, dtype=np.float64)
        return centres


def joined(histograms: Sequence[Histogram]) -> Histogram:
    """One histogram of all values of several; tensors that share a scale are searched together."""
    total = Histogram(top=max(item.top for item in histograms))
    for item in histograms:
        moved = Histogram(item.counts.copy(), item.top)
        moved.widen(total.top)
        total.counts += moved.counts
        total.zeros += item.zeros
        total.low, total.high = min(total.low, item.low), max(total.high, item.high)
    return total


def best_range(histogram: Histogram, search: Search, *, symmetric: bool) -> Range:
    """The range of int8 by ``search``; within what was seen, and with 0 inside.

    ``percentile`` leaves 0.01 % of the values outside. ``mse`` makes the mean squared rounding and clipping
    error least. ``entropy`` makes the Kullback-Leibler divergence from the values to their int8 form least (the
    calibration of S. Migacz, 8-bit Inference with TensorRT, GTC 2017). ``symmetric`` gives -high..high.
    """
    largest = max(-histogram.low, histogram.high)
    if largest == 0 or histogram.counts.sum() == 0:
        return Range(0.0, 0.0)
    if search == "percentile":
        return _percentile(histogram, symmetric=symmetric)
    low, high = (-largest, largest) if symmetric else (histogram.low, histogram.high)
    occupied = np.flatnonzero(histogram.counts)
    counts, centres = histogram.counts[occupied], histogram.centres[occupied]
    measure = _squared_error if search == "mse" else _divergence
    smallest = SMALLEST_BINS * (2 * histogram.top / BINS) / largest
    shares = np.geomspace(1.0, min(1.0, smallest), CANDIDATES)
    errors = [measure(counts, centres, low * share, high * share) for share in shares]
    share = float(shares[int(np.argmin(errors))])
    return Range(low * share, high * share)


def _percentile(histogram: Histogram, *, symmetric: bool) -> Range:
    width = 2 * histogram.top / BINS
    outside = (1 - PERCENTILE / 100) * (histogram.counts.sum() + histogram.zeros)
    if symmetric:
        folded = histogram.counts[BINS // 2 :] + histogram.counts[: BINS // 2][::-1]
        beyond = np.cumsum(folded[::-1])[::-1]  # values in this bin or further out
        kept = int(np.count_nonzero(beyond > outside))
        high = min(kept * width, max(-histogram.low, histogram.high))
        return Range(-high, high)
    below, above = np.cumsum(histogram.counts), np.cumsum(histogram.counts[::-1])[::-1]
    first, last = int(np.argmax(below > outside / 2)), BINS - int(np.argmax(above[::-1] > outside / 2))
    low, high = first * width - histogram.top, last * width - histogram.top
    return Range(min(0.0, max(low, histogram.low)), max(0.0, min(high, histogram.high)))


def _squared_error(counts: Array, centres: Array, low: float, high: float) -> float:
    step = (high - low) / (STEPS - 1)
    clipped = np.clip(centres, low, high)
    # Within the range the error of rounding is even over a step; bins can be too wide to see it.
    inside = counts[clipped == centres].sum() * step**2 / 12
    return float(counts @ (clipped - centres) ** 2 + inside)


def _divergence(counts: Array, centres: Array, low: float, high: float) -> float:
    """Kullback-Leibler divergence from the clipped values to their int8 form, in which a step is flat."""
    step = (high - low) / (STEPS - 1)
    inside = (centres >= low) & (centres <= high)
    if counts[~inside].sum() > MOST_CLIPPED * counts.sum():
        return math.inf
    kept = counts[inside]
    clipped = kept.copy()
    clipped[0] += counts[centres < low].sum()
    clipped[-1] += counts[centres > high].sum()
    cell = np.round(centres[inside] / step).astype(np.int64)
    cell -= cell.min()
    flat = (np.bincount(cell, weights=kept) / np.bincount(cell).clip(1))[cell]
    one, other = clipped / clipped.sum(), flat / flat.sum()
    return float(np.sum(one * np.log(one / other)))
