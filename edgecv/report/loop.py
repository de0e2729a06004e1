"""A camera loop in words and rows, for every form of the report."""

from __future__ import annotations

from edgecv.core.figures import LoopFigures, Percentiles
from edgecv.report.html import Child, Html, el, figure
from edgecv.report.power import power_facts
from edgecv.report.words import ABSENT, SYMBOLS, clean, count_text, ms_text, seconds_text

__all__ = ["STAGE_HEAD", "loop_facts", "loop_section", "sink_rows", "stage_rows"]

STAGE_HEAD = ("stage", "p50 ms", "p95 ms", "p99 ms", "max ms", "frames")

_ABOUT = {
    "wait": "from capture until the frame's turn",
    "queue": "pre-processed, waiting for the engine",
    "infer": "the engine alone",
    "second": "second stage, all objects of the frame",
    "search": "search in the gallery",
}


def stage_rows(loop: LoopFigures) -> list[tuple[str, ...]]:
    """One row a stage in the order of the pipeline, then the whole: as `STAGE_HEAD` says."""
    rows = [_row(name, times) for name, times in _stages(loop)]
    rows += [
        _row(name, times)
        for name, times in (("end to end", loop.end_to_end), ("frame age", loop.age))
        if times is not None
    ]
    return rows


def loop_facts(loop: LoopFigures) -> list[tuple[str, str]]:
    """What happened, as pairs of a name and words; what was not is left out, but for the main counts."""
    lost = sum(loop.camera.get(name, 0) for name in ("dropped", "corrupt"))
    facts = [
        ("frames", f"{loop.frames:,} in {seconds_text(loop.seconds)}, {loop.fps:.1f} per second ({loop.policy})"),
        ("left out", f"{lost + loop.stale + loop.failed:,}" + _reasons(loop)),
    ]
    if loop.deadline_ms is not None and loop.deadline_misses is not None:
        share = loop.deadline_misses / max(loop.frames, 1)
        facts.append(("deadline", f"{loop.deadline_misses:,} frames ({share:.2%}) later than {loop.deadline_ms:g} ms"))
    events = {name: count for name, count in loop.camera.items() if count and name not in ("frames", "dropped")}
    if events:
        facts.append(("camera", ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in events.items())))
    if len(loop.levels) > 1:
        facts.append(("levels", ", ".join(f"{clean(name)} {count:,} frames" for name, count in loop.levels.items())))
    if loop.temperature_c:
        heat = ", ".join(f"{clean(name)} {value:.0f} °C" for name, value in loop.temperature_c.items())
        facts.append(("highest temperature", heat))
    held = [event for event in loop.events if event.kind in ("heat", "power")]
    if held:
        more = f", then {count_text(len(held) - 1, 'change')}" if len(held) > 1 else ""
        facts.append(("held back", f"from {seconds_text(held[0].at_s)}: {clean(held[0].text)}{more}"))
    if loop.power is not None:
        facts += power_facts(loop.power)
    if loop.peak_rss_mb is not None:
        facts.append(("memory at most", f"{loop.peak_rss_mb:.0f} MB"))
    facts.append(("ended", clean(loop.ended)))
    if loop.invalid:
        facts.append(("invalid", clean(loop.invalid)))
    return facts


def sink_rows(loop: LoopFigures) -> list[tuple[str, ...]]:
    """Name, written, dropped, failed and the last error of each sink."""
    return [
        (clean(sink.name), f"{sink.written:,}", f"{sink.dropped:,}", f"{sink.failed:,}", clean(sink.error) or ABSENT)
        for sink in loop.sinks
    ]


def loop_section(loop: LoopFigures) -> list[Child]:
    """The stage table with bars, the facts, the sinks and the events, for the HTML page."""
    longest = max((times.p50_ms for _, times in _stages(loop)), default=1.0) or 1.0
    heads = [el("th", name, scope="col", class_="num") for name in STAGE_HEAD[1:]]
    head = el("tr", el("th", "Stage", scope="col"), *heads)
    body = [_html_row(name, times, longest, bar=True) for name, times in _stages(loop)]
    totals = (("end to end", loop.end_to_end), ("frame age", loop.age))
    body += [_html_row(name, times, longest, bar=False) for name, times in totals if times is not None]
    stages = el("table", el("thead", head), el("tbody", *body), class_="stages")
    facts = el("dl", *(part for name, text in loop_facts(loop) for part in (el("dt", name), el("dd", text))))
    children: list[Child] = [
        el("div", stages, class_="scroll card", tabindex="0", role="region", aria_label="Stages, table"),
        el("div", facts, class_="card facts"),
    ]
    if loop.sinks:
        titles = ("Sink", "written", "dropped", "failed", "last error")
        rows = [el("tr", *(el("td", cell) for cell in row)) for row in sink_rows(loop)]
        sinks = el(
            "table", el("thead", el("tr", *(el("th", name, scope="col") for name in titles))), el("tbody", *rows)
        )
        children.append(el("div", sinks, class_="scroll card", tabindex="0", role="region", aria_label="Sinks, table"))
    if loop.events:
        items = [el("li", el("b", f"{event.at_s:.1f} s"), f" {event.kind}: {event.text}") for event in loop.events]
        title = count_text(loop.events_seen, "event")
        children.append(el("details", el("summary", title), el("ol", *items, class_="events"), class_="card"))
    if loop.invalid:
        children.insert(0, el("p", f"{SYMBOLS['inconclusive']} These times are no measurement: {loop.invalid}"))
    return children


def _stages(loop: LoopFigures) -> list[tuple[str, Percentiles]]:
    return [(stage.name, stage.times) for stage in loop.stages]


def _row(name: str, times: Percentiles) -> tuple[str, ...]:
    figures = (times.p50_ms, times.p95_ms, times.p99_ms, times.max_ms)
    return (name, *map(ms_text, figures), f"{times.samples:,}")


def _html_row(name: str, times: Percentiles, longest: float, *, bar: bool) -> Html:
    about = _ABOUT.get(name)
    label = el("th", name, el("span", f" {about}", class_="soft") if about else None, scope="row")
    cells = [
        figure(ms_text(value), value, f"{name}.{field}") if value is not None else ABSENT
        for field, value in (
            ("p50_ms", times.p50_ms),
            ("p95_ms", times.p95_ms),
            ("p99_ms", times.p99_ms),
            ("max_ms", times.max_ms),
        )
    ]
    share = round(100 * min(1.0, times.p50_ms / longest))
    meter = el("meter", min=0, max=100, value=share, aria_hidden="true") if bar else None
    first = el("td", meter, cells[0], class_="num")
    rest = [el("td", cell, class_="num") for cell in (*cells[1:], f"{times.samples:,}")]
    return el("tr", label, first, *rest)


def _reasons(loop: LoopFigures) -> str:
    counts = {
        "dropped for a newer one": loop.camera.get("dropped", 0),
        "too old": loop.stale,
        "corrupt": loop.camera.get("corrupt", 0),
        "failed": loop.failed,
    }
    said = [f"{count:,} {name}" for name, count in counts.items() if count]
    return f" ({', '.join(said)})" if said else ""
