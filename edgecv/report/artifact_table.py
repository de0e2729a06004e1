"""The page's main table: one row per model file, every figure with its interval and its tag."""

from __future__ import annotations

from edgecv.core.figures import Percentiles, Verdict
from edgecv.report.html import Child, Html, el, figure
from edgecv.report.outcome import artifact_outcome, interval_level, speedup
from edgecv.report.page_sections import scroller, section
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.words import (
    ABSENT,
    SYMBOLS,
    TIMES,
    budget_limit,
    budget_name,
    budget_value,
    bytes_text,
    clean,
    drop_interval_text,
    drop_text,
    drops_unit,
    is_minimum,
    metric_interval_text,
    metric_name,
    metric_text,
    ms_text,
    outcome_word,
    ratio_text,
)

__all__ = ["artifact_table"]


def artifact_table(report: Report) -> Html | None:
    """Section "Model files"; None where the report has none."""
    if not report.artifacts:
        return None
    rows = [_row(report, item) for item in report.artifacts]
    table = el("table", _head(report), el("tbody", *rows), class_="artifacts")
    about = [
        "Times at batch 1 on real frames, in milliseconds. End to end is picture to decoded result; "
        "model is the engine call alone. A dash is a figure that was not measured."
    ]
    level = interval_level(report)
    if level:
        about.append(f" Intervals at {level}; a drop is judged in pairs of samples against the float model.")
    if any(item.latency is not None and item.latency.quick for item in report.artifacts):
        about.append(" Quick protocol: times are for orientation.")
    return section("Model files", "files", scroller(table, "Model files"), el("p", *about, class_="soft small"))


def _head(report: Report) -> Html:
    metrics = _metrics(report)
    metric = metric_name(metrics[0]) if len(metrics) == 1 else "Metric"

    def top(text: str, *, class_: str | None = None) -> Html:
        return el("th", text, scope="col", rowspan="2", class_=class_)

    percentiles = ("p50", "p95", "p99")
    first = el(
        "tr",
        top("Target", class_="stick"),
        top("Verdict"),
        top(metric, class_="num"),
        top(f"Drop, {drops_unit(_metrics(report))}", class_="num"),
        el("th", "End to end, ms", scope="colgroup", colspan="3", class_="group"),
        el("th", "Model, ms", scope="colgroup", colspan="3", class_="group"),
        top("Size", class_="num"),
        top("Accelerated", class_="num"),
    )
    second = [
        el("th", name, scope="col", class_="num" + (" first" if name == "p50" else "")) for name in percentiles * 2
    ]
    return el("thead", first, el("tr", *second))


def _metrics(report: Report) -> list[str]:
    return sorted({item.accuracy.metric for item in report.artifacts if item.accuracy is not None})


def _row(report: Report, item: ArtifactFigures) -> Html:
    outcome = artifact_outcome(item)
    is_float = item.role == "float"
    failed = bool(item.error or item.failed_step)
    latency = item.latency
    cells = [
        el(
            "th",
            el("b", item.title or item.target),
            el("span", item.target, " · float" if is_float else "", class_="soft"),
            el("span", f"{item.backend} {item.precision} ", None if failed else _tag(item), class_="soft"),
            scope="row",
            class_="stick",
        ),
        el("td", *_verdict(item, outcome), class_="verdicts"),
        _accuracy(item),
        _drop(report, item),
        *_times(item, latency.end_to_end if latency else None, "end_to_end", speedup(report, item)),
        *_times(item, latency.model if latency else None, "model", None),
        _size(item),
        _delegation(item),
    ]
    return el("tr", *cells, class_="float" if is_float else None, data_row=clean(item.target), data_role=item.role)


def _figure(item: ArtifactFigures, text: str, value: float | None, field: str) -> Html:
    return figure(text, value, field, data_artifact=clean(item.target), data_role=item.role)


def _tag(item: ArtifactFigures) -> Html:
    return el(
        "span",
        item.tag,
        class_=f"tag {item.tag}",
        data_artifact=clean(item.target),
        data_role=item.role,
        data_field="tag",
    )


