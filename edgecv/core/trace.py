"""The time of every stage that a frame goes through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Trace:
    """Stage times of one frame, in milliseconds, in the order in which the stages ended.

    ``clock`` gives seconds and never goes back.
    """

    clock: Callable[[], float] = time.perf_counter
    stages_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of the with statement; the same name again adds up."""
        started_s = self.clock()
        try:
            yield
        finally:
            spent_ms = (self.clock() - started_s) * 1000.0
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + spent_ms

    @property
    def total_ms(self) -> float:
        """Sum of all stages."""
        return sum(self.stages_ms.values())
