"""Figures, errors and protocols: what the rest of the house relies on."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from edgecv import errors
from edgecv.core import figures
from edgecv.core.protocols import CompileSource, Sample
from edgecv.errors import EdgecvError, Problem, RecipeError

FIGURES = [item for _, item in inspect.getmembers(figures, dataclasses.is_dataclass)]


@pytest.mark.parametrize("kind", FIGURES, ids=lambda kind: kind.__name__)
def test_figures_are_frozen_messages(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")


def test_an_interval_is_at_95_percent_unless_told() -> None:
    assert figures.Interval(0.1, 0.2).level == 0.95


def test_figures_compare_by_value() -> None:
    one = figures.AccuracyFigures("top1", 0.5, 10, extras={"top5": 1.0})
    assert one == dataclasses.replace(one)
    assert one != dataclasses.replace(one, value=0.6)
    assert one.extras is not figures.AccuracyFigures("top1", 0.5, 10).extras


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("EdgecvError", 1),
        ("UsageError", 2),
        ("RecipeError", 2),
        ("ModelError", 2),
        ("DataError", 2),
        ("BudgetError", 3),
        ("MeasurementError", 4),
        ("ToolchainError", 5),
        ("ArtifactError", 6),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    kind = getattr(errors, name)
    assert kind.exit_code == code
    assert issubclass(kind, EdgecvError)


def test_problems_read_like_a_compilers() -> None:
    assert str(Problem("a.yaml", 3, "steps[0]", "is wrong")) == "a.yaml:3: steps[0]: is wrong"
    assert str(Problem("a.yaml", None, "", "is missing")) == "a.yaml: is missing"
    error = RecipeError([Problem("a.yaml", 1, "x", "one"), Problem("a.yaml", 2, "y", "two")])
    assert str(error) == "a.yaml:1: x: one\na.yaml:2: y: two"
    assert len(error.problems) == 2


def test_messages_between_parts_are_frozen() -> None:
    for kind in (Sample, CompileSource):
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
