"""A soak in words, tiles and charts, for every form of the report."""

from __future__ import annotations

from statistics import median

from edgecv.core.figures import SoakFigures, SoakSecond
from edgecv.report.html import Child, Html, el, figure
from edgecv.report.power import event_lines, first_words, mj_text, power_facts, watts_text
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.timechart import has_chart, time_charts
from edgecv.report.words import ABSENT, clean, count_text, ms_text, seconds_text

__all__ = ["SERIES_HEAD", "series_rows", "soak_facts", "soak_section", "soak_tiles", "soaked"]

SERIES_HEAD = ("from start", "fps", "p50 ms", "p95 ms", "°C", "CPU MHz", "W", "held back by")
_ROWS = 30


def soaked(report: Report) -> tuple[tuple[ArtifactFigures, SoakFigures], ...]:
    """The artifacts that have been soaked."""
    return tuple((item, item.soak) for item in report.artifacts if item.soak is not None)


def soak_facts(soak: SoakFigures) -> list[tuple[str, str]]:
    """What happened, as pairs of a name and words; what was not measured is left out."""
    pace = "back to back" if soak.paced_fps is None else f"paced at {soak.paced_fps:g} per second"
    dropped = f", {soak.dropped:,} dropped" if soak.paced_fps is not None else ""
    facts = [
        ("sustained rate", f"{soak.sustained_fps:.1f} per second (median of the last quarter)"),
        ("rate at first", f"{soak.first_fps:.1f} per second (median of the first {first_words(soak)})"),
        ("kept", f"{soak.kept:.1%}"),
        ("throttled", _throttled(soak)),
        ("frames", f"{soak.frames:,} in {seconds_text(soak.seconds)}, {pace}{dropped}"),
        ("end to end", _times(soak, "end_to_end")),
        ("last quarter", _times(soak, "sustained")),
    ]
    if soak.max_temperature_c:
        heat = ", ".join(f"{clean(name)} {value:.0f} °C" for name, value in soak.max_temperature_c.items())
        facts.append(("highest temperature", heat))
    clocks = [row.clock_mhz for row in soak.series if row.clock_mhz is not None]
    if clocks:
        facts.append(("fastest CPU's clock", f"{min(clocks):,.0f} to {max(clocks):,.0f} MHz"))
    fans = [row.fan for row in soak.series if row.fan is not None]
    if fans:
        facts.append(("fan", f"{min(fans):.0%} to {max(fans):.0%} of full power"))
    if soak.power is not None:
        facts += power_facts(soak.power)
    if soak.seconds < soak.asked_s - 1:
        facts.append(("ended", f"{clean(soak.ended)}; {seconds_text(soak.asked_s)} were asked for"))
    return facts


