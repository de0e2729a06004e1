"""The page's sections below the chart: what failed, ladders, steps, hashes, machine, recipe and notes."""

from __future__ import annotations

import json
import math

from edgecv.core.figures import Ladder, Rung
from edgecv.report.effects import Effect, effects
from edgecv.report.html import Child, Html, el, figure
from edgecv.report.outcome import Reason, artifact_outcome, artifact_reasons, broken_rung, broken_text, cause_text
from edgecv.report.power import event_lines
from edgecv.report.schema import ArtifactFigures, Report, StepFigures
from edgecv.report.words import (
    ABSENT,
    SYMBOLS,
    clean,
    count_text,
    db_text,
    metric_name,
    outcome_word,
    seconds_text,
)

__all__ = ["chains", "ladders", "machine", "notes", "problems", "recipe", "scroller", "section", "steps"]


def section(title: str, name: str, *children: Child) -> Html:
    """A section with a heading; ``name`` is its id."""
    return el("section", el("h2", title, id=f"{name}-title"), *children, id=name, aria_labelledby=f"{name}-title")


def scroller(table: Html, about: str) -> Html:
    """A wide table that scrolls inside its own box, also by keyboard."""
    return el("div", table, class_="scroll card", tabindex="0", role="region", aria_label=f"{about}, table")


def problems(report: Report) -> Html | None:
    """What fails or is undecided, target by target, with the whole error; None where nothing is."""
    groups: dict[tuple[object, ...], list[ArtifactFigures]] = {}
    for item in report.artifacts:
        found = artifact_reasons(item)
        if found:
            # One defect that hits several targets is told once.
            said = tuple((each.outcome, each.what, each.why) for each in found)
            groups.setdefault((said, item.error), []).append(item)
    if not groups:
        return None
    cards = [_problem(items, artifact_reasons(items[0])) for items in groups.values()]
    name = (
        "What failed, and why"
        if "fail" in (artifact_outcome(item) for item in report.artifacts)
        else "What is undecided"
    )
    return section(name, "problems", el("div", *cards, class_="problems"))


def _problem(items: list[ArtifactFigures], found: tuple[Reason, ...]) -> Html:
    rows = []
    for each in found:
        why = el("span", f" ({each.why})", class_="soft") if each.why else None
        rows.append(el("li", el("b", SYMBOLS[each.outcome]), f" {each.what}", why, class_=each.outcome))
    for item in items:
        events = event_lines(item.latency.events) if item.latency is not None else []
        rows += [el("li", line, class_="soft") for line in events]
    error = items[0].error.strip()
    folded = None
    if error:
        whole = el("pre", error, tabindex="0")
        folded = el("details", el("summary", "The whole error"), whole, open=len(error) < 1200)
    titles = []
    for item in items:
        about = item.target + (" float" if item.role == "float" else "")
        more = None if about == item.title else el("span", f" {clean(about)}", class_="soft")
        titles.append(el("h3", item.title or item.target, more, data_problem=clean(item.target)))
    return el("div", *titles, el("ul", *rows), folded, class_=f"card problem {found[0].outcome}")


def ladders(report: Report) -> Html | None:
    """The verification ladder of each artifact; a broken one stands open."""
    found = [(item, item.ladder) for item in report.artifacts if item.ladder is not None and item.ladder.rungs]
    if not found:
        return None
    top = max((_finite(rung.sqnr_db) for _, ladder in found for rung in ladder.rungs), default=1.0)
    cards = [_ladder(item, ladder, max(top, 1.0)) for item, ladder in found]
    about = (
        "Each form of the model against the one before it, on the same pictures. The first to break is at fault. Where "
        "it was pruned or trained, the original comes first: the step of the metric is what that cost."
    )
    return section("Verification ladders", "ladders", el("p", about, class_="soft small"), *cards)


