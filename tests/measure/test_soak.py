"""The soak on a simulated board: it warms up, throttles, and nothing here takes real time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.figures import SoakFigures, SoakSecond
from edgecv.errors import UsageError
from edgecv.measure import soak as module
from edgecv.measure.energy import PowerMeter
from edgecv.measure.host import Sampler
from edgecv.measure.latency import Timer
from edgecv.measure.power import find_power
from edgecv.measure.soak import SoakPlan, soak, time_to_throttle
from edgecv.measure.subject import Subject
from tests.measure.boards import WarmBoard

IMAGES = [np.full((8, 8, 3), shade, dtype=np.uint8) for shade in (10, 200)]


def run(
    board: WarmBoard, classifier: Subject, plan: SoakPlan, *, stop_s: float = 1e9, power: bool = True
) -> SoakFigures:
    """A soak of the null engine, each of whose inferences takes the board's time."""
    classifier.engine.before_run = board.run  # type: ignore[attr-defined]
    sensor, _ = find_power(board.root)
    assert sensor is not None
    return soak(
        classifier,
        IMAGES,
        plan=plan,
        watch=Sampler(root=board.root, clock=board.clock, load_average=lambda: (0.0, 0.0, 0.0)),
        power=PowerMeter(sensor, clock=board.clock) if power else None,
        timer=Timer(clock=board.clock, sleep=board.sleep),
        stop=lambda: board.now_s >= stop_s,
    )


@pytest.fixture
def board(tmp_path: Path) -> WarmBoard:
    return WarmBoard(tmp_path)


def test_five_minutes_on_a_board_without_a_fan(board: WarmBoard, classifier: Subject) -> None:
    found = run(board, classifier, SoakPlan(300.0))
    hot_s = next(row.at_s for row in found.series if row.flags)
    assert found.first_fps == pytest.approx(10.0, rel=0.02)
    assert found.sustained_fps == pytest.approx(5.5, rel=0.02)
    assert found.kept == pytest.approx(0.55, rel=0.03)
    assert (found.first_s, found.ended) == (60.0, "the time was over")
    assert found.throttled_s == hot_s
    assert 60 < hot_s < 240
    assert "Raspberry Pi firmware" in found.throttled_why
    assert len(found.series) == 300
    assert found.seconds == pytest.approx(300.0, abs=0.2)
    assert sum(row.fps for row in found.series) == pytest.approx(found.frames, rel=0.01)
    assert found.max_temperature_c["cpu-thermal"] == pytest.approx(80.0, abs=0.5)
    assert {row.clock_mhz for row in found.series} == {1500.0, 825.0}
    assert found.events[0].at_s == pytest.approx(hot_s, abs=1.1)
    assert {event.kind for event in found.events} == {"throttled"}, "it does not cool down again"
    assert found.sustained.p50_ms > 1.5 * min(row.p50_ms for row in found.series)
    assert (found.threads, found.file_sha256) == (2, "f" * 64)


def test_power_is_gross_and_above_idle(board: WarmBoard, classifier: Subject) -> None:
    found = run(board, classifier, SoakPlan(60.0))
    assert found.power is not None
    assert found.power.idle_w == pytest.approx(3.0, abs=0.05)
    assert found.power.mean_w == pytest.approx(8.0, abs=0.1)
    assert found.power.mj_per_frame == pytest.approx(8.0 * 100.0, rel=0.02)
    assert found.power.mj_per_frame_above_idle == pytest.approx(5.0 * 100.0, rel=0.03)
    assert found.power.sensor == "hwmon ina219 power1_input"
    assert found.series[30].watts == pytest.approx(8.0, abs=0.01)


def test_paced_it_keeps_the_rate_until_it_is_too_slow(board: WarmBoard, classifier: Subject) -> None:
    found = run(board, classifier, SoakPlan(240.0, fps=8.0))
    assert found.first_fps == pytest.approx(8.0, abs=0.1)
    assert found.sustained_fps == pytest.approx(5.5, rel=0.03)
    assert found.frames + found.dropped == pytest.approx(240 * 8, abs=3)
    assert found.dropped > 0
    assert found.paced_fps == 8.0


