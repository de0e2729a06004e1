"""Accuracy against latency as inline SVG, drawn by our own code: no library, no request, no script."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from edgecv.core.figures import Interval
from edgecv.core.kinds import lower_is_better
from edgecv.report.axes import Axis, Box, Label, linear_axis, log_axis, place_labels
from edgecv.report.html import Html, el, join
from edgecv.report.outcome import artifact_outcome
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.words import clean, drop_unit, metric_interval_text, metric_name, metric_text, ms_text, short

__all__ = ["Point", "chart", "chart_points", "left_out", "pareto"]

LOG_FROM = 12.0
"""The time axis is logarithmic where the slowest point takes so many times the fastest."""

_WIDE = (1200.0, 440.0)
_NARROW = (360.0, 380.0)
_CROWDED = {"wide": 18, "narrow": 3}
_CHAR_PX = 6.9


@dataclass(frozen=True)
class Point:
    """One artifact in the chart. ``number`` counts from 1 in the report's order of plotted artifacts."""

    number: int
    artifact: ArtifactFigures
    ms: float
    p95_ms: float | None
    value: float
    interval: Interval | None

    @property
    def good(self) -> float:
        """The value of a metric, or of an error its opposite: more is better."""
        accuracy = self.artifact.accuracy
        return -self.value if accuracy is not None and lower_is_better(accuracy.metric) else self.value

    @property
    def name(self) -> str:
        """``raspberry-pi-5`` or ``raspberry-pi-5 float``."""
        return clean(self.artifact.target) + (" float" if self.artifact.role == "float" else "")


def chart_points(report: Report) -> tuple[Point, ...]:
    """The artifacts that have both an accuracy and a valid time: all others are never plotted."""
    points: list[Point] = []
    for item in report.artifacts:
        if _why_left_out(item, _metric(report)) or item.latency is None or item.accuracy is None:
            continue
        times = item.latency.end_to_end
        accuracy = item.accuracy
        points.append(Point(len(points) + 1, item, times.p50_ms, times.p95_ms, accuracy.value, accuracy.interval))
    return tuple(points)


def left_out(report: Report) -> tuple[tuple[ArtifactFigures, str], ...]:
    """The artifacts that the chart does not show, each with the reason in words."""
    found = [(item, _why_left_out(item, _metric(report))) for item in report.artifacts]
    return tuple((item, why) for item, why in found if why)


