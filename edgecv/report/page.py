"""The report as one HTML page that opens offline: styles, script and charts are inside, nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from edgecv.report.artifact_table import artifact_table
from edgecv.report.chart import Point, chart, chart_points, is_crowded, left_out
from edgecv.report.html import Child, Html, el, figure, join
from edgecv.report.loop import loop_section
from edgecv.report.outcome import artifact_outcome, headline, interval_level, optimized, speedup
from edgecv.report.page_sections import chains, ladders, machine, notes, problems, recipe, section, steps
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.soak import soak_section, soak_tiles, soaked
from edgecv.report.words import (
    SYMBOLS,
    TIMES,
    bytes_text,
    clean,
    count_text,
    drop_text,
    drop_unit,
    metric_name,
    metric_text,
    ms_text,
    ratio_text,
    seconds_text,
)

__all__ = ["render_html"]

_TITLES = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive"}


def render_html(report: Report) -> str:
    """The page as text (UTF-8). Every figure stands in an element with ``data-field`` and ``data-value``."""
    style = _file("page.css")
    script = _file("page.js")
    # Hashes instead of 'unsafe-inline': nothing that slipped into the page could run.
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("link", rel="icon", href="data:,"),
        el("title", f"{SYMBOLS[report.outcome]} {clean(report.name)}: {report.outcome}"),
        Html(f"<style>{style}</style>"),
    )
    body = el(
        "body", _header(report), el("main", *_sections(report)), _footer(report), Html(f"<script>{script}</script>")
    )
    return f'<!doctype html>\n<html lang="en">{head.text}{body.text}</html>\n'


def _sections(report: Report) -> list[Child]:
    soaks = soaked(report)
    plain = report.loop is None and not soaks
    return [
        _tiles(report) if plain else None,
        *(soak_tiles(soak) for _, soak in soaks),
        problems(report),
        section("Camera loop", "loop", *loop_section(report.loop)) if report.loop is not None else None,
        *(section("Under load, over time", f"soak-{n}", *soak_section(soak)) for n, (_, soak) in enumerate(soaks)),
        _chart_section(report) if plain else None,
        artifact_table(report),
        ladders(report),
        steps(report),
        chains(report),
        machine(report),
        notes(report),
        recipe(report),
    ]


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _header(report: Report) -> Html:
    created = clean(report.created)
    verdict = el(
        "div",
        el("span", SYMBOLS[report.outcome], class_="sign", aria_hidden="true"),
        el(
            "div",
            el("p", _TITLES[report.outcome], class_="word", data_field="outcome", data_value=report.outcome),
            el("p", headline(report), class_="why", data_field="headline"),
        ),
        class_=f"verdict {report.outcome}",
        role="status",
    )
    made = el(
        "p",
        count_text(len(optimized(report)), "target" if report.loop is None else "model"),
        " in ",
        figure(seconds_text(report.seconds), report.seconds, "seconds"),
        " · ",
        el("time", created.replace("T", " ").replace("+00:00", "Z").replace("Z", " UTC"), datetime=created),
        " · edgecv ",
        report.edgecv_version,
        class_="made",
    )
    return el("header", el("div", el("h1", report.name), made, class_="title"), verdict)


def _tiles(report: Report) -> Html | None:
    made = [item for item in optimized(report) if not item.error]
    tiles = [_count_tile(report)]
    dropped = [item for item in made if item.drop is not None]
    if dropped:
        worst = max(dropped, key=lambda item: item.drop.drop if item.drop else 0.0)
        tiles.append(_drop_tile(worst))
    # What verification broke is no achievement, however fast.
    sound = [item for item in made if item.ladder is None or item.ladder.first_broken is None]
    timed = [(item, item.latency) for item in sound if item.latency is not None and not item.latency.invalid]
    if timed:
        best, latency = min(timed, key=lambda pair: pair[1].end_to_end.p50_ms)
        faster = speedup(report, best)
        times = "" if faster is None else f" · {faster:.1f}{TIMES} as fast as float"
        p50 = latency.end_to_end.p50_ms
        tiles.append(
            _tile("Fastest, end to end", [figure(ms_text(p50), p50, "best_p50_ms"), " ms"], best.target + times)
        )
    sized = [item for item in sound if item.file_bytes is not None]
    if sized:
        small = min(sized, key=lambda item: item.file_bytes or 0)
        ratio = "" if small.size_ratio is None else f" · {ratio_text(small.size_ratio)} the float file"
        text = figure(bytes_text(small.file_bytes), small.file_bytes, "smallest_bytes")
        tiles.append(_tile("Smallest file", [text], small.target + ratio))
    return el("section", *tiles, class_="tiles", aria_label="In short") if optimized(report) else None


def _count_tile(report: Report) -> Html:
    outcomes = [artifact_outcome(item) for item in optimized(report)]
    counted = [(word, outcomes.count(word)) for word in ("pass", "fail", "inconclusive", "deferred", "not-checked")]
    words = [f"{count} {word.replace('-', ' ')}" for word, count in counted if count]
    good = outcomes.count("pass")
    value = [figure(str(good), good, "targets_passing"), el("small", f" of {len(outcomes)}")]
    return _tile("Targets that pass", value, ", ".join(words))


def _drop_tile(item: ArtifactFigures) -> Html:
    drop = item.drop.drop if item.drop is not None else None
    metric = item.accuracy.metric if item.accuracy is not None else ""
    kept = f" · {metric_name(metric)} {metric_text(metric, item.accuracy.value)}" if item.accuracy is not None else ""
    unit = drop_unit(metric)
    value = [figure(drop_text(metric, drop, column=unit), drop, "worst_drop"), el("small", f" {unit}")]
    return _tile("Largest accuracy drop", value, item.target + kept)


def _tile(name: str, value: Sequence[Child], about: str) -> Html:
    return el("div", el("h3", name), el("p", *value, class_="big"), el("p", about, class_="about"), class_="tile")


def _chart_section(report: Report) -> Html | None:
    drawing = chart(report)
    beside = left_out(report)
    if drawing is None and all(item.error or item.failed_step for item, _ in beside):
        return None
    parts: list[Child] = []
    if drawing is not None:
        points = chart_points(report)
        parts += [_legend(report, points), drawing, _key(points)]
    if beside:
        rows = [
            el("li", el("b", _name(item)), f" {why}", data_left_out=clean(item.target), data_role=item.role)
            for item, why in beside
        ]
        parts.append(el("div", el("h3", "Not plotted"), el("ul", *rows), class_="beside"))
    return section("Accuracy against latency", "chart", el("div", *parts, class_="card"))


def _name(item: ArtifactFigures) -> str:
    return clean(item.target) + (" float" if item.role == "float" else "")


def _legend(report: Report, points: tuple[Point, ...]) -> Html:
    def entry(text: str, shape: Html, class_: str) -> Html:
        drawn = el("svg", shape, viewBox="0 0 16 16", width="16", height="16", class_=class_, aria_hidden="true")
        return el("li", drawn, text)

    dot = el("circle", cx="8", cy="8", r="5", class_="dot")
    found = {"float" if p.artifact.role == "float" else artifact_outcome(p.artifact) for p in points}
    words = {
        "pass": "meets its budgets",
        "fail": "fails",
        "inconclusive": "undecided",
        "not-checked": "no budget",
    }
    entries = [entry(word, dot, f"point {outcome}") for outcome, word in words.items() if outcome in found]
    if "float" in found:
        diamond = el("path", d="M8 2l6 6l-6 6l-6 -6z", class_="dot")
        entries.append(entry("original float model", diamond, "point float"))
    entries.append(entry("best trade-offs", el("path", d="M1 12H8V4H15", class_="front"), ""))
    if any(point.interval is not None for point in points):
        entries.append(
            entry(f"{interval_level(report)} interval", el("path", d="M8 2V14M5 2h6M5 14h6", class_="bar"), "")
        )
    return el("ul", *entries, class_="legend")


def _key(points: tuple[Point, ...]) -> Html | None:
    if not is_crowded(points, "narrow"):
        return None
    rows = [
        el("li", el("b", str(point.number)), " ", point.name, " ", el("span", ms_text(point.ms), " ms", class_="soft"))
        for point in points
    ]
    return el("ol", *rows, class_="key key-both" if is_crowded(points, "wide") else "key")


def _footer(report: Report) -> Html:
    hashed = clean(report.recipe_sha256)
    about = [f"edgecv {clean(report.edgecv_version)}, report schema {report.schema}"]
    if hashed:
        about.append(f"recipe {hashed[:12]}")
    return el("footer", join([" · ".join(about)]))
