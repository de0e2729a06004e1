"""The latency protocol on a scripted clock: nothing here depends on this machine's speed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgecv.errors import UsageError
from edgecv.measure.latency import FULL, QUICK, SMOKE, LatencyPlan, Timer, measure_latency, percentiles
from edgecv.measure.subject import Subject
from edgecv.vision.preprocessor import Preprocessor

IMAGES = [np.full((8, 8, 3), shade, dtype=np.uint8) for shade in (10, 200)]
TICK = 2.0**-20  # about a microsecond, exact in binary


class Clock:
    """Every reading takes one tick; the engine and sleeping move it on."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        self.now_s += TICK
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def scripted(classifier: Subject, clock: Clock, *times_s: float) -> Timer:
    """Let inference number k take ``times_s[k]``, the last of them for ever."""
    engine = classifier.engine

    def spend() -> None:
        clock.now_s += times_s[min(engine.runs, len(times_s)) - 1]  # type: ignore[attr-defined]

    engine.before_run = spend  # type: ignore[attr-defined]
    return Timer(clock=clock, sleep=clock.sleep)


PLAN = LatencyPlan(min_runs=40, min_s=2.0, warmup_runs=10, warmup_s=0.1, warmup_max_s=5.0, quick=True)


def test_plans_are_those_of_the_protocol() -> None:
    assert (FULL.min_runs, FULL.min_s, FULL.warmup_runs, FULL.warmup_s, FULL.quick) == (1024, 60.0, 10, 2.0, False)
    assert (QUICK.min_runs, QUICK.min_s, QUICK.warmup_runs, QUICK.warmup_s, QUICK.quick) == (128, 10.0, 10, 2.0, True)
    assert SMOKE.quick
    assert SMOKE.min_runs == 32


def test_stages_are_told_apart(classifier: Subject, clock: Clock) -> None:
    figures = measure_latency(classifier, IMAGES, plan=PLAN, timer=scripted(classifier, clock, 0.01), fps=None)
    tick_ms = TICK * 1000
    assert figures.model.p50_ms == pytest.approx(10 + tick_ms)
    assert figures.with_copies.p50_ms == pytest.approx(10 + 3 * tick_ms)
    assert figures.end_to_end.p50_ms == pytest.approx(10 + 5 * tick_ms)
    assert figures.paced is None
    assert figures.deadline_misses is None
    assert figures.file_sha256 == "f" * 64
    assert (figures.threads, figures.quick, figures.invalid) == (2, True, "")


