"""A metric in dB is told in dB everywhere: words, gate, tables, chart, comparison."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from edgecv.core.figures import AccuracyFigures, DropFigures, Interval
from edgecv.core.recipe import AccuracyBudget
from edgecv.measure.gate import check_accuracy, judge_drop
from edgecv.report.compare import compare
from edgecv.report.compare_text import comparison_text
from edgecv.report.junit import render_junit
from edgecv.report.markdown import render_markdown
from edgecv.report.page import render_html
from edgecv.report.schema import Report
from edgecv.report.text import render_text
from edgecv.report.words import (
    budget_limit,
    drop_interval_text,
    drop_text,
    drops_unit,
    metric_interval_text,
    metric_name,
    metric_text,
    verdict_text,
)

BEFORE, AFTER = (38.7, 42.2, 33.9), (38.6, 42.0, 33.8)


def figures(values: tuple[float, ...]) -> AccuracyFigures:
    return AccuracyFigures("psnr", sum(values) / len(values), len(values), Interval(33.9, 42.2), {}, values)


@pytest.fixture
def decibels(passing: Report) -> Report:
    """The sample report with its accuracies in dB."""
    drop = judge_drop(BEFORE, AFTER, max_drop=0.2)
    verdicts = check_accuracy(AccuracyBudget("psnr", max_drop=0.2, min=30), figures(AFTER), drop)
    items = []
    for item in passing.artifacts:
        known = item.accuracy is not None
        optimized = known and item.role == "optimized"
        items.append(
            replace(
                item,
                accuracy=figures(AFTER if optimized else BEFORE) if known else None,
                drop=drop if optimized else None,
                verdicts=verdicts if optimized else (),
            )
        )
    return replace(passing, artifacts=tuple(items))


def test_words() -> None:
    assert metric_name("psnr") == "PSNR"
    assert metric_text("psnr", 38.2947) == "38.29 dB"
    assert metric_interval_text("psnr", Interval(33.94, 42.236)) == "33.94 to 42.24"
    assert metric_interval_text("top1", Interval(0.5, 0.75)) == "50.00 to 75.00"
    assert drop_text("psnr", 0.118, column="dB") == "0.12"
    assert drop_text("psnr", 0.118, column="points") == "0.12 dB"
    assert drop_text("top1", 0.01, column="points") == "1.00"
    assert drop_interval_text("psnr", Interval(-0.004, 0.5)) == "0.00 to 0.50"
    assert (drops_unit(["psnr"]), drops_unit(["top1"]), drops_unit(["psnr", "top1"])) == ("dB", "points", "points")


def test_the_gate_judges_and_tells_in_db() -> None:
    drop = judge_drop(BEFORE, AFTER, max_drop=0.2)
    assert drop.drop == pytest.approx(0.4 / 3)
    most, least = check_accuracy(AccuracyBudget("psnr", max_drop=0.2, min=30), figures(AFTER), drop)
    assert (most.unit, least.unit) == ("dB", "dB")
    assert " dB" in most.why
    assert " dB" in least.why
    assert verdict_text(most) == "PSNR drop 0.13 dB, limit 0.2 dB"
    assert verdict_text(least) == "PSNR 38.13 dB, at least 30 dB"
    assert budget_limit(most) == "0.2 dB"
    assert least.outcome == "pass"


def test_shares_are_told_in_points_as_before() -> None:
    drop = DropFigures(0.01, Interval(0.0, 0.02), 0.03, "pass")
    (verdict,) = check_accuracy(AccuracyBudget("top1", max_drop=0.03), None, drop)
    assert verdict_text(verdict) == "top-1 drop 1.00 points, limit 3 points"


def test_no_form_of_the_report_speaks_of_points(decibels: Report) -> None:
    forms = (render_text(decibels), render_markdown(decibels), render_html(decibels), render_junit(decibels))
    for text in forms:
        assert "dB" in text
        assert "0.13" in text
        assert " points" not in re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    assert "Drop, dB" in forms[1]
    assert "Drop, dB" in forms[2]
    assert "PSNR, dB" in forms[2]
    assert "38.13 dB" in forms[0]


def test_a_comparison_is_in_db(decibels: Report) -> None:
    worse = replace(
        decibels,
        artifacts=tuple(
            replace(item, accuracy=replace(item.accuracy, value=item.accuracy.value - 1)) if item.accuracy else item
            for item in decibels.artifacts
        ),
    )
    found = compare(decibels, worse, max_accuracy_drop=0.5)
    lost = [sentence for sentence in found.regressions if "PSNR" in sentence]
    assert lost
    assert all("lost 1.00 dB, allowed 0.50" in sentence for sentence in lost)
    text = comparison_text(found)
    assert "drop, dB" in text
    assert "points" not in text
    assert not [item for item in compare(decibels, worse, max_accuracy_drop=1.5).regressions if "PSNR" in item]