def _ladder(item: ArtifactFigures, ladder: Ladder, top: float) -> Html:
    broken = ladder.first_broken
    at_fault = broken_rung(ladder)
    sign = "pass" if broken is None else "fail"
    if broken is None:
        held = sum(rung.outcome == "pass" for rung in ladder.rungs)
        unclear = any(rung.outcome in ("fail", "inconclusive") for rung in ladder.rungs)
        sign = "inconclusive" if unclear else "pass" if held else "not-checked"
        compared = sum(bool(rung.against) for rung in ladder.rungs)
        rest = compared - held
        text = f"{held} of {count_text(compared, 'rung')} hold, {rest} not checked"
        text = text if rest else f"all {count_text(held, 'rung')} hold"
    else:
        text = f"breaks at {broken_text(ladder)}"
    summary = el(
        "summary",
        el("span", SYMBOLS[sign], class_=f"sign {sign}", aria_hidden="true"),
        el("b", item.target, " float" if item.role == "float" else ""),
        el(
            "span", text, class_="soft" if broken is None else "bad", data_field="first_broken", data_value=broken or ""
        ),
    )
    heads = [("Rung", ""), ("Against", ""), ("SQNR", "num"), ("", ""), ("At least", "num"), ("Max error", "num")]
    heads += [("Agreement", "num"), (_metric(item), "num"), ("Outcome", "")]
    cells = [
        el("th", name, scope="col", class_=class_ or None) if name else el("td", class_="spark")
        for name, class_ in heads
    ]
    rows = [_rung(item, rung, top, first=rung is at_fault) for rung in ladder.rungs]
    table = el("table", el("thead", el("tr", *cells)), el("tbody", *rows), class_="ladder")
    causes = [
        el(
            "li",
            el("b", cause_text(cause)),
            el("span", f" {clean(cause.evidence)}", class_="soft"),
            data_cause=cause.rung,
        )
        for cause in ladder.diagnosis
    ]
    why = el("ul", *causes, class_="causes") if causes else None
    body = el(
        "div", table, class_="scroll", tabindex="0", role="region", aria_label=f"Ladder of {clean(item.target)}, table"
    )
    return el(
        "details", summary, why, body, class_="card ladder", open=broken is not None, data_ladder=clean(item.target)
    )


def _rung(item: ArtifactFigures, rung: Rung, top: float, *, first: bool) -> Html:
    where = {"data_artifact": clean(item.target), "data_role": item.role, "data_rung": clean(rung.name)}

    def number(text: str, value: float | None, field: str) -> Html:
        return el("td", figure(text, value, field, **where), class_="num")

    percent = ABSENT if rung.agreement is None else f"{rung.agreement * 100:.1f} %"
    metric = ABSENT if rung.metric is None else f"{rung.metric:.4f}"
    least = ABSENT if rung.min_sqnr_db is None else f"{rung.min_sqnr_db:.0f} dB"
    share = 1.0 if rung.sqnr_db == math.inf else max(0.0, min(1.0, _finite(rung.sqnr_db) / top))
    outcome: list[Child] = [el("span", SYMBOLS[rung.outcome], aria_hidden="true"), f" {outcome_word(rung.outcome)}"]
    if rung.blame:
        about = f" {rung.blame}" if rung.outcome != "fail" else f", blamed on {rung.blame}"
        outcome.append(el("span", about, class_="bad" if rung.outcome == "fail" else "more"))
    return el(
        "tr",
        el("th", rung.name, el("span", f"n = {rung.samples:,}", class_="soft"), scope="row"),
        el("td", rung.against, class_="soft"),
        number(db_text(rung.sqnr_db), rung.sqnr_db, "sqnr_db"),
        el("td", _bar(share, rung.outcome), class_="spark"),
        number(least, rung.min_sqnr_db, "min_sqnr_db"),
        number(
            ABSENT if rung.max_abs_error is None else f"{rung.max_abs_error:.3g}", rung.max_abs_error, "max_abs_error"
        ),
        number(percent, rung.agreement, "agreement"),
        number(metric, rung.metric, "metric"),
        el("td", el("span", *outcome, class_=f"word {rung.outcome}")),
        class_="broken" if first else None,
    )


def steps(report: Report) -> Html | None:
    """Time and effect of each step."""
    if not report.steps:
        return None
    longest = max(max(step.seconds for step in report.steps if math.isfinite(step.seconds)), 1e-9)
    heads = [("Step", ""), ("Target", ""), ("Time", "num"), ("", ""), ("Effect", "")]
    cells = [
        el("th", name, scope="col", class_=class_ or None) if name else el("td", class_="spark")
        for name, class_ in heads
    ]
    rows = [_step(step, longest) for step in report.steps]
    table = el("table", el("thead", el("tr", *cells)), el("tbody", *rows), class_="steps")
    return section("Steps", "steps", scroller(table, "Steps"))


