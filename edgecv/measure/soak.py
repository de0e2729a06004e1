"""The soak: the whole path, for as long as it takes to get hot. What rate is left, from when, at what power.

Unlike the latency protocol, throttling does not void it: throttling is what it looks for.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np

from edgecv.core.figures import LoopEvent, Percentiles, SoakFigures, SoakSecond
from edgecv.core.progress import Progress, SilentProgress, Task
from edgecv.errors import UsageError
from edgecv.measure.energy import PowerMeter
from edgecv.measure.latency import Timer, percentiles
from edgecv.measure.sensors import Readings
from edgecv.measure.subject import Subject
from edgecv.vision.clips import picture_size
from edgecv.vision.image import Image

SLOW_SHARE = 0.9
"""Below this share of the first minute's rate, for `SLOW_FOR_S`, the board counts as throttled."""
SLOW_FOR_S = 5.0
MAX_S = 24 * 3600.0

_FIRST_S = 60.0
_ROW_S = 1.0
_P95_FROM = 20
_IDLE_STEP_S = 0.25
_KEPT_TIMES = 1_000_000
_THINNED_BY = 3  # odd, so that a cycle of pictures is not met at the same place each time


class MachineWatch(Protocol):
    """What looks at the board once a second; `edgecv.measure.host.Sampler` is one."""

    @property
    def events(self) -> tuple[LoopEvent, ...]:
        """What held the board back, and when."""
        ...

    @property
    def max_temperature_c(self) -> dict[str, float]:
        """The highest temperature of each zone so far."""
        ...

    def sample(self) -> Readings:
        """Look at the machine now."""
        ...


@dataclass(frozen=True)
class SoakPlan:
    """``seconds`` of load, at the camera rate ``fps`` or (None) back to back.

    Before it come ``idle_s`` without load for the idle power, then a warm-up of ``warmup_runs`` inferences.
    """

    seconds: float
    fps: float | None = None
    idle_s: float = 5.0
    warmup_runs: int = 10

    def check(self) -> None:
        """See that it can be run.

        Raises:
            UsageError: a time or a rate is out of range.
        """
        if not 1.0 <= self.seconds <= MAX_S:
            raise UsageError(f"a soak of {self.seconds:g} s; allowed is 1 s to 24 h, such as 90s, 10m or 1h")
        if self.fps is not None and not 0.1 <= self.fps <= 1000.0:
            raise UsageError(f"fps is {self.fps:g}; the camera rate of a soak must be from 0.1 to 1000")