def _verdict(item: ArtifactFigures, outcome: str) -> list[Child]:
    if item.role == "float" and outcome == "not-checked":
        return [el("span", "reference", class_="soft")]
    chip = el(
        "span",
        el("span", SYMBOLS[outcome], aria_hidden="true"),
        " ",
        outcome_word(outcome),
        class_=f"chip {outcome}",
        data_artifact=clean(item.target),
        data_role=item.role,
        data_field="outcome",
        data_value=outcome,
    )
    lines = [_budget(item, verdict) for verdict in item.verdicts]
    if item.error or item.failed_step:
        lines.insert(0, el("li", f"failed at {clean(item.failed_step) or 'build'}", class_="fail"))
    return [chip, el("ul", *lines) if lines else None]


def _budget(item: ArtifactFigures, verdict: Verdict) -> Html:
    # The unit stands once, behind the limit.
    shown = budget_value(verdict) if verdict.value is None else budget_value(verdict).partition(" ")[0]
    value = figure(
        shown,
        verdict.value,
        f"budget:{clean(verdict.budget)}",
        data_artifact=clean(item.target),
        data_role=item.role,
        data_outcome=verdict.outcome,
    )
    least = "min" if is_minimum(verdict) else "max"
    word = el("span", f" {outcome_word(verdict.outcome)}: ", class_="sr")
    sign = el("span", SYMBOLS[verdict.outcome], class_="sign", aria_hidden="true")
    limit = el("span", f" {least} {budget_limit(verdict)}", class_="soft")
    title = f"{clean(verdict.budget)}: {outcome_word(verdict.outcome)}" + (f"; {verdict.why}" if verdict.why else "")
    return el("li", sign, word, f"{budget_name(verdict)} ", value, limit, class_=verdict.outcome, title=title)


def _accuracy(item: ArtifactFigures) -> Html:
    found = item.accuracy
    if found is None:
        return el("td", _figure(item, ABSENT, None, "accuracy"), class_="num")
    value = metric_text(found.metric, found.value)
    interval = metric_interval_text(found.metric, found.interval)
    return el(
        "td",
        _figure(item, value, found.value, clean(found.metric)),
        el("span", interval, class_="soft") if interval else None,
        el("span", f"n = {found.samples:,}", class_="soft"),
        class_="num",
    )


def _drop(report: Report, item: ArtifactFigures) -> Html:
    drop = item.drop
    metric = item.accuracy.metric if item.accuracy is not None else ""
    if drop is None:
        return el("td", _figure(item, ABSENT, None, "drop"), class_="num")
    return el(
        "td",
        _figure(item, drop_text(metric, drop.drop, column=drops_unit(_metrics(report))), drop.drop, "drop"),
        el(
            "span",
            drop_interval_text(metric, drop.interval),
            class_="soft",
            data_field="drop_interval",
            data_artifact=clean(item.target),
            data_low=repr(float(drop.interval.low)),
            data_high=repr(float(drop.interval.high)),
        ),
        el("span", f"needs n ≈ {drop.samples_to_decide:,}", class_="soft") if drop.samples_to_decide else None,
        class_="num",
    )


def _times(item: ArtifactFigures, times: Percentiles | None, kind: str, faster: float | None) -> list[Html]:
    invalid = item.latency.invalid if item.latency is not None else ""
    cells = []
    for name in ("p50_ms", "p95_ms", "p99_ms"):
        value = getattr(times, name) if times is not None else None
        first = name == "p50_ms"
        more = el("span", f"{faster:.1f}{TIMES} as fast", class_="soft") if first and faster is not None else None
        if first and invalid and kind == "end_to_end":
            more = el("span", "invalid", class_="bad", title=invalid)
        text = el("s", _figure(item, ms_text(value), value, f"{kind}.{name}")) if invalid else None
        shown = text or _figure(item, ms_text(value), value, f"{kind}.{name}")
        cells.append(el("td", shown, more, class_="num first" if first else "num"))
    return cells


def _size(item: ArtifactFigures) -> Html:
    ratio = _figure(item, ratio_text(item.size_ratio), item.size_ratio, "size_ratio")
    return el(
        "td",
        _figure(item, bytes_text(item.file_bytes), item.file_bytes, "file_bytes"),
        el("span", ratio, " of float", class_="soft") if item.size_ratio is not None and item.role != "float" else None,
        class_="num",
    )


def _delegation(item: ArtifactFigures) -> Html:
    found = item.delegation
    if found is None:
        return el("td", _figure(item, ABSENT, None, "delegation"), class_="num")
    nodes = f"{found.accelerated_nodes} of {found.total_nodes}"
    return el(
        "td",
        _figure(item, f"{found.share * 100:.0f} %", found.share, "delegation"),
        el("span", nodes, class_="soft", title=found.what),
        class_="num",
    )
