"""Heat and power of the board under a loop: events in time, watts by rail, energy per frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.core.figures import LoopEvent, PowerFigures
from edgecv.core.stream import LoopStatus
from edgecv.measure.energy import PowerMeter
from edgecv.measure.host import Sampler
from edgecv.measure.power import find_power
from edgecv.report.render import render_html, render_markdown, render_text
from edgecv.runtime.prometheus import exposition
from edgecv.runtime.vitals import Vitals, open_vitals
from tests.measure.boards import THROTTLED, orin_nano, write
from tests.report.test_loop import LOOP, REPORT


class Clock:
    """Moved by the test."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def vitals(root: Path, clock: Clock) -> Vitals:
    sensor, _ = find_power(root)
    assert sensor is not None
    return Vitals(Sampler(root=root, clock=clock), PowerMeter(sensor, clock=clock))


def test_power_by_rail_and_for_each_frame(tmp_path: Path) -> None:
    orin_nano(tmp_path)
    clock = Clock()
    board = vitals(tmp_path, clock)
    board.start()
    for second in range(1, 11):
        clock.now_s = float(second)
        board.look(lambda kind, text: None)
    assert board.power_w == pytest.approx({"VDD_IN": 7.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.5, "total": 7.0})
    found = board.power_figures(frames=250, fps=25.0)
    assert found is not None
    assert found.mj_per_frame == pytest.approx(280.0)
    assert board.temperature_c == {"cpu-thermal": 48.125}


def test_no_frame_has_no_energy(tmp_path: Path) -> None:
    orin_nano(tmp_path)
    clock = Clock()
    board = vitals(tmp_path, clock)
    board.start()
    clock.now_s = 1.0
    board.look(lambda kind, text: None)
    found = board.power_figures(frames=0, fps=0.0)
    assert found is not None
    assert found.mj_per_frame is None


def test_changes_are_told_once_with_their_kind(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    board = Vitals(Sampler(root=tmp_path))
    board.start()
    for word in ("0", "4", "4", "50005", "0"):
        write(tmp_path, {THROTTLED: word})
        board.look(lambda kind, text: told.append((kind, text)))
    assert [kind for kind, _ in told] == ["heat", "power", "heat"]
    assert told[0][1] == "Raspberry Pi firmware: throttled"
    assert told[2][1] == "nothing holds the board back any more"


def test_this_machine_has_vitals() -> None:
    board = open_vitals()
    board.start()
    assert isinstance(board.look(lambda kind, text: None).flags, tuple)


def test_metrics_tell_the_total_apart_from_its_parts() -> None:
    status = LoopStatus("running", 1, 25.0, 9, 0, 0, None, None, power_w={"VDD_SOC": 1.5, "total": 7.0})
    lines = exposition(status).splitlines()
    assert 'edgecv_power_watts{rail="total"} 7' in lines
    assert "edgecv_energy_per_frame_joules 0.28" in lines
    still = exposition(replace(status, fps=0.0))
    assert "energy_per_frame" not in still
    assert "power_watts" not in exposition(replace(status, power_w={}))


def test_the_loop_report_shows_energy_and_when_it_was_held_back() -> None:
    power = PowerFigures("INA3221 VDD_IN", "the module", 20, 20.0, 140.0, 7.0, 8.1, mj_per_frame=239.0)
    events = (LoopEvent(12.5, "heat", "cpu is hot"), LoopEvent(14.0, "heat", "nothing holds the board back any more"))
    report = replace(REPORT, loop=replace(LOOP, power=power, events=events))
    for text in (render_text(report), render_markdown(report), render_html(report)):
        assert "239 mJ gross" in text
        assert "INA3221 VDD" in text
        assert "from 12 s: cpu is hot, then 1 change" in text
