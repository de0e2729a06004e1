"""The time of every stage that a frame goes through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Trace:
    """Stage times of one frame, in milliseconds, in the order in which the stages ended.

    ``clock`` gives seconds and never goes back. ``spans`` holds (stage, start, end) on that clock in the
    order of their ends, for a timeline.
    """

    clock: Callable[[], float] = time.perf_counter
    stages_ms: dict[str, float] = field(default_factory=dict)
    spans: list[tuple[str, float, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of the with statement; the same name again adds up."""
        started_s = self.clock()
        try:
            yield
        finally:
            self.add(name, started_s, self.clock())

    def add(self, name: str, started_s: float, ended_s: float) -> None:
        """Record a stage that was timed elsewhere on the same clock, such as the wait in a queue."""
        self.stages_ms[name] = self.stages_ms.get(name, 0.0) + (ended_s - started_s) * 1000.0
        self.spans.append((name, started_s, ended_s))

    @property
    def total_ms(self) -> float:
        """Sum of all stages."""
        return sum(self.stages_ms.values())
