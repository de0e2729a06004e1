"""The sensitivity table for people: as text for a terminal, and as one HTML page with bars that opens offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecv.core.sensitivity import Sensitivity, SensitivityRow
from edgecv.report.html import Child, Html, el, figure
from edgecv.report.text import table_lines
from edgecv.report.words import ABSENT, clean, db_text, drop_text, drop_unit, metric_name, metric_text, ms_text

__all__ = ["render_sensitivity_html", "render_sensitivity_text"]

_BAR = 260
_ROW = 22
_NAME = 250
_NAME_CHARS = 37
_CHART_ROWS = 40


def render_sensitivity_text(table: Sensitivity, *, name: str, note: str = "") -> str:
    """The table as lines, the layer that adds most noise first; ``note`` says how it was made."""
    heads = ("layer", "operator", "SQNR", f"drop, {drop_unit(table.metric)}", "ms", "share")
    rows: list[tuple[str, ...]] = [
        (row.layer, row.kind, db_text(row.sqnr_db), *_numbers(table, row)) for row in table.rows
    ]
    shown = [index for index in range(len(heads)) if index < 3 or any(row[index] != ABSENT for row in rows)]
    rows = [tuple(row[index] for index in shown) for row in rows]
    lines = [f"{clean(name)}: {_summary(table)}", *([f"({note})"] if note else []), ""]
    return "\n".join([*lines, *table_lines(tuple(heads[index] for index in shown), rows, left=(0, 1))])


def render_sensitivity_html(table: Sensitivity, *, name: str, note: str = "") -> str:
    """The page as text (UTF-8); every figure stands in an element with ``data-field`` and ``data-value``."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", f"{clean(name)}: what each layer costs in int8"),
        Html(f"<style>{style}</style>"),
    )
    notes = [el("p", clean(note), class_="small soft")] if note else []
    body = el(
        "body",
        el("header", el("h1", f"{clean(name)}: what each layer costs in int8"), el("p", _summary(table)), *notes),
        el(
            "main",
            el("section", el("h2", "Noise by layer"), _chart(table)),
            el("section", el("h2", "All figures"), _table(table)),
        ),
    )
    return f'<!doctype html>\n<html lang="en">{head.text}{body.text}</html>\n'


def _summary(table: Sensitivity) -> str:
    text = f"all of it in int8 has {db_text(table.sqnr_db)} of signal to noise on {table.pictures} pictures"
    if table.float_value is None or table.int8_value is None:
        return text
    values = [metric_text(table.metric, value) for value in (table.float_value, table.int8_value)]
    return f"{text}; {metric_name(table.metric)} {values[0]} in float, {values[1]} in int8"


def _numbers(table: Sensitivity, row: SensitivityRow) -> tuple[str, str, str]:
    drop = drop_text(table.metric, row.metric_drop, column=drop_unit(table.metric))
    time = ABSENT if row.latency_ms is None else ms_text(row.latency_ms)
    share = ABSENT if row.latency_share is None else f"{row.latency_share:.1%}"
    return drop, time, share


def _table(table: Sensitivity) -> Html:
    """Every row; columns of which nothing is known are left out."""
    fields: list[tuple[str, str, Callable[[SensitivityRow], float | None]]] = [
        ("SQNR", "sqnr_db", lambda row: row.sqnr_db),
        (f"Drop alone, {drop_unit(table.metric)}", "metric_drop", lambda row: row.metric_drop),
        ("Time, ms", "latency_ms", lambda row: row.latency_ms),
        ("Share of time", "latency_share", lambda row: row.latency_share),
    ]
    known = [
        index for index, item in enumerate(fields) if index == 0 or any(item[2](row) is not None for row in table.rows)
    ]
    body: list[Child] = []
    for row in table.rows:
        texts = (db_text(row.sqnr_db), *_numbers(table, row))
        cells = [
            el("td", figure(texts[index], fields[index][2](row), fields[index][1], data_layer=row.layer), class_="num")
            for index in known
        ]
        body.append(el("tr", el("th", row.layer, scope="row"), el("td", row.kind), *cells))
    heads = [el("th", "Layer", scope="col"), el("th", "Operator", scope="col")]
    heads += [el("th", fields[index][0], scope="col", class_="num") for index in known]
    head = el("thead", el("tr", *heads))
    return el("div", el("table", head, el("tbody", *body)), class_="scroll card", tabindex="0", role="region")


def _fitting(name: str) -> str:
    """The end of a name that is too long for the chart: the end tells layers apart."""
    text = clean(name)
    return text if len(text) <= _NAME_CHARS else "…" + text[1 - _NAME_CHARS :]


def _chart(table: Sensitivity) -> Html:
    """Bars of signal to noise, shortest (worst) first, each with the layer's share of the time as a thin line below."""
    finite = [row for row in table.rows if row.sqnr_db not in (float("inf"), float("-inf"))]
    rows = finite[:_CHART_ROWS]
    top = max((row.sqnr_db for row in rows), default=1.0)
    marks: list[Child] = []
    for index, row in enumerate(rows):
        y = index * _ROW
        length = max(1.0, _BAR * max(0.0, row.sqnr_db) / max(top, 1e-9))
        marks.append(el("text", _fitting(row.layer), x=_NAME - 8, y=y + 13, text_anchor="end", fill="currentColor"))
        marks.append(el("rect", x=_NAME, y=y + 3, width=f"{length:.1f}", height=10, fill="var(--accent)"))
        label = db_text(row.sqnr_db)
        marks.append(el("text", label, x=f"{_NAME + length + 6:.1f}", y=y + 13, fill="currentColor"))
        if row.latency_share:
            width = f"{_BAR * row.latency_share:.1f}"
            marks.append(el("rect", x=_NAME, y=y + 15, width=width, height=3, fill="var(--warn)"))
    height = max(1, len(rows)) * _ROW
    about = "bars: signal to noise where only this layer is int8 (short is bad)"
    about += "; thin lines: its share of the time" if any(row.latency_share for row in rows) else ""
    about += f"; the {_CHART_ROWS} worst of {len(finite)} layers" if len(finite) > _CHART_ROWS else ""
    picture = el(
        "svg",
        *marks,
        viewBox=f"0 0 {_NAME + _BAR + 90} {height}",
        role="img",
        aria_label=about,
        font_size=12,
        width="100%",
        style=f"max-width:{_NAME + _BAR + 90}px",
    )
    return el("figure", picture, el("figcaption", about, class_="small soft"), style="margin:0")
