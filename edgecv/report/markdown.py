"""The report as Markdown for a pull request comment: verdict first."""

from __future__ import annotations

import re

from edgecv.report.effects import effects
from edgecv.report.loop import STAGE_HEAD, loop_facts, sink_rows, stage_rows
from edgecv.report.outcome import artifact_outcome, cause_text, grouped, headline, interval_level, reasons, speedup
from edgecv.report.power import event_lines
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.soak import SERIES_HEAD, series_rows, soak_facts, soaked
from edgecv.report.words import (
    ABSENT,
    SYMBOLS,
    TIMES,
    bytes_text,
    clean,
    count_text,
    db_text,
    drop_interval_text,
    drop_text,
    drops_unit,
    metric_interval_text,
    metric_name,
    metric_text,
    ms_text,
    outcome_word,
    ratio_text,
    seconds_text,
)

__all__ = ["escape", "render_markdown", "table"]

MAX_CHARS = 60_000
"""A comment on a pull request may hold 65,536 characters."""

_ERROR_CHARS = 1500
_SPECIAL = re.compile(r"([\\`*_{}\[\]|~#])")


def escape(text: str) -> str:
    """``text`` as inert Markdown: no markup, no HTML, no line break, no mention of a person."""
    plain = _SPECIAL.sub(r"\\\1", clean(text))
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A zero-width space keeps "@name" from notifying someone and an address from becoming a link.
    return plain.replace("@", "@\u200b").replace("://", ":\u200b//").replace("www.", "www\u200b.")


def render_markdown(report: Report) -> str:
    """The report for a pull request comment, at most 60,000 characters: verdict, table, failures, the rest folded."""
    head = [f"## {SYMBOLS[report.outcome]} {escape(report.name)}: {report.outcome}", "", escape(headline(report)), ""]
    parts = [
        "\n".join(head) + "\n",
        _loop(report),
        _soaks(report),
        _artifacts(report),
        _problems(report),
        _steps(report),
        _ladders(report),
        _foot(report),
    ]
    text = ""
    for part in parts:
        if len(text) + len(part) > MAX_CHARS:
            return text + "\n_The rest is left out: it would not fit into a comment. See the full report._\n"
        text += part
    return text


def table(head: list[str], rows: list[list[str]], *, right: tuple[int, ...] = ()) -> str:
    """A Markdown table; cells must be escaped already. Columns of ``right`` are set right."""
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    return "".join("| " + " | ".join(row) + " |\n" for row in [head, rule, *rows])


def _artifacts(report: Report) -> str:
    if not report.artifacts:
        return ""
    metrics = sorted({item.accuracy.metric for item in report.artifacts if item.accuracy is not None})
    metric, unit = metric_name(metrics[0]) if len(metrics) == 1 else "metric", drops_unit(metrics)
    head = ["Target", "Engine", "Size", escape(metric), f"Drop, {unit}", "p50", "p95", "Faster", "Tag", "Verdict"]
    rows = [_row(report, item, unit) for item in report.artifacts]
    level = interval_level(report)
    about = "Times in ms, end to end, batch 1." + (f" Intervals at {level}." if level else "")
    return table(head, rows, right=(2, 3, 4, 5, 6, 7)) + f"\n{about}\n\n"


def _loop(report: Report) -> str:
    loop = report.loop
    if loop is None:
        return ""
    text = table(list(STAGE_HEAD), [list(map(escape, row)) for row in stage_rows(loop)], right=(1, 2, 3, 4, 5)) + "\n"
    text += "".join(f"- {escape(name)}: {escape(words)}\n" for name, words in loop_facts(loop)) + "\n"
    if loop.sinks:
        head = ["Sink", "Written", "Dropped", "Failed", "Last error"]
        text += table(head, [list(map(escape, row)) for row in sink_rows(loop)], right=(1, 2, 3)) + "\n"
    return text


def _soaks(report: Report) -> str:
    text = ""
    for item, soak in soaked(report):
        text += f"### {escape(item.title)}, soaked\n\n"
        text += "".join(f"- {escape(name)}: {escape(words)}\n" for name, words in soak_facts(soak)) + "\n"
        text += "".join(f"- {escape(line)}\n" for line in event_lines(soak.events)) + "\n" if soak.events else ""
        rows = table(list(SERIES_HEAD), [list(map(escape, row)) for row in series_rows(soak)], right=(1, 2, 3, 4, 5, 6))
        text += f"<details><summary>The figures over time</summary>\n\n{rows}\n</details>\n\n"
    return text


