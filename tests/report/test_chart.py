"""The chart's arithmetic and what it may show."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.report.axes import Axis, Box, linear_axis, log_axis, place_labels
from edgecv.report.chart import chart, chart_points, left_out, pareto
from edgecv.report.schema import Report

FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@given(st.lists(FINITE, min_size=1, max_size=8), st.integers(2, 10))
def test_linear_axis_holds_all_values_and_its_ticks(values: list[float], count: int) -> None:
    axis = linear_axis(values, start=0.0, end=100.0, count=count)
    assert axis.low < axis.high
    for value in (*values, *axis.ticks):
        assert -1e-6 <= axis.at(value) <= 100 + 1e-6
    assert 1 <= len(axis.ticks) <= count + 2


@given(st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=8))
def test_log_axis_holds_all_values_and_its_ticks(values: list[float]) -> None:
    axis = log_axis(values, start=50.0, end=500.0, count=9)
    for value in (*values, *axis.ticks):
        assert 50 - 1e-6 <= axis.at(value) <= 500 + 1e-6
    assert len(axis.ticks) <= 9


def test_log_axis_is_logarithmic() -> None:
    axis = Axis(1, 100, 0, 200, (), log=True)
    assert axis.at(10) == pytest.approx(100)


def test_ticks_are_round() -> None:
    axis = linear_axis([0.90, 0.98], start=0, end=1, count=6)
    steps = {round(b - a, 9) for a, b in itertools.pairwise(axis.ticks)}
    assert len(steps) == 1
    assert steps.pop() in (0.01, 0.02, 0.025)


def test_labels_do_not_cover_each_other_where_there_is_room() -> None:
    points = [(100.0 + 30 * i, 200.0 + (i % 3)) for i in range(8)]
    inside = Box(0, 0, 800, 400)
    labels = place_labels(points, [120.0] * 8, [], inside=inside, height=15)
    for one, other in itertools.combinations(labels, 2):
        assert one.box.overlap(other.box) == 0
    for label in labels:
        assert label.box.overlap(inside) == pytest.approx(120 * 15)


def test_only_valid_measurements_are_plotted(passing: Report, inconclusive: Report, failing: Report) -> None:
    assert [point.name for point in chart_points(passing)] == [
        "host-onnxruntime float", "host-onnxruntime", "host-openvino float", "host-openvino",
    ]  # fmt: skip
    beside = {item.target: why for item, why in left_out(passing)}
    assert beside == {
        "raspberry-pi-5": "not timed here",
        "jetson-orin-nano": "deferred: built and measured on the device",
    }
    assert {item.target: why for item, why in left_out(failing)}["iphone-15"] == "failed at compile"
    assert {item.target: why for item, why in left_out(inconclusive)}["host-openvino"].startswith("times are invalid")


def test_a_deferred_artifact_is_never_plotted(passing: Report) -> None:
    timed = replace(passing.artifacts[1], tag="deferred")
    assert chart_points(replace(passing, artifacts=(timed,))) == ()


def test_another_metric_is_not_plotted_on_the_same_axis(passing: Report) -> None:
    item = passing.artifacts[3]
    assert item.accuracy is not None
    other = replace(item, accuracy=replace(item.accuracy, metric="miou"))
    report = replace(passing, artifacts=(passing.artifacts[1], other))
    assert len(chart_points(report)) == 1
    assert "another metric, miou" in left_out(report)[0][1]


def test_pareto_front(passing: Report, failing: Report) -> None:
    front = [point.name for point in pareto(chart_points(passing))]
    assert front == ["host-openvino", "host-onnxruntime", "host-openvino float"]
    # The ladder of host-openvino is broken there: it is no offer, however fast.
    assert "host-openvino" not in [point.name for point in pareto(chart_points(failing))]


def test_of_an_error_less_is_better(passing: Report) -> None:
    """The same figures as errors: only the fastest file and those with fewer errors are offers, drawn higher."""
    errors = tuple(
        replace(item, accuracy=replace(item.accuracy, metric="abs_rel")) if item.accuracy is not None else item
        for item in passing.artifacts
    )
    report = replace(passing, artifacts=errors)
    points = chart_points(report)
    front = pareto(points)
    assert [point.name for point in front] != [point.name for point in pareto(chart_points(passing))]
    values = [point.value for point in front]
    assert values == sorted(values, reverse=True)
    drawn = chart(report)
    assert drawn is not None
    assert "abs_rel (less is better)" in drawn.text


def test_chart_is_well_formed_and_holds_each_point_twice(any_report: Report) -> None:
    drawing = chart(any_report)
    points = chart_points(any_report)
    if not points:
        assert drawing is None
        return
    assert drawing is not None
    root = ET.fromstring(f"<div>{drawing.text}</div>")
    marks = [item for item in root.iter("g") if "data-point" in item.attrib]
    assert len(marks) == 2 * len(points)
    assert [float(mark.attrib["data-ms"]) for mark in marks[: len(points)]] == [point.ms for point in points]
    for path in root.iter("path"):
        assert "nan" not in path.attrib["d"]
        assert re.fullmatch(r"[MLHVhvlmz0-9. -]+", path.attrib["d"])


def test_wide_ranges_get_a_log_axis(many: Report, passing: Report) -> None:
    wide, narrow = chart(many), chart(passing)
    assert wide is not None
    assert narrow is not None
    assert "log scale" in wide.text
    assert "log scale" not in narrow.text


def test_equal_points_and_no_interval_still_draw(passing: Report) -> None:
    item = passing.artifacts[1]
    assert item.accuracy is not None
    flat = replace(item, accuracy=replace(item.accuracy, interval=None, value=1.0))
    drawing = chart(replace(passing, artifacts=(flat, replace(flat, target="other"))))
    assert drawing is not None
    assert "nan" not in drawing.text


def test_tick_labels_are_true(many: Report) -> None:
    drawing = chart(many)
    assert drawing is not None
    ticks = re.findall(r'class="tick" text-anchor="end">([0-9.]+)<', drawing.text)
    values = [float(tick) for tick in ticks[: len(ticks) // 2]]
    steps = {round(b - a, 6) for a, b in itertools.pairwise(values)}
    assert len(steps) == 1
    assert not math.isclose(steps.pop(), 0)
