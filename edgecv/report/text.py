"""The report as a plain table for a terminal or a log, at most 120 columns wide."""

from __future__ import annotations

from edgecv.core.figures import LoopFigures
from edgecv.report.loop import STAGE_HEAD, loop_facts, sink_rows, stage_rows
from edgecv.report.outcome import artifact_outcome, grouped, headline, optimized, reasons, speedup
from edgecv.report.power import event_lines
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.soak import soak_facts, soaked
from edgecv.report.words import (
    ABSENT,
    SYMBOLS,
    TIMES,
    bytes_text,
    clean,
    drop_text,
    metric_name,
    metric_text,
    ms_text,
    outcome_word,
    ratio_text,
    seconds_text,
    short,
)

__all__ = ["render_text", "table_lines"]

WIDTH = 118
_COLOURS = {"pass": "32", "fail": "31", "inconclusive": "33", "deferred": "36"}


def render_text(report: Report, *, color: bool = False) -> str:
    """The report for a terminal: table, what failed, verdict last. ``color`` adds ANSI colours."""
    if report.loop is not None:
        return _loop_text(report, report.loop, color=color)
    if soaked(report):
        return _soak_text(report, color=color)
    head = ("target", "engine", "size", "ratio", _metric(report), "drop", "p50 ms", "p95 ms", "faster", "")
    rows = [_row(report, item) for item in report.artifacts]
    lines = table_lines(head, rows, left=(0, 1, 9), widths={0: 24, 1: 17})
    if color:
        lines = lines[:2] + [
            _paint(line, _outcome(item)) for line, item in zip(lines[2:], report.artifacts, strict=True)
        ]
    found = [f"{SYMBOLS[item.outcome]} {', '.join(targets)}: {item.text}" for targets, item in grouped(reasons(report))]
    found += [f"  {line}" for item in report.artifacts if item.latency for line in event_lines(item.latency.events)]
    quick = any(item.latency is not None and item.latency.quick for item in report.artifacts)
    foot = [
        f"Times: end to end, batch 1, on {short(clean(report.machine.cpu), 60)}" + ("; quick protocol" if quick else "")
    ]
    foot += [f"* {tag}, not measured on the target" for tag in ("emulated", "estimated") if tag in _tags(report)]
    verdict = f"{SYMBOLS[report.outcome]} {report.outcome.upper()}  {headline(report)}"
    title = f"{short(clean(report.name), 64)}: {len(optimized(report))} targets in {seconds_text(report.seconds)}"
    body = [title, "", *lines, ""] if rows else [title, ""]
    details = [_wrap(line) for line in found] + ([""] if found else [])
    last = _wrap(verdict)
    return "\n".join([*body, *details, *foot, "", _paint(last, report.outcome) if color else last]) + "\n"


def _soak_text(report: Report, *, color: bool) -> str:
    lines = []
    for item, soak in soaked(report):
        lines += [f"{short(clean(item.title), 64)} ({clean(item.backend)} {clean(item.precision)})", ""]
        facts = soak_facts(soak)
        width = max(len(name) for name, _ in facts) + 2
        lines += [_wrap(f"{name.ljust(width)}{words}") for name, words in facts]
        lines += ["", *(_wrap(line) for line in event_lines(soak.events))] if soak.events else []
    notes = [_wrap(clean(note)) for note in report.notes]
    verdict = _wrap(f"{SYMBOLS[report.outcome]} {report.outcome.upper()}  {headline(report)}")
    mode = f", power mode {clean(report.machine.power_mode)}" if report.machine.power_mode else ""
    place = f"On {short(clean(report.machine.board or report.machine.cpu), 60)}{mode}"
    last = [place, _paint(verdict, report.outcome) if color else verdict]
    return "\n".join([*lines, *(["", *notes] if notes else []), "", *last]) + "\n"


def _loop_text(report: Report, loop: LoopFigures, *, color: bool) -> str:
    models = ", ".join(f"{clean(item.title)} ({clean(item.backend)} {item.precision})" for item in report.artifacts)
    width = max(len(name) for name, _ in loop_facts(loop)) + 2
    facts = [_wrap(f"{name.ljust(width)}{words}") for name, words in loop_facts(loop)]
    sinks = table_lines(("sink", "written", "dropped", "failed", "last error"), sink_rows(loop), left=(0, 4))
    notes = [_wrap(clean(note)) for note in report.notes]
    verdict = _wrap(f"{SYMBOLS[report.outcome]} {report.outcome.upper()}  {headline(report)}")
    lines = [
        f"{short(clean(loop.camera_name), 64)}: {models}",
        "",
        *table_lines(STAGE_HEAD, stage_rows(loop), left=(0,)),
        "",
        *facts,
        *(["", *sinks] if loop.sinks else []),
        *(["", *notes] if notes else []),
        "",
        f"Times in ms, on {short(clean(report.machine.cpu), 60)}",
        _paint(verdict, report.outcome) if color else verdict,
    ]
    return "\n".join(lines) + "\n"


def table_lines(
    head: tuple[str, ...], rows: list[tuple[str, ...]], *, left: tuple[int, ...], widths: dict[int, int] | None = None
) -> list[str]:
    """Aligned lines: the head, a rule and one line a row.

    Columns of ``left`` are set left, others right; ``widths`` cuts a column to so many characters.
    """
    limits = widths or {}
    cells = [tuple(short(clean(cell), limits.get(i, WIDTH)) for i, cell in enumerate(row)) for row in (head, *rows)]
    sizes = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(sizes[i]) if i in left else cell.rjust(sizes[i]) for i, cell in enumerate(row)).rstrip()
        for row in cells
    ]
    return [lines[0], "─" * max(len(line) for line in lines), *lines[1:]]


def _metric(report: Report) -> str:
    names = {item.accuracy.metric for item in report.artifacts if item.accuracy is not None}
    return metric_name(names.pop()) if len(names) == 1 else "metric"


def _outcome(artifact: ArtifactFigures) -> str:
    return "reference" if artifact.role == "float" and not artifact.error else artifact_outcome(artifact)


def _row(report: Report, item: ArtifactFigures) -> tuple[str, ...]:
    times = item.latency.end_to_end if item.latency is not None else None
    accuracy = item.accuracy
    outcome = _outcome(item)
    faster = speedup(report, item)
    word = outcome_word(outcome)
    mark = " *" if item.tag in _tags(report) else ""
    target = clean(item.target)
    return (
        short(target, 16) + " (float)" if item.role == "float" else short(target, 24),
        f"{short(clean(item.backend), 12)} {short(clean(item.precision), 4)}",
        bytes_text(item.file_bytes),
        ratio_text(item.size_ratio),
        metric_text(accuracy.metric, accuracy.value) if accuracy else ABSENT,
        drop_text(accuracy.metric if accuracy else "", item.drop.drop if item.drop else None, column="points"),
        ms_text(times.p50_ms if times else None),
        ms_text(times.p95_ms if times else None),
        ABSENT if faster is None else f"{faster:.1f}{TIMES}",
        f"{SYMBOLS.get(outcome, ' ')} {word}{mark}",
    )


def _tags(report: Report) -> set[str]:
    shown = (item for item in report.artifacts if item.accuracy is not None or item.latency is not None)
    return {item.tag for item in shown if item.tag in ("emulated", "estimated")}


def _wrap(text: str) -> str:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])


def _paint(line: str, outcome: str) -> str:
    code = _COLOURS.get(outcome)
    return f"\x1b[{code}m{line}\x1b[0m" if code else line