def test_paced_within_its_means_it_never_throttles(board: WarmBoard, classifier: Subject) -> None:
    board.limit_c = 200.0
    found = run(board, classifier, SoakPlan(60.0, fps=5.0))
    assert (found.throttled_s, found.throttled_why, found.dropped) == (None, "", 0)
    assert found.frames == 300
    assert {round(row.fps, 1) for row in found.series} == {5.0}
    assert found.kept == pytest.approx(1.0)


def test_stopped_early_it_gives_what_it_has(board: WarmBoard, classifier: Subject) -> None:
    found = run(board, classifier, SoakPlan(600.0), stop_s=30.0)
    assert found.ended == "stopped early"
    assert found.asked_s == 600.0
    assert 20 < found.seconds < 30
    assert len(found.series) == pytest.approx(found.seconds, abs=1)
    assert found.sustained.samples > 0


def test_stopped_before_its_first_second_it_has_nothing(board: WarmBoard, classifier: Subject) -> None:
    with pytest.raises(UsageError, match="stopped before its first second"):
        run(board, classifier, SoakPlan(600.0), stop_s=0.5)


def test_a_short_soak_has_a_shorter_first_stretch(board: WarmBoard, classifier: Subject) -> None:
    found = run(board, classifier, SoakPlan(8.0), power=False)
    assert found.first_s == 2.0
    assert found.power is None
    assert found.series[0].watts is None
    assert len(found.series) == 8


def test_a_model_slower_than_a_second_has_one_row_a_frame(board: WarmBoard, classifier: Subject) -> None:
    board.frame_s, board.limit_c = 2.5, 200.0
    found = run(board, classifier, SoakPlan(30.0))
    assert len(found.series) == found.frames == 12
    assert found.sustained_fps == pytest.approx(0.4)
    assert found.series[0].p95_ms is None


def test_a_long_soak_keeps_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_TIMES", 900)
    times = module._Times()
    for index in range(20_000):
        times.add(float(index % 32))
    assert 300 <= len(times.kept) < 900
    assert np.mean(times.kept) == pytest.approx(15.5, abs=0.7), "no part of the cycle is preferred"


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (SoakPlan(0.5), "soak of 0.5 s"),
        (SoakPlan(90_000.0), "1 s to 24 h"),
        (SoakPlan(10.0, fps=0.0), "fps is 0"),
        (SoakPlan(10.0, fps=float("nan")), "fps is nan"),
    ],
)
def test_plans_that_cannot_be_run(classifier: Subject, board: WarmBoard, plan: SoakPlan, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        run(board, classifier, plan)


def test_it_needs_a_picture(classifier: Subject, board: WarmBoard) -> None:
    with pytest.raises(UsageError, match="no picture"):
        soak(classifier, [], plan=SoakPlan(1.0), watch=Sampler(root=board.root))


def rows(rates: list[float]) -> list[SoakSecond]:
    return [SoakSecond(float(index + 1), fps, 1000 / fps, None) for index, fps in enumerate(rates)]


@pytest.mark.parametrize(
    ("rates", "at_s"),
    [
        ([30.0] * 60, None),
        ([30.0] * 20 + [26.0] * 5, 20.0),
        ([30.0] * 20 + [26.0] * 4 + [30.0] * 30, None),
        ([30.0] * 20 + [27.5] * 30, None),
        ([20.0] * 6 + [30.0] * 40, None),
    ],
)
def test_a_lower_rate_counts_from_its_beginning_after_five_seconds(rates: list[float], at_s: float | None) -> None:
    found, why = time_to_throttle(rows(rates), first_s=10.0, first_fps=30.0)
    assert found == at_s
    assert ("fell below 27.0" in why) == (at_s is not None)


def test_a_flag_counts_at_once() -> None:
    series = rows([30.0] * 10)
    series[3] = replace(series[3], flags=("under-voltage", "throttled"))
    assert time_to_throttle(series, first_s=5.0, first_fps=30.0) == (4.0, "under-voltage")