def test_every_stage_lands_where_it_belongs(classifier: Subject, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage is slowed by its own amount; the three sums must show it."""

    def slow(name: str, seconds: float) -> None:
        real = getattr(Preprocessor, name)

        def slowed(*arguments: object) -> object:
            clock.now_s += seconds
            return real(*arguments)

        monkeypatch.setattr(Preprocessor, name, slowed)

    slow("fit", 0.001)
    slow("fill", 0.002)
    real_dequantize, real_decode = Subject.dequantize, Subject.decode

    def dequantize(self: Subject, stored: list[np.ndarray]) -> list[np.ndarray]:
        clock.now_s += 0.004
        return real_dequantize(self, stored)

    def decode(self: Subject, outputs: list[np.ndarray], *, picture: tuple[int, int]) -> object:
        clock.now_s += 0.008
        return real_decode(self, outputs, picture=picture)

    monkeypatch.setattr(Subject, "dequantize", dequantize)
    monkeypatch.setattr(Subject, "decode", decode)
    figures = measure_latency(classifier, IMAGES, plan=PLAN, timer=scripted(classifier, clock, 0.016), fps=None)
    assert figures.model.p50_ms == pytest.approx(16, abs=0.01)
    assert figures.with_copies.p50_ms == pytest.approx(16 + 2 + 4, abs=0.01)
    assert figures.end_to_end.p50_ms == pytest.approx(16 + 2 + 4 + 1 + 8, abs=0.01)


@pytest.mark.parametrize(("run_s", "runs"), [(0.001, 1000), (0.1, 40)])
def test_back_to_back_meets_both_minimums(classifier: Subject, clock: Clock, run_s: float, runs: int) -> None:
    figures = measure_latency(classifier, IMAGES, plan=PLAN, timer=scripted(classifier, clock, run_s), fps=None)
    assert figures.end_to_end.samples == pytest.approx(runs, rel=0.01)
    assert figures.model.samples == figures.with_copies.samples == figures.end_to_end.samples


def test_warm_up_waits_until_it_is_steady(classifier: Subject, clock: Clock) -> None:
    falling = [0.1 * 0.93**k for k in range(60)]
    figures = measure_latency(
        classifier, IMAGES, plan=PLAN, timer=scripted(classifier, clock, *falling, 0.001), fps=None
    )
    assert figures.warmup_runs >= 60
    assert figures.model.max_ms < 2


def test_warm_up_takes_its_runs_and_its_time(classifier: Subject, clock: Clock) -> None:
    plan = replace(PLAN, warmup_s=1.0)
    figures = measure_latency(classifier, IMAGES, plan=plan, timer=scripted(classifier, clock, 0.01), fps=None)
    assert figures.warmup_runs == pytest.approx(100, abs=1)
    slow = measure_latency(classifier, IMAGES, plan=PLAN, timer=scripted(classifier, clock, 0.2), fps=None)
    assert slow.warmup_runs == 20  # two windows of ten


def test_warm_up_ends_on_a_machine_that_never_settles(classifier: Subject, clock: Clock) -> None:
    wild = [0.01 * (1 + k // 10) for k in range(400)]
    plan = replace(PLAN, warmup_max_s=1.0)
    figures = measure_latency(classifier, IMAGES, plan=plan, timer=scripted(classifier, clock, *wild), fps=None)
    assert 10 <= figures.warmup_runs < 60


def test_paced_in_time(classifier: Subject, clock: Clock) -> None:
    figures = measure_latency(classifier, IMAGES, plan=PLAN, timer=scripted(classifier, clock, 0.01), fps=32.0)
    assert figures.paced is not None
    assert figures.paced.samples == 33
    assert figures.deadline_misses == 0
    assert figures.paced_fps == 32.0
    assert len(clock.slept_s) == 32  # the first frame is due at once
    assert all(wait == pytest.approx(1 / 32 - 0.01, abs=1e-4) for wait in clock.slept_s)


@pytest.mark.parametrize(
    ("periods", "answers", "misses"),
    [(0.95, 33, 0), (1.5, 22, 33), (2.5, 14, 33), (40.0, 1, 33)],
)
def test_paced_too_slow(classifier: Subject, clock: Clock, periods: float, answers: int, misses: int) -> None:
    """Dropped frames count as late: with 1.5 periods a run every third frame is dropped, the rest are late."""
    timer = scripted(classifier, clock, periods / 32)
    figures = measure_latency(classifier, IMAGES, plan=PLAN, timer=timer, fps=32.0)
    assert figures.paced is not None
    assert figures.paced.samples == pytest.approx(answers, abs=1)
    assert figures.deadline_misses == misses


def test_paced_recovers_after_one_slow_frame(classifier: Subject, clock: Clock) -> None:
    steady = measure_latency(classifier, IMAGES, plan=PLAN, timer=scripted(classifier, clock, 0.01), fps=None)
    before = steady.warmup_runs + steady.end_to_end.samples
    classifier.engine.runs = 0  # type: ignore[attr-defined]
    times = [0.01] * (before + 5) + [2.5 / 32] + [0.01]
    figures = measure_latency(classifier, IMAGES, plan=PLAN, timer=scripted(classifier, clock, *times), fps=32.0)
    assert figures.paced is not None
    # Frame 5 is late, 6 is dropped, 7 is taken half a period late but answered in time.
    assert figures.deadline_misses == 2
    assert figures.paced.samples == 32


class Watching:
    """Says that it throttled after so many looks."""

    def __init__(self, after: int) -> None:
        self.looks: list[float] = []
        self.after = after
        self.clock: Clock | None = None

    @property
    def invalid(self) -> str:
        return "throttled" if len(self.looks) >= self.after else ""

    def sample(self) -> None:
        assert self.clock is not None
        self.looks.append(self.clock.now_s)


def test_the_machine_is_watched_about_once_a_second(classifier: Subject, clock: Clock) -> None:
    watch = Watching(after=1000)
    watch.clock = clock
    plan = replace(PLAN, min_s=10.0)
    figures = measure_latency(classifier, IMAGES, plan=plan, timer=scripted(classifier, clock, 0.01), watch=watch)
    gaps = np.diff(watch.looks)
    assert figures.invalid == ""
    assert figures.seconds == pytest.approx(10.1, abs=0.2)
    assert 10 <= len(watch.looks) <= 12
    assert gaps.min() >= 1.0 - 1e-3
    assert gaps.max() < 1.1


def test_throttling_makes_it_invalid(classifier: Subject, clock: Clock) -> None:
    watch = Watching(after=2)
    watch.clock = clock
    timer = scripted(classifier, clock, 0.01)
    assert measure_latency(classifier, IMAGES, plan=PLAN, timer=timer, watch=watch).invalid == "throttled"


def test_pictures_are_used_in_turn(classifier: Subject, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = Preprocessor.fit

    def spy(self: Preprocessor, image: np.ndarray) -> object:
        seen.append(int(image[0, 0, 0]))
        return real(self, image)

    monkeypatch.setattr(Preprocessor, "fit", spy)
    measure_latency(classifier, IMAGES, plan=PLAN, timer=scripted(classifier, clock, 0.05), fps=None)
    assert seen[:6] == [10, 200, 10, 200, 10, 200]


@pytest.mark.parametrize(
    ("samples", "known"),
    [(1, ""), (99, ""), (100, "90"), (199, "90"), (200, "90 95"), (999, "90 95"), (1000, "90 95 99")],
)
def test_percentiles_need_ten_samples_beyond(samples: int, known: str) -> None:
    found = percentiles([0.001] * samples)
    given = {"90": found.p90_ms, "95": found.p95_ms, "99": found.p99_ms}
    assert " ".join(name for name, value in given.items() if value is not None) == known
    assert found.samples == samples
    assert found.p50_ms == 1.0


def test_percentile_values() -> None:
    times = np.arange(1, 1001) / 1000.0
    np.random.default_rng(0).shuffle(times)
    found = percentiles(times.tolist())
    assert found.p50_ms == pytest.approx(500.5)
    assert found.p90_ms == pytest.approx(900.1)
    assert found.p95_ms == pytest.approx(950.05)
    assert found.p99_ms == pytest.approx(990.01)
    assert found.max_ms == pytest.approx(1000)
    assert found.mean_ms == pytest.approx(500.5)
    assert found.jitter_ms == pytest.approx(np.std(np.arange(1, 1001)))


def test_wrong_arguments(classifier: Subject) -> None:
    with pytest.raises(UsageError, match="no picture"):
        measure_latency(classifier, [])
    for fps in (0.0, -1.0):
        with pytest.raises(UsageError, match="above 0"):
            measure_latency(classifier, IMAGES, fps=fps)


def test_on_the_real_clock(classifier: Subject) -> None:
    plan = LatencyPlan(min_runs=20, min_s=0.2, warmup_runs=2, warmup_s=0.0, warmup_max_s=0.1, quick=True)
    figures = measure_latency(classifier, IMAGES, plan=plan, fps=100.0)
    assert 0 < figures.model.p50_ms <= figures.with_copies.p50_ms <= figures.end_to_end.p50_ms
    assert figures.seconds >= 0.2
    assert figures.paced is not None
