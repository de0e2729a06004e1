"""The latency protocol: warm up, then back to back, then paced at camera rate; batch 1, real frames.

Times are of single runs, never a total divided by a count. The stages of a run are timed inside
the same loop, so model, copies and end-to-end are of the very same inferences.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import numpy as np

from edgecv.core.figures import LatencyFigures, Percentiles
from edgecv.core.progress import Progress, SilentProgress, Task
from edgecv.core.tensor import Array, Layout
from edgecv.errors import UsageError
from edgecv.measure.subject import Subject
from edgecv.vision.clips import ClipWindow, picture_size
from edgecv.vision.image import Image

MIN_BEYOND = 10
"""A percentile is given where so many samples lie beyond it: p90 from 100 samples, p95 from 200, p99 from 1000."""

_WARM_WINDOW = 10
_WARM_TOLERANCE = 0.05
_SAMPLE_EVERY_S = 1.0


@dataclass(frozen=True)
class LatencyPlan:
    """How long to measure. Half of ``min_s`` goes to the back-to-back loop, half to the paced one.

    Back to back runs at least ``min_runs`` inferences. Warm-up ends when the median of the last ten runs
    is within 5 % of that of the ten before, not before ``warmup_runs`` and ``warmup_s``, and at the
    latest after ``warmup_max_s``. ``quick`` marks the figures.
    """

    min_runs: int
    min_s: float
    warmup_runs: int
    warmup_s: float
    warmup_max_s: float
    quick: bool


FULL = LatencyPlan(min_runs=1024, min_s=60.0, warmup_runs=10, warmup_s=2.0, warmup_max_s=20.0, quick=False)
QUICK = LatencyPlan(min_runs=128, min_s=10.0, warmup_runs=10, warmup_s=2.0, warmup_max_s=5.0, quick=True)
SMOKE = LatencyPlan(min_runs=32, min_s=1.0, warmup_runs=10, warmup_s=0.2, warmup_max_s=0.5, quick=True)
"""To try a recipe; the figures are marked quick as well."""
PLANS = {"full": FULL, "quick": QUICK, "smoke": SMOKE}
"""By the name that a recipe's ``measure.protocol`` has."""


class Watch(Protocol):
    """What is looked at while the clock runs; `edgecv.measure.host.Sampler` is one."""

    @property
    def invalid(self) -> str:
        """Why times taken since the first `sample` must not be used; empty while all is well."""
        ...

    def sample(self) -> object:
        """Look at the machine now."""
        ...


@dataclass(frozen=True)
class Timer:
    """The clock, in seconds that never go back, and how to wait; replaced by fakes in tests."""

    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


class _NoWatch:
    invalid = ""

    def sample(self) -> None:
        pass


def measure_latency(
    subject: Subject,
    images: Sequence[Image],
    *,
    fps: float | None = 30.0,
    plan: LatencyPlan = FULL,
    timer: Timer | None = None,
    watch: Watch | None = None,
    progress: Progress | None = None,
) -> LatencyFigures:
    """Measure one model file on real pictures (uint8, any size), which are used in turn.

    ``fps`` is the camera rate of the paced run, None for no paced run: a frame is due every ``1 / fps``
    seconds and is late when its answer is not there before the next one is due. Frames that come
    while one is in work are dropped, as a camera loop drops them, and count as late.

    Raises:
        UsageError: there is no picture, or ``fps`` is not above 0.
        EdgecvError: the engine failed.
    """
    if not images:
        raise UsageError("there is no picture to measure with; give at least one")
    if fps is not None and fps <= 0:
        raise UsageError(f"fps is {fps}; the camera rate must be above 0")
    loop = _Loop(subject, images, timer or Timer(), watch or _NoWatch())
    with (progress or SilentProgress()).task("latency", None) as task:
        loop.look()
        started_s = loop.timer.clock()
        warmup_runs = _warm_up(loop, plan)
        model, copies, total = _back_to_back(loop, plan, task)
        paced, misses = (None, None) if fps is None else _paced(loop, plan, fps, task)
        loop.look()
        seconds = loop.timer.clock() - started_s
    return LatencyFigures(
        model=percentiles(model),
        with_copies=percentiles(copies),
        end_to_end=percentiles(total),
        paced=None if paced is None else percentiles(paced),
        paced_fps=fps,
        deadline_misses=misses,
        warmup_runs=warmup_runs,
        seconds=seconds,
        quick=plan.quick,
        threads=subject.threads,
        file_sha256=subject.file_sha256,
        invalid=loop.watch.invalid,
    )


def percentiles(times_s: Sequence[float]) -> Percentiles:
    """Seconds of single runs (one or more) -> percentiles in ms, None where the sample is too small for one.

    Linear interpolation between ranks; the jitter is the standard deviation.
    """
    ms = np.asarray(times_s, dtype=np.float64) * 1000.0

    def at(share: float) -> float | None:
        # 1e-9: (1 - 0.9) * 100 is a little below 10 in floating point.
        return float(np.quantile(ms, share)) if (1.0 - share) * ms.size + 1e-9 >= MIN_BEYOND else None

    return Percentiles(
        p50_ms=float(np.median(ms)),
        p90_ms=at(0.90),
        p95_ms=at(0.95),
        p99_ms=at(0.99),
        max_ms=float(ms.max()),
        mean_ms=float(ms.mean()),
        jitter_ms=float(ms.std()),
        samples=int(ms.size),
    )


