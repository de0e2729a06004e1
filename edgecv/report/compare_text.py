"""A comparison of two reports as plain text, Markdown or JSON."""

from __future__ import annotations

import json

from edgecv.core.plain import to_plain
from edgecv.report.compare import ArtifactChange, Change, Comparison
from edgecv.report.markdown import escape, table
from edgecv.report.text import table_lines
from edgecv.report.words import (
    ABSENT,
    MINUS,
    SYMBOLS,
    bytes_text,
    change_text,
    count_text,
    metric_name,
    metric_text,
    ms_text,
    points_text,
    quantity_text,
)

__all__ = ["comparison_json", "comparison_markdown", "comparison_text"]

_HEAD = ("artifact", "figure", "before", "after", "change", "")


def comparison_text(comparison: Comparison) -> str:
    """The comparison for a terminal, at most 120 columns wide: table, regressions, verdict last."""
    lines = [f"before  {comparison.before}", f"after   {comparison.after}", ""]
    rows = [row for item in comparison.artifacts for row in _rows(item)]
    if rows:
        lines += [*table_lines(_HEAD, rows, left=(0, 1, 5), widths={0: 30, 2: 16, 3: 16, 5: 32}), ""]
    lines += [f"{SYMBOLS['fail']} {text}" for text in comparison.regressions]
    lines += [f"  {note}" for note in comparison.notes]
    if comparison.regressions or comparison.notes:
        lines.append("")
    lines.append(f"{SYMBOLS[comparison.outcome]} {comparison.outcome.upper()}  {_verdict(comparison)}")
    return "\n".join(lines) + "\n"


def comparison_markdown(comparison: Comparison) -> str:
    """The comparison for a pull request comment: verdict first."""
    parts = [f"## {SYMBOLS[comparison.outcome]} Comparison: {comparison.outcome}\n\n{_verdict(comparison)}\n\n"]
    parts += [f"- {SYMBOLS['fail']} {escape(text)}\n" for text in comparison.regressions]
    parts += [f"- {escape(note)}\n" for note in comparison.notes]
    rows = [[escape(cell) for cell in row] for item in comparison.artifacts for row in _rows(item)]
    if rows:
        head = [name.capitalize() or "Outcome" for name in _HEAD]
        parts.append("\n" + table(head, rows, right=(2, 3, 4)))
    parts.append(f"\nBefore: {escape(comparison.before)}. After: {escape(comparison.after)}.\n")
    return "".join(parts)


def comparison_json(comparison: Comparison) -> str:
    """The comparison as standard JSON with sorted keys; each change also says whether it is a regression."""
    plain = to_plain(comparison, "comparison")
    for item, made in zip(plain["artifacts"], comparison.artifacts, strict=True):
        for change, one in zip(item["changes"], made.changes, strict=True):
            change["regression"] = one.regression
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _verdict(comparison: Comparison) -> str:
    if comparison.outcome == "inconclusive":
        return "Nothing could be compared."
    if comparison.outcome == "fail":
        return f"{count_text(len(comparison.regressions), 'regression')}."
    return f"No regression in {count_text(len(comparison.artifacts), 'artifact')}."


def _rows(item: ArtifactChange) -> list[tuple[str, ...]]:
    name = item.target + (" (float)" if item.role == "float" else "")
    if item.status != "both":
        return [(name, "outcome", item.outcome_before or ABSENT, item.outcome_after or ABSENT, "", item.status)]
    rows = [(name, *_cells(change)) for change in item.changes]
    if item.outcome_before != item.outcome_after:
        rows.append((name, "outcome", item.outcome_before, item.outcome_after, "", ""))
    if item.links:
        rows.append((name, "changed", "", "", "", ", ".join(item.links)))
    rows = rows or [(name, "outcome", item.outcome_before, item.outcome_after, "", "no figures")]
    return [rows[0], *[("", *row[1:]) for row in rows[1:]]]


def _cells(change: Change) -> tuple[str, ...]:
    before, after = (_value(change, value) for value in (change.before, change.after))
    moved = ""
    if change.before is not None and change.after is not None and not change.not_comparable:
        relative = change.unit in ("ms", "bytes")
        moved = change_text(change.before, change.after) if relative else _points(change)
    remark = f"not comparable: {change.not_comparable}" if change.not_comparable else ""
    if change.regression:
        remark = f"{SYMBOLS['fail']} regression"
    return _name(change), before, after, moved, remark


def _name(change: Change) -> str:
    names = {"end_to_end.p50_ms": "p50", "end_to_end.p95_ms": "p95", "file_bytes": "size"}
    names["drop"] = f"drop, {change.unit}"
    return names.get(change.field, metric_name(change.field))


def _value(change: Change, value: float | None) -> str:
    if value is None:
        return ABSENT
    if change.unit == "ms":
        return f"{ms_text(value)} ms"
    if change.unit == "bytes":
        return bytes_text(int(value))
    if change.field == "drop":
        return points_text(value) if change.unit == "points" else quantity_text(value, change.unit)
    return metric_text(change.field, value)


def _points(change: Change) -> str:
    moved = (change.after or 0.0) - (change.before or 0.0)
    if change.unit in ("share", "points"):
        text = points_text(moved)
        return text if moved <= 0 or text == "0.00" else f"+{text}"
    return f"{moved:+.{2 if change.unit else 4}f}".replace("-", MINUS)
