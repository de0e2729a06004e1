"""A soak in every form of the report: the same figures, charts over time, and words that cannot run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.core.figures import (
    LatencyFigures,
    LoopEvent,
    MachineFacts,
    Percentiles,
    PowerFigures,
    SoakFigures,
    SoakSecond,
    Verdict,
)
from edgecv.report.outcome import overall_outcome
from edgecv.report.power import event_lines, mj_text, power_facts
from edgecv.report.render import render_all, render_html, render_markdown, render_text
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.report.soak import series_rows

HOT = "Raspberry Pi firmware: throttled"


def second(at_s: int) -> SoakSecond:
    hot = at_s > 192
    return SoakSecond(
        at_s=float(at_s),
        fps=21.5 if hot else 30.0,
        p50_ms=46.5 if hot else 33.0,
        p95_ms=51.0 if hot else 35.0,
        temperature_c=min(80.0, 45.0 + at_s * 0.18),
        clock_mhz=1000.0 if hot else 1500.0,
        fan=min(1.0, at_s / 300),
        watts=5.0 if hot else 6.4,
        flags=(HOT,) if hot else (),
    )


TIMES = Percentiles(33.0, 34.0, 35.0, 51.0, 88.0, 35.0, 1.0, 15_000)
SOAK = SoakFigures(
    seconds=600.02,
    asked_s=600.0,
    frames=15_000,
    dropped=0,
    paced_fps=None,
    first_s=60.0,
    first_fps=30.0,
    sustained_fps=21.5,
    kept=21.5 / 30,
    end_to_end=TIMES,
    sustained=replace(TIMES, p50_ms=46.5),
    throttled_s=193.0,
    throttled_why=HOT,
    series=tuple(second(at_s) for at_s in range(1, 601)),
    events=(LoopEvent(192.4, "throttled", HOT),),
    power=PowerFigures(
        "INA3221 VDD_IN",
        "the module",
        3000,
        599.8,
        3210.0,
        5.35,
        7.1,
        2.75,
        214.0,
        104.0,
        {"VDD_IN": 5.35, "VDD_SOC": 1.2},
    ),
    max_temperature_c={"cpu-thermal": 80.0, "gpu-thermal": 74.0},
)


def report(soak: SoakFigures = SOAK, *verdicts: Verdict, target: str = "raspberry-pi-4") -> Report:
    item = ArtifactFigures(
        target, "Detector", "litert", "int8", "optimized", "measured", file_bytes=250_000, verdicts=verdicts, soak=soak
    )
    return Report(
        name="detector",
        edgecv_version="0.1.0",
        created="2026-01-02T03:04:05+00:00",
        outcome=overall_outcome((item,)),
        machine=MachineFacts("Linux", "aarch64", "Cortex-A72", 4, 4000, "3.11.2", board="Board", power_mode="15W"),
        artifacts=(item,),
        steps=(),
        seconds=608.0,
    )


def test_text_says_what_is_left_and_by_which_sensor() -> None:
    text = render_text(report())
    assert "21.5 per second (median of the last quarter)" in text
    assert "after 3 min 13 s: Raspberry Pi firmware: throttled, held back in 68% of the time" in text
    assert "5.35 W on average, 7.10 W at most, 2.75 W idle before" in text
    assert "214 mJ gross, 104 mJ above idle (3,210 J in 10 min 00 s)" in text
    assert "INA3221 VDD_IN, 3,000 looks: the module" in text
    assert "VDD_IN 5.35 W, VDD_SOC 1.20 W" in text
    assert "3 min 12 s  throttled: Raspberry Pi firmware: throttled" in text
    assert "power mode 15W" in text
    assert "72% of the first minute" in text
    assert "✓ PASS" in text, "throttling does not void a soak"
    assert max(map(len, text.splitlines())) <= 120


def test_a_soak_without_trouble_and_without_a_sensor() -> None:
    calm = tuple(replace(row, flags=(), watts=None) for row in SOAK.series)
    text = render_text(report(replace(SOAK, throttled_s=None, throttled_why="", power=None, events=(), series=calm)))
    assert re.search("throttled +not in 10 min 00 s", text)
    assert "energy" not in text
    page = render_html(report(replace(SOAK, power=None, series=calm)))
    assert "no power sensor answered" in page
    assert "power, W" not in page
    assert 'class="held"' not in page


def test_a_stopped_soak_says_so() -> None:
    text = render_text(report(replace(SOAK, seconds=240.0, ended="stopped early")))
    assert "stopped early; 10 min 00 s were asked for" in text


def test_a_budget_of_a_soak_fails_the_report() -> None:
    bad = report(SOAK, Verdict("soak.fps.min", 25.0, 21.5, "per second", "fail"))
    assert bad.outcome == "fail"
    for text in (render_text(bad), render_markdown(bad), render_html(bad)):
        assert "sustained rate 21.5 per second, at least 25 per second" in text


def test_markdown_has_the_facts_and_a_folded_table() -> None:
    text = render_markdown(report())
    assert "- sustained rate: 21.5 per second" in text
    assert "| from start | fps |" in text
    assert len(text) < 20_000


def test_the_page_has_charts_tiles_and_figures_that_read_back() -> None:
    page = render_html(report())
    for title in ("frames per second", "end to end, ms", "hottest zone, °C", "clock, MHz", "power, W"):
        assert title in page
    assert page.count('class="chart chart-wide"') == page.count('class="chart chart-narrow"') == 1
    assert 'data-field="sustained_fps" data-value="21.5"' in page
    assert 'data-field="throttled_s" data-value="193.0"' in page
    assert 'data-field="mj_per_frame" data-value="214.0"' in page
    assert "throttled at 3:13 min" in page
    assert "frames per second: 21.5 to 30.0, at the end 21.5" in page
    assert len(page) < 150_000


def test_a_day_of_seconds_is_still_a_page() -> None:
    day = tuple(replace(second(1), at_s=float(at_s)) for at_s in range(1, 86_401))
    page = render_html(report(replace(SOAK, series=day, seconds=86_400.0)))
    assert len(page) < 200_000
    assert len(series_rows(replace(SOAK, series=day))) <= 30


def test_hostile_words_do_not_run() -> None:
    bad = "</svg><script>window.hacked=1</script>|`x`"
    events = (LoopEvent(1.0, bad, bad),)
    power = replace(SOAK.power, sensor=bad, covers=bad, rails_w={bad: 1.0, "b": 2.0})  # type: ignore[type-var]
    soak = replace(SOAK, throttled_why=bad, events=events, power=power, max_temperature_c={bad: 1.0})
    soak = replace(soak, series=tuple(replace(row, flags=(bad,)) for row in soak.series))
    assert "<script>window" not in render_html(report(soak, target=bad))
    assert "<script>" not in render_markdown(report(soak, target=bad))


def test_it_comes_back_from_json(tmp_path: Path) -> None:
    render_all(report(), tmp_path)
    assert read_report(tmp_path) == report()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_series(count: int) -> None:
    short = replace(SOAK, series=SOAK.series[:count], seconds=float(count), throttled_s=None, throttled_why="")
    page = render_html(report(short))
    assert ('class="chart chart-wide"' in page) == (count > 1)


def test_gaps_break_the_line() -> None:
    gap = tuple(replace(row, watts=None) if 100 < row.at_s < 400 else row for row in SOAK.series)
    page = render_html(report(replace(SOAK, series=gap)))
    paths = re.findall('class="run" d="([^"]+)"|d="([^"]+)" class="run"', page)
    assert max((one or two).count("M") for one, two in paths) == 2


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5 mJ"), (9.414, "9.41 mJ"), (214.0, "214 mJ"), (2310.0, "2.31 J"), (-3.2, "-3.2 mJ")]
)
def test_energy_in_words(value: float, text: str) -> None:
    assert mj_text(value) == text


def test_many_events_are_cut_and_counted() -> None:
    lines = event_lines(tuple(LoopEvent(float(n), "throttled", "throttled: cpu") for n in range(20)))
    assert len(lines) == 13
    assert lines[0] == "0.0 s  throttled: cpu", "the word stands once"
    assert lines[-1] == "and 8 more"


def test_power_without_idle_or_frames() -> None:
    facts = dict(power_facts(PowerFigures("RAPL package-0", "packages", 3, 2.0, 9.0, 4.5, 5.0)))
    assert facts["power"] == "4.50 W on average, 5.00 W at most"
    assert "energy per frame" not in facts


def test_a_void_measurement_shows_when_it_was_throttled() -> None:
    times = replace(TIMES, samples=1024)
    latency = LatencyFigures(
        times,
        times,
        times,
        None,
        None,
        None,
        10,
        60.0,
        False,
        4,
        invalid=HOT,
        events=(LoopEvent(12.0, "throttled", HOT),),
    )
    base = report()
    item = replace(base.artifacts[0], soak=None, latency=latency)
    void = replace(base, artifacts=(item,), outcome=overall_outcome((item,)))
    assert void.outcome == "inconclusive"
    for text in (render_text(void), render_markdown(void), render_html(void)):
        assert re.search(f"12 s +throttled: {HOT}", text)