def pareto(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points that no other beats in both time and accuracy, fastest first; a broken file is no offer."""
    front: list[Point] = []
    for point in sorted(points, key=lambda item: (item.ms, -item.good)):
        ladder = point.artifact.ladder
        if ladder is not None and ladder.first_broken is not None:
            continue
        if not front or point.good > front[-1].good:
            front.append(point)
    return tuple(front)


def chart(report: Report) -> Html | None:
    """The chart for wide and for narrow screens (style shows one of them); None with nothing to plot."""
    points = chart_points(report)
    if not points:
        return None
    return join([_draw(points, _WIDE, "wide"), _draw(points, _NARROW, "narrow")])


def is_crowded(points: Sequence[Point], size: str) -> bool:
    """Whether points carry numbers (with a key beside) because names would not fit."""
    return len(points) > _CROWDED[size]


def tip(point: Point) -> str:
    """What the chart tells about a point when asked: a few lines."""
    item = point.artifact
    metric = item.accuracy.metric if item.accuracy is not None else ""
    value = metric_text(metric, point.value)
    interval = metric_interval_text(metric, point.interval)
    lines = [point.name, f"{metric_name(metric)} {value}" + (f" ({interval})" if interval else "")]
    lines.append(f"p50 {ms_text(point.ms)} ms" + (f", p95 {ms_text(point.p95_ms)} ms" if point.p95_ms else ""))
    lines.append(f"{clean(item.backend)} {clean(item.precision)}, {item.tag}")
    return "\n".join(lines)


def _metric(report: Report) -> str:
    return next((item.accuracy.metric for item in report.artifacts if item.accuracy is not None), "")


def _why_left_out(item: ArtifactFigures, metric: str) -> str:
    if item.error or item.failed_step:
        return f"failed at {clean(item.failed_step) or 'build'}"
    if item.tag == "deferred":
        return "deferred: built and measured on the device"
    if item.latency is None:
        return "not timed here" if item.accuracy is not None else "not measured"
    if item.latency.invalid:
        return f"times are invalid: {clean(item.latency.invalid)}"
    if item.latency.end_to_end.p50_ms <= 0:
        return "times are invalid: not above 0"
    if item.accuracy is None:
        return "accuracy not measured"
    return "" if item.accuracy.metric == metric else f"judged by another metric, {clean(item.accuracy.metric)}"


def _draw(points: Sequence[Point], size: tuple[float, float], kind: str) -> Html:
    width, height = size
    narrow = kind == "narrow"
    plot = Box(52 if narrow else 62, 26, width - (10 if narrow else 18), height - 46)
    times = [point.ms for point in points] + [point.p95_ms for point in points if point.p95_ms]
    if max(times) / min(times) >= LOG_FROM:
        x = log_axis(times, start=plot.left, end=plot.right, count=5 if narrow else 9)
    else:
        x = linear_axis([*times, min(times) * 0.85], start=plot.left, end=plot.right, count=4 if narrow else 8)
    bounds = [bound for p in points if p.interval for bound in (p.interval.low, p.interval.high)]
    metric = points[0].artifact.accuracy.metric if points[0].artifact.accuracy is not None else ""
    floor = 0.004 if drop_unit(metric) == "points" else 0.2
    ends = (plot.top, plot.bottom) if lower_is_better(metric) else (plot.bottom, plot.top)  # what is better lies above
    y = linear_axis([p.value for p in points] + bounds, start=ends[0], end=ends[1], count=6, floor=floor)
    texts = [str(point.number) if is_crowded(points, kind) else short(point.name, 34) for point in points]
    labels = _labels(points, texts, (x, y), plot)
    marks = [_mark(*parts, axes=(x, y)) for parts in zip(points, texts, labels, strict=True)]
    about = f"{metric_name(metric)} against median latency of {len(points)} model files; all figures are in the table"
    return el(
        "svg",
        _grid(x, y, plot, metric),
        _front(points, x, y, plot),
        *marks,
        viewBox=f"0 0 {width:g} {height:g}",
        class_=f"chart chart-{kind}",
        role="group",
        aria_label=about,
    )


def _labels(points: Sequence[Point], texts: list[str], axes: tuple[Axis, Axis], plot: Box) -> tuple[Label, ...]:
    x, y = axes
    front = _front_corners(pareto(points), axes, plot)
    bars = [Box(min(a, c), min(b, d) - 2, max(a, c), max(b, d) + 2) for (a, b), (c, d) in itertools.pairwise(front)]
    for point in points:
        at_x, at_y = x.at(point.ms), y.at(point.value)
        if point.interval is not None:
            edges = sorted((y.at(point.interval.high), y.at(point.interval.low)))
            bars.append(Box(at_x - 4, edges[0], at_x + 4, edges[1]))
        if point.p95_ms:
            bars.append(Box(at_x, at_y - 3, x.at(point.p95_ms), at_y + 3))
    spots = [(x.at(point.ms), y.at(point.value)) for point in points]
    return place_labels(spots, [len(text) * _CHAR_PX for text in texts], bars, inside=plot, height=15)


def _grid(x: Axis, y: Axis, plot: Box, metric: str) -> Html:
    parts = []
    percent = metric_text(metric, 0.0).endswith("%")
    scale_y = 100.0 if percent else 1.0
    digits = _digits([tick * scale_y for tick in y.ticks])
    for tick in y.ticks:
        text = f"{tick * scale_y:.{digits}f}"
        parts.append(_line(plot.left, y.at(tick), plot.right, y.at(tick), "grid"))
        parts.append(el("text", text, x=_px(plot.left - 8), y=_px(y.at(tick) + 4), class_="tick", text_anchor="end"))
    for tick in x.ticks:
        parts.append(_line(x.at(tick), plot.top, x.at(tick), plot.bottom, "grid"))
        parts.append(
            el("text", f"{tick:.6g}", x=_px(x.at(tick)), y=_px(plot.bottom + 18), class_="tick", text_anchor="middle")
        )
    parts.append(_line(plot.left, plot.bottom, plot.right, plot.bottom, "axis"))
    scale = " (log scale)" if x.log else ""
    own = drop_unit(metric)
    unit = ", %" if percent else "" if own == "points" else f", {own}"
    middle = _px((plot.left + plot.right) / 2)
    below = f"end-to-end latency, p50 to p95, ms{scale}"
    parts.append(el("text", below, x=middle, y=_px(plot.bottom + 38), class_="name", text_anchor="middle"))
    less = " (less is better)" if lower_is_better(metric) else ""
    parts.append(el("text", f"{metric_name(metric)}{unit}{less}", x=_px(plot.left - 44), y="14", class_="name"))
    return el("g", *parts, aria_hidden="true")


def _front(points: Sequence[Point], x: Axis, y: Axis, plot: Box) -> Html:
    front = pareto(points)
    if not front:
        return Html("")
    corners = _front_corners(front, (x, y), plot)
    path = "M" + "L".join(f"{_px(across)} {_px(down)}" for across, down in corners)
    return el("path", d=path, class_="front", aria_hidden="true")


def _digits(ticks: Sequence[float]) -> int:
    """How many decimals keep every tick's text true to its place."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    return next((n for n in range(9) if all(abs(round(t, n) - t) < step * 0.01 for t in ticks)), 9)


def _front_corners(front: Sequence[Point], axes: tuple[Axis, Axis], plot: Box) -> list[tuple[float, float]]:
    if not front:
        return []
    x, y = axes
    corners = [(x.at(front[0].ms), plot.bottom)]
    for point in front:
        corners += [(x.at(point.ms), corners[-1][1]), (x.at(point.ms), y.at(point.value))]
    return [*corners[2:], (plot.right, corners[-1][1])]


def _mark(point: Point, text: str, label: Label, *, axes: tuple[Axis, Axis]) -> Html:
    x, y = axes
    at_x, at_y = x.at(point.ms), y.at(point.value)
    parts = []
    if point.interval is not None:
        high, low = y.at(point.interval.high), y.at(point.interval.low)
        bar = f"M{_px(at_x)} {_px(high)}V{_px(low)}M{_px(at_x - 4)} {_px(high)}h8M{_px(at_x - 4)} {_px(low)}h8"
        parts.append(el("path", d=bar, class_="bar"))
    if point.p95_ms:
        parts.append(el("path", d=f"M{_px(at_x)} {_px(at_y)}H{_px(x.at(point.p95_ms))}m0 -3v6", class_="bar"))
    if label.leader:
        end = min(max(at_x, label.box.left), label.box.right)
        near = label.box.top if label.box.top > at_y else min(label.box.bottom, at_y)
        parts.append(_line(at_x, at_y, end, near, "leader"))
    parts.append(_shape(point, at_x, at_y))
    parts.append(el("text", text, x=_px(label.x), y=_px(label.y), class_="label"))
    item = point.artifact
    outcome = "float" if item.role == "float" else artifact_outcome(item)
    return el(
        "g",
        *parts,
        class_=f"point {outcome} {item.tag}",
        role="img",
        tabindex="0",
        aria_label=tip(point).replace("\n", ", "),
        data_tip=tip(point),
        data_point=clean(item.target),
        data_role=item.role,
        data_ms=repr(point.ms),
        data_value=repr(point.value),
    )


def _shape(point: Point, at_x: float, at_y: float) -> Html:
    if point.artifact.role == "float":
        diamond = f"M{_px(at_x)} {_px(at_y - 6.5)}l6.5 6.5l-6.5 6.5l-6.5 -6.5z"
        return el("path", d=diamond, class_="dot")
    return el("circle", cx=_px(at_x), cy=_px(at_y), r="5.5", class_="dot")


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return el("path", d=f"M{_px(x1)} {_px(y1)}L{_px(x2)} {_px(y2)}", class_=class_)


def _px(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