def soak(
    subject: Subject,
    images: Sequence[Image],
    *,
    plan: SoakPlan,
    watch: MachineWatch,
    power: PowerMeter | None = None,
    timer: Timer | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> SoakFigures:
    """Run the whole path on real pictures (uint8, any size) for the plan's time, and look at the board each second.

    ``stop`` is asked after each frame; a soak that is stopped early gives what it has.

    Raises:
        UsageError: there is no picture, the plan is out of range, or it was stopped before its first second.
        EdgecvError: the engine failed.
    """
    plan.check()
    if not images:
        raise UsageError("there is no picture to measure with; give at least one")
    timer = timer or Timer(clock=time.monotonic)
    run = _Run(subject, images, plan, watch, power, timer, stop)
    with (progress or SilentProgress()).task("soak", round(plan.seconds)) as task:
        idle_w = _idle_power(plan, power, timer, stop)
        for _ in range(plan.warmup_runs):
            run.frame()
        run.go(task)
    if not run.rows:
        raise UsageError("the soak was stopped before its first second was over; nothing was measured")
    return run.figures(idle_w)


class _Times:
    """Seconds of single frames in a bounded amount of memory: of a long soak, every third, ninth, ... is kept."""

    def __init__(self) -> None:
        self.kept: array[float] = array("d")
        self._every, self._seen = 1, 0

    def add(self, spent_s: float) -> None:
        if self._seen % self._every == 0:
            self.kept.append(spent_s)
            if len(self.kept) >= _KEPT_TIMES:
                self.kept = self.kept[::_THINNED_BY]
                self._every *= _THINNED_BY
        self._seen += 1


class _Run:
    """The loop under load and what it has seen so far."""

    def __init__(
        self,
        subject: Subject,
        images: Sequence[Image],
        plan: SoakPlan,
        watch: MachineWatch,
        power: PowerMeter | None,
        timer: Timer,
        stop: Callable[[], bool],
    ) -> None:
        self._subject, self._images, self._plan = subject, subject.apart(images), plan
        self._watch, self._power, self._timer, self._stop = watch, power, timer, stop
        self._buffer = subject.input_buffer()
        self._next = 0
        self.rows: list[SoakSecond] = []
        self.frames = self.dropped = 0
        self.seconds = 0.0
        self.stopped = False
        self.all, self.late = _Times(), _Times()

    def frame(self) -> float:
        """One inference, picture to decoded result: seconds it took."""
        image = self._images[self._next]
        self._next = (self._next + 1) % len(self._images)
        started_s = self._timer.clock()
        outputs = self._subject.run(image, self._buffer)
        self._subject.decode(outputs, picture=picture_size(image))
        return self._timer.clock() - started_s

    def go(self, task: Task) -> None:
        """Frames until the time is over or `stop` says so; a row every second."""
        plan, clock = self._plan, self._timer.clock
        self._watch.sample()
        if self._power is not None:
            self._power.restart()
            self._power.lap()
        started_s = row_s = clock()
        due, mark_s, times = 1, _ROW_S, array("d")  # the camera gives frame 1 after its first period
        while clock() - started_s < plan.seconds:
            if self._stop():
                self.stopped = True
                break
            if plan.fps is not None:
                due = self._wait(started_s, due, plan.fps)
            spent_s = self.frame()
            ended_s = clock()
            times.append(spent_s)
            self.all.add(spent_s)
            if ended_s - started_s > 0.75 * plan.seconds:
                self.late.add(spent_s)
            self.frames += 1
            self.seconds = ended_s - started_s
            if self.frames == 1 and plan.fps is not None:
                row_s = ended_s - 1 / plan.fps  # a paced frame stands for one period
            if self.seconds >= mark_s:
                self._row(self.seconds, ended_s - row_s, times, task)
                mark_s = math.floor(self.seconds / _ROW_S + 1) * _ROW_S
                # The time of the look itself is no time of the model; a paced loop has it to spare.
                row_s = ended_s if plan.fps is not None else clock()
                times = array("d")
        if len(times) and self.seconds + started_s - row_s >= _ROW_S / 2:
            self._row(self.seconds, self.seconds + started_s - row_s, times, task)

    def figures(self, idle_w: float | None) -> SoakFigures:
        """What the rows amount to."""
        rows, plan = self.rows, self._plan
        first_s = min(_FIRST_S, max(_ROW_S, plan.seconds / 4))
        first_fps = median(row.fps for row in rows if row.at_s <= max(first_s, rows[0].at_s))
        last = [row.fps for row in rows if row.at_s > rows[-1].at_s * 0.75]
        throttled_s, why = time_to_throttle(rows, first_s=first_s, first_fps=first_fps)
        late: Percentiles = percentiles(self.late.kept if len(self.late.kept) else self.all.kept)
        return SoakFigures(
            seconds=self.seconds,
            asked_s=plan.seconds,
            frames=self.frames,
            dropped=self.dropped,
            paced_fps=plan.fps,
            first_s=first_s,
            first_fps=first_fps,
            sustained_fps=median(last),
            kept=median(last) / first_fps,
            end_to_end=percentiles(self.all.kept),
            sustained=late,
            throttled_s=throttled_s,
            throttled_why=why,
            series=tuple(rows),
            events=self._watch.events,
            power=self._power.figures(seconds=self.seconds, frames=self.frames, idle_w=idle_w) if self._power else None,
            max_temperature_c=dict(self._watch.max_temperature_c),
            threads=self._subject.threads,
            file_sha256=self._subject.file_sha256,
            ended="stopped early" if self.stopped else "the time was over",
        )

    def _wait(self, started_s: float, due: int, fps: float) -> int:
        """Wait until frame ``due`` of the camera, or take the newest if it is late already; the next frame due."""
        now_s = self._timer.clock()
        newest = int((now_s - started_s) * fps)
        if newest > due:  # frames that came while the last one was in work
            self.dropped += newest - due
            due = newest
        wait_s = started_s + due / fps - now_s
        if wait_s > 0:
            self._timer.sleep(wait_s)
        return due + 1

    def _row(self, at_s: float, spent_s: float, times: "array[float]", task: Task) -> None:
        found = self._watch.sample()
        ms = np.asarray(times, dtype=np.float64) * 1000.0
        row = SoakSecond(
            at_s=round(at_s, 3),
            fps=round(len(times) / spent_s, 3),
            p50_ms=round(float(np.median(ms)), 4),
            p95_ms=round(float(np.quantile(ms, 0.95)), 4) if ms.size >= _P95_FROM else None,
            temperature_c=max(found.temperature_c.values(), default=None),
            clock_mhz=max(found.clock_mhz.values(), default=None),
            gpu_mhz=found.device_mhz.get("gpu"),
            fan=max(found.fans.values(), default=None),
            watts=self._power.lap() if self._power is not None else None,
            flags=found.flags,
        )
        done_s = int(self.rows[-1].at_s) if self.rows else 0
        self.rows.append(row)
        task.advance(int(at_s) - done_s, _words(row))


def time_to_throttle(rows: Sequence[SoakSecond], *, first_s: float, first_fps: float) -> tuple[float | None, str]:
    """When the board was first held back, in seconds from the start, and why; None and "" if never.

    Either a sensor said so, or the rate stayed below 90 % of the first minute's for 5 s.
    """
    slow_since: float | None = None
    before_s = 0.0
    for row in rows:
        if row.flags:
            return row.at_s, row.flags[0]
        if before_s >= first_s and row.fps < SLOW_SHARE * first_fps:
            slow_since = before_s if slow_since is None else slow_since
            if row.at_s - slow_since >= SLOW_FOR_S - 1e-6:
                return slow_since, f"the rate fell below {SLOW_SHARE * first_fps:.1f} per second for {SLOW_FOR_S:g} s"
        else:
            slow_since = None
        before_s = row.at_s
    return None, ""


def _idle_power(plan: SoakPlan, power: PowerMeter | None, timer: Timer, stop: Callable[[], bool]) -> float | None:
    """Mean watts without load; None without a sensor or where it did not answer."""
    if power is None or plan.idle_s <= 0:
        return None
    power.restart()
    started_s = timer.clock()
    while timer.clock() - started_s < plan.idle_s and not stop():
        power.sample()
        timer.sleep(_IDLE_STEP_S)
    power.sample()
    return power.mean_w


def _words(row: SoakSecond) -> str:
    parts = [f"{row.fps:.1f} fps", f"{row.p50_ms:.1f} ms"]
    if row.temperature_c is not None:
        parts.append(f"{row.temperature_c:.0f} °C")
    if row.watts is not None:
        parts.append(f"{row.watts:.2f} W")
    return ", ".join([*parts, *row.flags])