class _NewestFrame:
    """What a camera loop does for a network that takes clips: the newest frame is prepared, the others are kept."""

    def __init__(self, window: ClipWindow, layout: Layout) -> None:
        self._window, self._layout, self._time_s = window, layout, 0.0

    def fit(self, clip: Image) -> None:
        """Prepare the last frame of a clip."""
        self._time_s += 1.0 / self._window.clip.fps
        self._window.add(clip[-1], self._time_s)

    def fill(self, _: Any, out: Array) -> None:
        """Put the clip together."""
        self._window.write(out, self._layout)


class _Loop:
    """The timed inference, picture after picture."""

    def __init__(self, subject: Subject, images: Sequence[Image], timer: Timer, watch: Watch) -> None:
        self.timer, self.watch = timer, watch
        self._subject, self._images = subject, subject.apart(images)
        self._buffer = subject.input_buffer()
        window = subject.window()
        self._prepare: Any = subject.preprocessor if window is None else _NewestFrame(window, subject.input.layout)
        self._next = 0
        self._looked_s = float("-inf")

    def run(self) -> tuple[float, float, float, float]:
        """One inference. Clock readings in s: model, with copies, end to end; then when it ended."""
        subject, clock, prepare = self._subject, self.timer.clock, self._prepare
        image = self._images[self._next]
        self._next = (self._next + 1) % len(self._images)
        picture = picture_size(image)
        model_s = copies_s = 0.0
        started_s = clock()
        answers = subject.collector(picture)
        for piece in subject.pieces(image):
            fitted = prepare.fit(piece)
            fitted_s = clock()
            prepare.fill(fitted, self._buffer)
            filled_s = clock()
            stored = subject.engine.run([self._buffer])
            ran_s = clock()
            outputs = subject.dequantize(stored)
            copied_s = clock()
            answers.add(outputs)
            model_s, copies_s = model_s + ran_s - filled_s, copies_s + copied_s - fitted_s
        subject.decode(answers.outputs(), picture=picture)
        ended_s = clock()
        return model_s, copies_s, ended_s - started_s, ended_s

    def look(self) -> None:
        """Look at the machine, at most once a second and never inside a timed run."""
        now_s = self.timer.clock()
        if now_s - self._looked_s >= _SAMPLE_EVERY_S:
            self._looked_s = now_s
            self.watch.sample()


def _warm_up(loop: _Loop, plan: LatencyPlan) -> int:
    """Run until the times are steady; the number of runs."""
    times: list[float] = []
    started_s = loop.timer.clock()
    while True:
        _, _, total_s, ended_s = loop.run()
        loop.look()
        times.append(total_s)
        spent_s = ended_s - started_s
        if len(times) < plan.warmup_runs or spent_s < plan.warmup_s:
            continue
        if spent_s >= plan.warmup_max_s:
            return len(times)
        if len(times) >= 2 * _WARM_WINDOW:
            before = median(times[-2 * _WARM_WINDOW : -_WARM_WINDOW])
            if abs(median(times[-_WARM_WINDOW:]) - before) <= _WARM_TOLERANCE * before:
                return len(times)


def _back_to_back(loop: _Loop, plan: LatencyPlan, task: Task) -> tuple[array[float], array[float], array[float]]:
    """Run without a pause: seconds of each run for the model, with copies, and end to end."""
    model, copies, total = array("d"), array("d"), array("d")
    started_s = loop.timer.clock()
    spent_s = 0.0
    while len(total) < plan.min_runs or spent_s < plan.min_s / 2:
        model_s, copies_s, total_s, ended_s = loop.run()
        model.append(model_s)
        copies.append(copies_s)
        total.append(total_s)
        spent_s = ended_s - started_s
        loop.look()
        task.advance(1, "back to back")
    return model, copies, total


def _paced(loop: _Loop, plan: LatencyPlan, fps: float, task: Task) -> tuple[array[float], int]:
    """Run at camera rate: seconds of each run, end to end, and how many frames were late or dropped."""
    period_s = 1.0 / fps
    frames = math.ceil(plan.min_s / 2 * fps) + 1  # the last one is due when the time is over
    total: array[float] = array("d")
    misses = 0
    started_s = loop.timer.clock()
    frame = 0
    while frame < frames:
        due_s = started_s + frame * period_s
        wait_s = due_s - loop.timer.clock()
        if wait_s > 0:
            loop.timer.sleep(wait_s)
        _, _, total_s, ended_s = loop.run()
        total.append(total_s)
        task.advance(1, f"paced at {fps:g} fps")
        late = ended_s > due_s + period_s
        # The next frame is the newest that the camera has given by now; those before it are dropped.
        upcoming = max(frame + 1, min(frames, int((ended_s - started_s) / period_s)))
        misses += int(late) + upcoming - frame - 1
        frame = upcoming
        loop.look()
    return total, misses
