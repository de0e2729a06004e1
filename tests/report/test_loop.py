"""A camera loop in every form of the report: the same figures, in the pipeline's order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgecv.core.figures import LoopEvent, LoopFigures, MachineFacts, Percentiles, SinkFigures, StageFigures
from edgecv.report.render import render_all, render_html, render_markdown, render_text
from edgecv.report.schema import Report
from edgecv.report.schema_io import read_report


def times(p50_ms: float) -> Percentiles:
    return Percentiles(p50_ms, p50_ms * 1.2, p50_ms * 1.5, None, p50_ms * 3, p50_ms, 0.1, 600)


LOOP = LoopFigures(
    camera_name="car.mp4",
    frames=600,
    seconds=20.5,
    fps=29.3,
    policy="latest",
    age=times(41.0),
    end_to_end=times(36.0),
    stages=(StageFigures("wait", times(3.0)), StageFigures("infer", times(21.5)), StageFigures("decode", times(1.25))),
    camera={"frames": 600, "dropped": 12, "reconnects": 2, "corrupt": 0, "size_changes": 0},
    sinks=(SinkFigures("jsonl=<b>.jsonl", 590, 10, 0, "disk | full"),),
    failed=3,
    deadline_ms=50.0,
    deadline_misses=6,
    levels={"fp16": 500, "int8": 100},
    temperature_c={"cpu-thermal": 71.5},
    events=(LoopEvent(3.5, "camera lost", "gone"),),
    events_seen=1,
    ended="the stream ended",
)
REPORT = Report(
    name="car.mp4",
    edgecv_version="0.1.0",
    created="2026-01-02T03:04:05+00:00",
    outcome="pass",
    machine=MachineFacts("Linux", "aarch64", "Cortex-A76", 4, 8000, "3.11.2"),
    artifacts=(),
    steps=(),
    seconds=20.5,
    loop=LOOP,
)


def test_text_has_the_stages_in_order_and_what_happened() -> None:
    text = render_text(REPORT)
    lines = text.splitlines()
    order = [next(i for i, line in enumerate(lines) if line.startswith(name)) for name in ("wait", "infer", "decode")]
    assert order == sorted(order)
    assert "21.5" in lines[order[1]]
    assert "15 (12 dropped for a newer one, 3 failed)" in text
    assert "6 frames (1.00%) later than 50 ms" in text
    assert "reconnects 2" in text
    assert "fp16 500 frames, int8 100 frames" in text
    assert "cpu-thermal 72 °C" in text
    assert max(map(len, lines)) <= 120


def test_markdown_is_inert() -> None:
    text = render_markdown(REPORT)
    assert "| infer | 21.5 |" in text
    assert "<b>" not in text
    assert "disk \\| full" in text


def test_html_has_figures_that_can_be_read_back() -> None:
    page = render_html(REPORT)
    assert 'data-field="infer.p50_ms" data-value="21.5"' in page
    assert "&lt;b&gt;.jsonl" in page
    assert "3.5 s" in page
    assert "600 frames at 29.3 per second, half of them no older than 41.0 ms" in page


def test_it_comes_back_from_json(tmp_path: Path) -> None:
    render_all(REPORT, tmp_path)
    assert read_report(tmp_path / "report.json") == REPORT


def test_a_throttled_run_is_no_measurement() -> None:
    page = render_html(replace(REPORT, outcome="inconclusive", loop=replace(LOOP, invalid="throttled: cpu")))
    assert "These times are no measurement: throttled: cpu" in page
    assert "The times are no measurement: throttled: cpu." in page
