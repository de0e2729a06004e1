"""Energy over time from a power sensor: watts are integrated, counters are subtracted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecv.core.figures import PowerFigures
from edgecv.measure.power import PowerReading, PowerSensor, find_power
from edgecv.measure.tools import Tools

_SHORTEST_S = 0.15  # an energy counter read again sooner tells no peak


class PowerMeter:
    """Integrates one sensor; `sample` may be called by several threads.

    Watts are integrated by the trapezoid rule between two looks. A stretch in which the sensor did not answer is
    left out, and the mean is of the rest.
    """

    def __init__(self, sensor: PowerSensor, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.sensor = sensor
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[float, PowerReading] | None = None
        self.restart()

    def restart(self) -> None:
        """Forget what was measured; a new stretch begins with the next look."""
        with self._lock:
            self._last = None
            self._joules = self._seconds = 0.0
            self._peak_w: float | None = None
            self._samples = 0
            self._rails: dict[str, tuple[float, int]] = {}
            self._lap = (0.0, 0.0)
            self._lap_w: float | None = None

    def sample(self) -> PowerReading | None:
        """Look at the sensor now."""
        with self._lock:
            return self._look()

    def lap(self) -> float | None:
        """Look now; mean watts since the last lap, None where the sensor did not answer meanwhile."""
        with self._lock:
            self._look()
            joules, seconds = self._joules - self._lap[0], self._seconds - self._lap[1]
            self._lap = (self._joules, self._seconds)
            if seconds > 0:
                self._lap_w = joules / seconds
            elif self._last is not None and self._lap_w is None:
                self._lap_w = self._last[1].watts  # the very first look
            elif self._last is None:
                self._lap_w = None
            return self._lap_w

    @property
    def rails_w(self) -> dict[str, float]:
        """The last look at each rail."""
        last = self._last
        return dict(last[1].rails_w) if last is not None else {}

    @property
    def mean_w(self) -> float | None:
        """Mean watts since `restart`; None before the second look."""
        return self._joules / self._seconds if self._seconds > 0 else None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look from a thread of its own meanwhile, so that looks fall anywhere in a frame and not between frames."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(self.sensor.every_s):
                self.sample()

        thread = threading.Thread(target=watch, name="edgecv-power", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(5.0)

    def figures(self, *, seconds: float, frames: int, idle_w: float | None = None) -> PowerFigures | None:
        """What was measured since `restart`, over a run of ``frames`` in ``seconds``; None where nothing was."""
        mean_w = self.mean_w
        if mean_w is None:
            return None
        per_frame = seconds / frames * 1000.0 if frames else None  # ms of the run that a frame stands for
        above_w = None if idle_w is None else mean_w - idle_w
        return PowerFigures(
            sensor=self.sensor.name,
            covers=self.sensor.covers,
            samples=self._samples,
            seconds=self._seconds,
            joules=self._joules,
            mean_w=mean_w,
            peak_w=mean_w if self._peak_w is None else self._peak_w,
            idle_w=idle_w,
            mj_per_frame=None if per_frame is None else mean_w * per_frame,
            mj_per_frame_above_idle=None if per_frame is None or above_w is None else above_w * per_frame,
            rails_w={name: total / count for name, (total, count) in self._rails.items()},
        )

    def _look(self) -> PowerReading | None:
        found = self.sensor.read()
        now_s = self._clock()
        if found is None:
            self._last = None
            return None
        self._samples += 1
        for name, watts in found.rails_w.items():
            total, count = self._rails.get(name, (0.0, 0))
            self._rails[name] = (total + watts, count + 1)
        if found.watts is not None:
            self._peak_w = max(found.watts, self._peak_w or 0.0)
        if self._last is not None and now_s > self._last[0]:
            self._add(now_s - self._last[0], self._last[1], found)
        self._last = (now_s, found)
        return found

    def _add(self, spent_s: float, before: PowerReading, now: PowerReading) -> None:
        if now.joules is not None and before.joules is not None:
            joules = now.joules - before.joules
            if spent_s >= _SHORTEST_S:
                self._peak_w = max(joules / spent_s, self._peak_w or 0.0)
        elif now.watts is not None and before.watts is not None:
            joules = (now.watts + before.watts) / 2 * spent_s
        else:
            return
        self._joules += joules
        self._seconds += spent_s


def open_meter(root: Path = Path("/"), tools: Tools | None = None) -> tuple[PowerMeter | None, tuple[str, ...]]:
    """A meter on the best sensor of this machine (None without one), and notes on those that cannot be read."""
    sensor, notes = find_power(root, tools)
    return (PowerMeter(sensor) if sensor is not None else None), notes
