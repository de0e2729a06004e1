"""What a running loop counts: times of every stage, age of the frames, rates and events."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edgecv.core.figures import LoopEvent, StageFigures
from edgecv.core.stream import StageStatus
from edgecv.core.trace import Trace
from edgecv.runtime.histogram import Histogram

MAX_EVENTS = 200
_RATE_WINDOW = 120


@dataclass
class Counts:
    """Events of the loop itself; the camera and the sinks count their own.

    ``failed`` frames met an engine or a decoder that raised; ``stale`` ones were older than the limit
    when their turn came; ``misses`` ended later than the deadline.
    """

    frames: int = 0
    failed: int = 0
    stale: int = 0
    misses: int = 0


@dataclass
class Profile:
    """Times and counts of one loop, in a fixed amount of memory. ``clock`` is that of the frames.

    ``age`` is from capture, ``whole`` from the start of pre-processing, both to the end of the pipeline.
    """

    clock: Callable[[], float] = time.monotonic
    counts: Counts = field(default_factory=Counts)
    stages: dict[str, Histogram] = field(default_factory=dict)
    age: Histogram = field(default_factory=Histogram)
    whole: Histogram = field(default_factory=Histogram)
    events: list[LoopEvent] = field(default_factory=list)
    events_seen: int = 0

    def __post_init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=_RATE_WINDOW)
        self._lock = threading.Lock()  # stages are added by several threads
        self.started_s = self.clock()
        self.first_s: float | None = None
        self.last_s: float | None = None

    def frame(self, trace: Trace, captured_s: float, *, deadline_ms: float | None) -> float:
        """Count a finished frame; its age in milliseconds."""
        now_s = self.clock()
        for name, spent_ms in trace.stages_ms.items():
            self.stage(name, spent_ms)
        age_ms = (now_s - captured_s) * 1000.0
        begun_s = next((start_s for name, start_s, _ in trace.spans if name == "preprocess"), now_s)
        self.whole.add((now_s - begun_s) * 1000.0)
        self.age.add(max(0.0, age_ms))
        self.counts.frames += 1
        if deadline_ms is not None and age_ms > deadline_ms:
            self.counts.misses += 1
        self.first_s = now_s if self.first_s is None else self.first_s
        self.last_s = now_s
        self._ends.append(now_s)
        return age_ms

    def stage(self, name: str, spent_ms: float) -> None:
        """Count one time of a stage."""
        with self._lock:
            found = self.stages.get(name)
            if found is None:
                found = self.stages[name] = Histogram()
            found.add(spent_ms)

    def event(self, kind: str, text: str) -> None:
        """Note that something happened; the first 200 are kept, all are counted."""
        with self._lock:
            self.events_seen += 1
            if len(self.events) < MAX_EVENTS:
                self.events.append(LoopEvent(round(self.clock() - self.started_s, 3), kind, text))

    def fps(self) -> float:
        """Finished frames per second over the last 120 frames (fewer at the start); 0 where they stopped coming."""
        ends = list(self._ends)
        if len(ends) < 2:
            return 0.0
        spent_s = max(ends[-1], self.clock() - (ends[-1] - ends[0]) / (len(ends) - 1)) - ends[0]
        return (len(ends) - 1) / spent_s if spent_s > 0 else 0.0

    def mean_fps(self) -> float:
        """Finished frames per second from the first to the last one."""
        if self.first_s is None or self.last_s is None or self.last_s <= self.first_s:
            return 0.0
        return (self.counts.frames - 1) / (self.last_s - self.first_s)

    def stage_figures(self) -> tuple[StageFigures, ...]:
        """Percentiles of every stage since the start, in the order in which the stages first ended."""
        with self._lock:
            stages = dict(self.stages)
        return tuple(
            StageFigures(name, found) for name, times in stages.items() if (found := times.percentiles()) is not None
        )

    def stage_status(self) -> tuple[StageStatus, ...]:
        """The last times of every stage."""
        with self._lock:
            stages = dict(self.stages)
        return tuple(found for name, times in stages.items() if (found := times.status(name)) is not None)