def series_rows(soak: SoakFigures) -> list[tuple[str, ...]]:
    """At most 30 rows over the time of the soak, each of medians: as `SERIES_HEAD` says."""
    rows = soak.series
    size = -(-len(rows) // _ROWS)
    return [_series_row(rows[first : first + size]) for first in range(0, len(rows), size)] if rows else []


def soak_tiles(soak: SoakFigures) -> Html:
    """The four figures that matter most."""
    tiles = [
        _tile(
            "Sustained rate",
            [figure(f"{soak.sustained_fps:.1f}", soak.sustained_fps, "sustained_fps"), el("small", " per second")],
            f"{soak.kept:.0%} of the first {first_words(soak)}",
        )
    ]
    if soak.throttled_s is None:
        tiles.append(_tile("Time to throttle", ["none"], f"in {seconds_text(soak.seconds)}"))
    else:
        text = figure(seconds_text(soak.throttled_s), soak.throttled_s, "throttled_s")
        tiles.append(_tile("Time to throttle", [text], clean(soak.throttled_why)))
    power = soak.power
    if power is not None and power.mj_per_frame is not None:
        energy = figure(mj_text(power.mj_per_frame), power.mj_per_frame, "mj_per_frame")
        tiles.append(_tile("Energy per frame", [energy], f"{watts_text(power.mean_w)} by {clean(power.sensor)}"))
    else:
        tiles.append(_tile("Energy per frame", [el("span", ABSENT, class_="gap")], "no power sensor answered"))
    if soak.max_temperature_c:
        zone, degrees = max(soak.max_temperature_c.items(), key=lambda pair: pair[1])
        tiles.append(_tile("Hottest", [figure(f"{degrees:.0f} °C", degrees, "hottest_c")], clean(zone)))
    return el("section", *tiles, class_="tiles", aria_label="In short")


def soak_section(soak: SoakFigures) -> list[Child]:
    """Charts over time, the facts, the events and the series, for the HTML page."""
    children: list[Child] = []
    if has_chart(soak):
        about = "Shaded: something held the board back." if any(row.flags for row in soak.series) else None
        text = el("p", about, class_="soft small") if about else None
        children.append(el("div", time_charts(soak), text, class_="card soak"))
    facts = el("dl", *(part for name, text in soak_facts(soak) for part in (el("dt", name), el("dd", text))))
    children.append(el("div", facts, class_="card facts"))
    if soak.events:
        items = [el("li", el("b", at), f"  {rest}") for at, _, rest in _parted(event_lines(soak.events))]
        title = f"{count_text(len(soak.events), 'event')} of heat and power"
        children.append(
            el("details", el("summary", title), el("ol", *items, class_="events"), class_="card", open=True)
        )
    head = el("tr", *(el("th", name, scope="col", class_="num" if 0 < i < 7 else None) for i, name in _heads()))
    body = [_html_row(row) for row in series_rows(soak)]
    table = el("table", el("thead", head), el("tbody", *body))
    box = el("div", table, class_="scroll", tabindex="0", role="region", aria_label="Soak over time, table")
    children.append(el("details", el("summary", "The figures over time"), box, class_="card"))
    return children


def _parted(lines: list[str]) -> list[tuple[str, str, str]]:
    return [line.partition("  ") for line in lines]


def _heads() -> list[tuple[int, str]]:
    return list(enumerate(SERIES_HEAD))


def _html_row(row: tuple[str, ...]) -> Html:
    first = el("th", row[0], scope="row")
    return el("tr", first, *(el("td", cell, class_="num" if i < 6 else None) for i, cell in enumerate(row[1:])))


def _series_row(rows: tuple[SoakSecond, ...]) -> tuple[str, ...]:
    def middle(name: str, digits: int) -> str:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        return f"{median(values):.{digits}f}" if values else ABSENT

    flags = dict.fromkeys(clean(flag) for row in rows for flag in row.flags)
    return (
        seconds_text(rows[-1].at_s),
        middle("fps", 1),
        ms_text(median(row.p50_ms for row in rows)),
        middle("p95_ms", 2),
        middle("temperature_c", 0),
        middle("clock_mhz", 0),
        middle("watts", 2),
        "; ".join(flags) or ABSENT,
    )


def _throttled(soak: SoakFigures) -> str:
    if soak.throttled_s is None:
        return f"not in {seconds_text(soak.seconds)}"
    held = sum(bool(row.flags) for row in soak.series)
    share = f", held back in {held / len(soak.series):.0%} of the time" if held else ""
    return f"after {seconds_text(soak.throttled_s)}: {clean(soak.throttled_why)}{share}"


def _times(soak: SoakFigures, name: str) -> str:
    times = getattr(soak, name)
    pairs = (("p50", times.p50_ms), ("p95", times.p95_ms), ("p99", times.p99_ms), ("at most", times.max_ms))
    return ", ".join(f"{word} {ms_text(value)} ms" for word, value in pairs if value is not None)


def _tile(name: str, value: list[Child], about: str) -> Html:
    return el("div", el("h3", name), el("p", *value, class_="big"), el("p", about, class_="about"), class_="tile")