def _step(step: StepFigures, longest: float) -> Html:
    where = {"data_step": clean(step.kind), "data_target": clean(step.target), "data_key": clean(step.key)}
    why = "already in the store; the time is of when it was done"
    cached = el("span", "cached", class_="tag", title=why) if step.cached else None
    return el(
        "tr",
        el("th", step.title or step.kind, scope="row"),
        el("td", step.target or "all", class_="soft"),
        el("td", figure(seconds_text(step.seconds), step.seconds, "seconds", **where), cached, class_="num"),
        el("td", _bar(step.seconds / longest, "cached" if step.cached else "time"), class_="spark"),
        el("td", *[_effect(effect, where) for effect in effects(step)], class_="effect"),
    )


def _effect(effect: Effect, where: dict[str, str]) -> Html:
    parts: list[Child] = [el("span", effect.name, class_="soft"), " "]
    for index, (field, value, text) in enumerate(effect.values):
        parts.append(" → " if index else None)
        if isinstance(value, str):
            parts.append(el("span", text, title=value, data_field=field, **where))
        else:
            parts.append(figure(text, value, field, **where))
    parts.append(el("span", f" ({effect.change})", class_="soft") if effect.change else None)
    return el("span", *parts, class_="part")


def chains(report: Report) -> Html | None:
    """The hashes that each model file comes from: short, whole on hover, copied by a click."""
    links = ("recipe", "weights", "calibration", "graph", "file")
    found = [item for item in report.artifacts if any(getattr(item.chain, link) for link in links)]
    if not found:
        return None
    head = el("tr", el("th", "Target", scope="col"), *[el("th", link, scope="col") for link in links])
    rows = [
        el(
            "tr",
            el("th", item.target, " float" if item.role == "float" else "", scope="row"),
            *[el("td", _hash(item, link)) for link in links],
        )
        for item in found
    ]
    table = el("table", el("thead", head), el("tbody", *rows), class_="chains")
    about = "SHA-256 of each link. Every figure on this page is of the file whose hash stands in its row."
    return section(
        "Where each file comes from", "chains", scroller(table, "Hashes"), el("p", about, class_="soft small")
    )


def _hash(item: ArtifactFigures, link: str) -> Html:
    full = clean(getattr(item.chain, link))
    where = {"data_artifact": clean(item.target), "data_role": item.role, "data_field": f"chain.{link}"}
    if not full:
        return el("span", ABSENT, class_="soft", data_value="", **where)
    said = f"{link} {full}; copy"
    return el(
        "button",
        full[:10],
        type="button",
        class_="hash",
        title=full,
        aria_label=said,
        data_value=full,
        data_copy=full,
        **where,
    )


def machine(report: Report) -> Html:
    """The machine that the figures are of."""
    facts = report.machine
    engines = ", ".join(f"{name} {version}" for name, version in facts.engines.items())
    rows = [
        ("Board", facts.board),
        ("Power mode", facts.power_mode),
        ("Processor", facts.cpu),
        ("Cores", str(facts.cores)),
        ("Memory", f"{facts.memory_mb:,} MB"),
        ("System", f"{facts.system} ({facts.machine})"),
        ("Python", facts.python),
        ("Engines", engines),
    ]
    entries = [el("div", el("dt", name), el("dd", value)) for name, value in rows if value]
    return section("Machine", "machine", el("dl", *entries, class_="card facts"))


def notes(report: Report) -> Html | None:
    """Notes of the run and of its targets."""
    rows = [el("li", note) for note in report.notes]
    rows += [el("li", el("b", item.target), f": {clean(note)}") for item in report.artifacts for note in item.notes]
    return section("Notes", "notes", el("ul", *rows, class_="card notes")) if rows else None


def recipe(report: Report) -> Html | None:
    """The resolved recipe and the data it ran on, folded."""
    parts = []
    for name, values in (("Resolved recipe", report.recipe), ("Data", report.data)):
        if values:
            text = json.dumps(values, indent=2, ensure_ascii=False, default=str)
            parts.append(el("details", el("summary", name), el("pre", text, tabindex="0"), class_="card"))
    return section("What was asked for", "recipe", *parts) if parts else None


def _metric(item: ArtifactFigures) -> str:
    return metric_name(clean(item.accuracy.metric)) if item.accuracy is not None else "Metric"


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0


def _bar(share: float, kind: str) -> Html:
    # Width as an SVG attribute: the page's policy allows no style attributes.
    width = f"{min(max(share, 0.004), 1.0) * 100:.1f}%" if math.isfinite(share) else "0%"
    bars = [
        el("rect", width="100%", height="8", rx="2", class_="track"),
        el("rect", width=width, height="8", rx="2", class_="fill"),
    ]
    return el("svg", *bars, width="120", height="8", class_=f"hbar {kind}", aria_hidden="true")
