"""A soak over time as inline SVG: rate, latency, heat, clock and power below each other, on one time axis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from edgecv.core.figures import SoakFigures, SoakSecond
from edgecv.report.axes import Axis, linear_axis
from edgecv.report.html import Html, el, join

__all__ = ["has_chart", "time_charts"]

_WIDE, _NARROW = 1200.0, 360.0
_PANEL, _GAP, _TOP = 92.0, 34.0, 46.0
_POINTS = {"wide": 500, "narrow": 160}
_STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)

Line = Sequence[tuple[float, float]]
"""Seconds from the start, and the value."""


@dataclass(frozen=True)
class _Panel:
    """One diagram: ``soft`` is a second, paler line; ``level`` a dashed line over the last quarter."""

    title: str
    line: Line
    soft: Line = ()
    from_zero: bool = True
    level: tuple[float, str] | None = None
    digits: int = 1


def has_chart(soak: SoakFigures) -> bool:
    """Whether there are at least two seconds to draw a line through."""
    return len(soak.series) > 1


def time_charts(soak: SoakFigures) -> Html:
    """The charts for wide and for narrow screens (style shows one of them)."""
    return join([_draw(soak, _WIDE, "wide"), _draw(soak, _NARROW, "narrow")])


def _panels(soak: SoakFigures) -> list[_Panel]:
    rows = soak.series
    sustained = (soak.sustained_fps, f"sustained {soak.sustained_fps:.1f}")
    found = [
        _Panel("frames per second", _line(rows, "fps"), level=sustained),
        _Panel("end to end, ms: p50, and p95 pale", _line(rows, "p50_ms"), _line(rows, "p95_ms"), digits=2),
        _Panel("hottest zone, °C", _line(rows, "temperature_c"), from_zero=False),
        _Panel("fastest CPU's clock, MHz", _line(rows, "clock_mhz"), digits=0),
        _Panel("GPU's clock, MHz", _line(rows, "gpu_mhz"), digits=0),
        _Panel("power, W", _line(rows, "watts"), digits=2),
    ]
    return [panel for panel in found if len(panel.line) > 1]


def _line(rows: Sequence[SoakSecond], name: str) -> Line:
    return [(row.at_s, value) for row in rows if (value := getattr(row, name)) is not None]


def _draw(soak: SoakFigures, width: float, kind: str) -> Html:
    panels = _panels(soak)
    left, right = (48.0, width - 10) if kind == "narrow" else (62.0, width - 18)
    height = _TOP + len(panels) * (_PANEL + _GAP)
    x = _time_axis(soak.series[-1].at_s, left, right, count=5 if kind == "narrow" else 12)
    parts = []
    for place, panel in enumerate(panels):
        top = _TOP + place * (_PANEL + _GAP)
        parts.append(_held(soak, x, top))
        parts.append(_panel(panel, x, top, last=place == len(panels) - 1, points=_POINTS[kind]))
    if soak.throttled_s is not None:
        parts.append(_throttled(soak.throttled_s, x, height))
    about = f"Rate, latency, heat and power of {len(soak.series)} seconds; the figures are in the table below"
    view = f"0 0 {width:g} {height:g}"
    return el("svg", *parts, viewBox=view, class_=f"chart chart-{kind}", role="group", aria_label=about)


def _panel(panel: _Panel, x: Axis, top: float, *, last: bool, points: int) -> Html:
    values = [value for _, value in (*panel.line, *panel.soft)]
    y = _axis(values, top=top, bottom=top + _PANEL, from_zero=panel.from_zero)
    parts = [el("text", panel.title, x=_px(x.start), y=_px(top - 8), class_="name")]
    for tick in y.ticks:
        parts.append(_stroke(x.start, y.at(tick), x.end, y.at(tick), "grid"))
        parts.append(
            el("text", f"{tick:g}", x=_px(x.start - 8), y=_px(y.at(tick) + 4), class_="tick", text_anchor="end")
        )
    for tick in x.ticks:
        parts.append(_stroke(x.at(tick), top, x.at(tick), top + _PANEL, "grid"))
        if last:
            # The first and the last text must not leave the picture.
            anchor = "start" if tick == 0 else "end" if x.end - x.at(tick) < 16 else "middle"
            where = {"x": _px(x.at(tick)), "y": _px(top + _PANEL + 18), "text_anchor": anchor}
            parts.append(el("text", _time_text(tick), class_="tick", **where))
    parts.append(_stroke(x.start, top + _PANEL, x.end, top + _PANEL, "axis"))
    if panel.soft:
        parts.append(el("path", d=_path(panel.soft, x, y, points), class_="run pale"))
    parts.append(el("path", d=_path(panel.line, x, y, points), class_="run"))
    if panel.level is not None:
        value, text = panel.level
        begin = x.at(x.low + 0.75 * (x.high - x.low))
        parts.append(_stroke(begin, y.at(value), x.end, y.at(value), "front"))
        below = y.at(value) + 16 if y.at(value) < top + _PANEL - 20 else y.at(value) - 7
        parts.append(el("text", text, x=_px(x.end), y=_px(below), class_="label", text_anchor="end"))
    values = [value for _, value in panel.line]
    low, high, end = (f"{value:.{panel.digits}f}" for value in (min(values), max(values), values[-1]))
    return el("g", *parts, role="img", aria_label=f"{panel.title}: {low} to {high}, at the end {end}")


def _held(soak: SoakFigures, x: Axis, top: float) -> Html:
    """Bands where something held the board back."""
    bands, begin = [], 0.0
    for flagged, group in itertools.groupby(soak.series, key=lambda row: bool(row.flags)):
        end = list(group)[-1].at_s
        if flagged:
            width = max(1.5, x.at(end) - x.at(begin))
            place = {"x": _px(x.at(begin)), "width": _px(width), "y": _px(top), "height": _px(_PANEL)}
            bands.append(el("rect", class_="held", **place))
        begin = end
    return el("g", *bands, aria_hidden="true")


def _throttled(at_s: float, x: Axis, height: float) -> Html:
    at_x = min(max(x.at(at_s), x.start), x.end)
    text = f"throttled at {_time_text(round(at_s))}"
    room = x.end - at_x > 8 + 7 * len(text)
    anchor, shift = ("start", 6.0) if room else ("end", -6.0)
    return el(
        "g",
        _stroke(at_x, 4, at_x, height - _GAP, "mark"),
        el("text", text, x=_px(at_x + shift), y="16", class_="label warn", text_anchor=anchor),
        aria_hidden="true",
    )


def _path(line: Line, x: Axis, y: Axis, points: int) -> str:
    """The line through medians of at most so many stretches; broken where nothing was measured for long."""
    size = max(1, -(-len(line) // points))
    groups = [line[first : first + size] for first in range(0, len(line), size)]
    spots = [(median(at for at, _ in group), median(value for _, value in group)) for group in groups]
    longest = 4 * (line[-1][0] - line[0][0]) / max(len(spots) - 1, 1)
    path, before = "", None
    for at_s, value in spots:
        pen = "M" if before is None or at_s - before > longest else "L"
        path += f"{pen}{_px(x.at(at_s))} {_px(y.at(value))}"
        before = at_s
    return path


def _axis(values: Sequence[float], *, top: float, bottom: float, from_zero: bool) -> Axis:
    high = max(values)
    if not from_zero or high <= 0:
        return linear_axis(values, start=bottom, end=top, count=4, floor=8.0)
    around = linear_axis([0.0, high], start=bottom, end=top, count=4)
    limit = high * 1.08
    return Axis(0.0, limit, bottom, top, tuple(tick for tick in around.ticks if -1e-9 <= tick <= limit))


def _time_axis(end_s: float, start: float, end: float, *, count: int) -> Axis:
    step = next((step for step in _STEPS_S if end_s / step <= count), _STEPS_S[-1])
    ticks = tuple(float(tick) for tick in range(0, int(end_s + 0.5) + 1, step))
    return Axis(0.0, max(end_s, 1.0), start, end, ticks)


def _time_text(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min" if not rest else f"{minutes}:{rest:02d} min"
    return f"{minutes // 60} h" if not minutes % 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def _stroke(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return el("path", d=f"M{_px(x1)} {_px(y1)}L{_px(x2)} {_px(y2)}", class_=class_)


def _px(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