def _row(report: Report, item: ArtifactFigures, unit: str) -> list[str]:
    outcome = artifact_outcome(item)
    plain_float = item.role == "float" and outcome == "not-checked"
    verdict = "reference" if plain_float else f"{SYMBOLS[outcome]} {outcome_word(outcome)}"
    times = item.latency.end_to_end if item.latency is not None else None
    faster = speedup(report, item)
    ratio = "" if item.size_ratio is None else f" ({ratio_text(item.size_ratio)})"
    return [
        f"{escape(item.target)}{' (float)' if item.role == 'float' else ''}",
        f"{escape(item.backend)} {escape(item.precision)}",
        bytes_text(item.file_bytes) + ratio,
        _accuracy(item),
        _drop(item, unit),
        ms_text(times.p50_ms if times else None),
        ms_text(times.p95_ms if times else None),
        ABSENT if faster is None else f"{faster:.1f}{TIMES}",
        item.tag,
        verdict,
    ]


def _drop(item: ArtifactFigures, unit: str) -> str:
    if item.drop is None:
        return ABSENT
    metric = item.accuracy.metric if item.accuracy is not None else ""
    return f"{drop_text(metric, item.drop.drop, column=unit)} [{drop_interval_text(metric, item.drop.interval)}]"


def _accuracy(item: ArtifactFigures) -> str:
    if item.accuracy is None:
        return ABSENT
    value = metric_text(item.accuracy.metric, item.accuracy.value)
    interval = metric_interval_text(item.accuracy.metric, item.accuracy.interval)
    return value + (f" [{interval}]" if interval else "")


def _problems(report: Report) -> str:
    found = reasons(report)
    if not found:
        return ""
    lines = [
        f"- {SYMBOLS[item.outcome]} **{escape(', '.join(targets))}**: {escape(item.text)}\n"
        for targets, item in grouped(found)
    ]
    text = "### What failed, and why\n\n" if report.outcome == "fail" else "### What is undecided\n\n"
    text += "".join(lines) + "\n"
    events = [line for item in report.artifacts if item.latency for line in event_lines(item.latency.events)]
    text += "".join(f"- {escape(line)}\n" for line in events) + "\n" if events else ""
    errors: dict[str, list[str]] = {}
    for item in report.artifacts:
        if item.error:
            name = escape(item.target) + (" (float)" if item.role == "float" else "")
            errors.setdefault(item.error, []).append(name)
    for error, names in errors.items():
        text += f"<details><summary>{', '.join(names)}: the error</summary>\n\n{_fenced(error)}\n</details>\n\n"
    return text


def _fenced(error: str) -> str:
    body = clean(error, lines=True).strip()
    if len(body) > _ERROR_CHARS:
        body = "…" + body[-_ERROR_CHARS:]
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}\n"


def _steps(report: Report) -> str:
    if not report.steps:
        return ""
    rows = [
        [
            escape(step.title or step.kind),
            escape(step.target) if step.target else "all",
            "cached" if step.cached else seconds_text(step.seconds),
            escape("; ".join(map(str, effects(step)))),
        ]
        for step in report.steps
    ]
    body = table(["Step", "Target", "Time", "Effect"], rows, right=(2,))
    spent = seconds_text(report.seconds)
    return f"<details><summary>{count_text(len(rows), 'step')} in {spent}</summary>\n\n{body}\n</details>\n\n"


def _ladders(report: Report) -> str:
    rows = []
    for item in report.artifacts:
        for rung in item.ladder.rungs if item.ladder is not None else ():
            agreement = ABSENT if rung.agreement is None else f"{rung.agreement * 100:.1f} %"
            metric = ABSENT if rung.metric is None else f"{rung.metric:.4f}"
            outcome = SYMBOLS[rung.outcome] + (f" {escape(rung.blame)}" if rung.blame else "")
            rows.append(
                [escape(item.target), escape(rung.name), db_text(rung.sqnr_db), agreement, metric, outcome],
            )
    if not rows:
        return ""
    body = table(["Target", "Rung", "SQNR", "Agreement", "Metric", "Outcome"], rows, right=(2, 3, 4))
    causes = [
        f"- {escape(item.target)}: {escape(cause_text(cause))}"
        for item in report.artifacts
        for cause in (item.ladder.diagnosis if item.ladder is not None else ())
    ]
    body += "".join(f"\n{line}" for line in causes) + ("\n" if causes else "")
    return f"<details><summary>Verification ladders</summary>\n\n{body}\n</details>\n\n"


def _foot(report: Report) -> str:
    machine = report.machine
    notes = "".join(f"- {escape(note)}\n" for note in report.notes)
    place = escape(machine.board or machine.cpu or machine.machine)
    return (f"{notes}\n" if notes else "") + (
        f"edgecv {escape(report.edgecv_version)}, {escape(report.created)}, on {place}, "
        f"recipe {escape(report.recipe_sha256[:12])}\n"
    )
