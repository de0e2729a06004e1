"""Percentiles of any number of times in a fixed amount of memory."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from edgecv.core.figures import Percentiles
from edgecv.core.stream import StageStatus
from edgecv.measure.latency import MIN_BEYOND

_LOWEST_MS = 1e-3
_GROWTH = 1.01
_BUCKETS = math.ceil(math.log(1e10) / math.log(_GROWTH))  # up to 10,000 s
_RECENT = 240


class Histogram:
    """Times in milliseconds, counted in buckets that grow by 1 %: a percentile is right within 0.5 %.

    Mean and maximum are exact; ``recent`` holds the last 240 times. Written by one thread; a reader in
    another one sees a state that is at most one time old.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, dtype=np.int64)
        self._total = self._squares = self._max = 0.0
        self.count = 0
        self.recent: deque[float] = deque(maxlen=_RECENT)

    def add(self, value_ms: float) -> None:
        """Count one time."""
        bucket = int(math.log(max(value_ms, _LOWEST_MS) / _LOWEST_MS) / math.log(_GROWTH))
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self._total += value_ms
        self._squares += value_ms * value_ms
        self._max = max(self._max, value_ms)
        self.count += 1
        self.recent.append(value_ms)

    def percentiles(self) -> Percentiles | None:
        """All figures since the start; None without any time."""
        if self.count == 0:
            return None
        mean = self._total / self.count
        spread = math.sqrt(max(0.0, self._squares / self.count - mean * mean))
        p90, p95, p99 = (
            self._at(share) if self.count * (1 - share) >= MIN_BEYOND - 1e-9 else None for share in (0.9, 0.95, 0.99)
        )
        return Percentiles(
            p50_ms=self._at(0.5),
            p90_ms=p90,
            p95_ms=p95,
            p99_ms=p99,
            max_ms=self._max,
            mean_ms=mean,
            jitter_ms=spread,
            samples=self.count,
        )

    def status(self, name: str) -> StageStatus | None:
        """The last times, for a live view; None without any."""
        last = sorted(self.recent.copy())
        if not last:
            return None
        p95 = last[math.ceil(0.95 * len(last)) - 1] if len(last) * 0.05 >= MIN_BEYOND else None
        return StageStatus(name, last[(len(last) - 1) // 2], p95, last[-1])

    def _at(self, share: float) -> float:
        reached = np.cumsum(self._counts)
        bucket = int(np.searchsorted(reached, math.ceil(share * int(reached[-1]))))
        middle: float = _LOWEST_MS * _GROWTH ** (bucket + 0.5)
        return min(middle, self._max)
