"""Energy from watts and from counters, on a clock that the test moves."""

from __future__ import annotations

import time

import pytest

from edgecv.measure.energy import PowerMeter, open_meter
from edgecv.measure.power import PowerReading


class Scripted:
    """Says what it is told to."""

    name, covers, every_s = "scripted", "nothing real", 0.01

    def __init__(self) -> None:
        self.now: PowerReading | None = PowerReading(watts=0.0)
        self.now_s = 0.0
        self.reads = 0

    def read(self) -> PowerReading | None:
        self.reads += 1
        return self.now

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def sensor() -> Scripted:
    return Scripted()


@pytest.fixture
def meter(sensor: Scripted) -> PowerMeter:
    return PowerMeter(sensor, clock=sensor.clock)


def feed(sensor: Scripted, meter: PowerMeter, *points: tuple[float, float | None]) -> None:
    for at_s, watts in points:
        sensor.now_s, sensor.now = at_s, None if watts is None else PowerReading(watts=watts, rails_w={"A": watts / 2})
        meter.sample()


def test_watts_are_integrated_by_the_trapezoid_rule(sensor: Scripted, meter: PowerMeter) -> None:
    feed(sensor, meter, (0, 2.0), (1, 4.0), (3, 4.0))
    found = meter.figures(seconds=3.0, frames=30, idle_w=2.0)
    assert found is not None
    assert found.joules == pytest.approx(3.0 + 8.0)
    assert found.mean_w == pytest.approx(11 / 3)
    assert (found.peak_w, found.samples, found.seconds) == (4.0, 3, 3.0)
    assert found.mj_per_frame == pytest.approx(11_000 / 30)
    assert found.mj_per_frame_above_idle == pytest.approx(5_000 / 30)
    assert found.rails_w == {"A": pytest.approx(10 / 6)}
    assert (found.sensor, found.covers) == ("scripted", "nothing real")


def test_a_counter_is_subtracted(sensor: Scripted, meter: PowerMeter) -> None:
    for at_s, joules in ((0.0, 100.0), (1.0, 105.0), (2.0, 125.0), (2.01, 126.0)):
        sensor.now_s, sensor.now = at_s, PowerReading(joules=joules)
        meter.sample()
    found = meter.figures(seconds=2.01, frames=10)
    assert found is not None
    assert found.joules == pytest.approx(26.0)
    assert found.peak_w == pytest.approx(20.0), "10 ms of a counter tell no peak"
    assert found.idle_w is None
    assert found.mj_per_frame_above_idle is None


def test_a_stretch_without_answers_is_left_out(sensor: Scripted, meter: PowerMeter) -> None:
    feed(sensor, meter, (0, 5.0), (1, 5.0), (2, None), (8, 5.0), (9, 5.0))
    found = meter.figures(seconds=9.0, frames=9)
    assert found is not None
    assert (found.seconds, found.joules) == (2.0, 10.0)
    assert found.mean_w == 5.0
    assert found.mj_per_frame == pytest.approx(5000.0), "the mean holds for the whole run"


def test_laps_are_means_since_the_one_before(sensor: Scripted, meter: PowerMeter) -> None:
    sensor.now = PowerReading(watts=3.0)
    assert meter.lap() == 3.0, "the first has only one look"
    feed(sensor, meter, (0.5, 5.0))
    sensor.now_s = 1.0
    assert meter.lap() == pytest.approx((2.0 + 2.5) / 1.0)
    assert meter.lap() == pytest.approx(4.5), "no time has passed"
    sensor.now, sensor.now_s = None, 2.0
    assert meter.lap() is None


def test_it_starts_anew(sensor: Scripted, meter: PowerMeter) -> None:
    feed(sensor, meter, (0, 50.0), (1, 50.0))
    meter.restart()
    assert meter.mean_w is None
    assert meter.figures(seconds=1.0, frames=1) is None
    feed(sensor, meter, (10, 2.0), (11, 2.0))
    found = meter.figures(seconds=1.0, frames=0)
    assert found is not None
    assert (found.joules, found.peak_w, found.mj_per_frame) == (2.0, 2.0, None)


def test_it_looks_by_itself_while_running(sensor: Scripted) -> None:
    meter = PowerMeter(sensor)
    with meter.running():
        deadline_s = time.monotonic() + 5
        while sensor.reads < 3 and time.monotonic() < deadline_s:
            time.sleep(0.005)
    seen = sensor.reads
    assert seen >= 3
    time.sleep(0.05)
    assert sensor.reads == seen, "it ends with the block"


def test_a_machine_without_a_sensor(tmp_path: object) -> None:
    assert open_meter(tmp_path) == (None, ())  # type: ignore[arg-type]
