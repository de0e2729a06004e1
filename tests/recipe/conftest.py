"""A small good recipe that the tests bend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv.errors import Problem, RecipeError
from edgecv.recipe.load import load_recipe

GOOD = """\
recipe: 1
name: small
model:
  source: python:edgecv.models.reference:digits_cnn
  input: {size: [8, 8], color: gray, mean: [0.0], std: [1.0]}
family:
  kind: classification
  labels: [zero, one, two, three, four, five, six, seven, eight, nine]
data:
  eval: {kind: sklearn-digits, split: test}
  train: {kind: sklearn-digits, split: train}
  calibration: {source: {kind: sklearn-digits, split: train}, samples: 32}
steps:
  - prune: {importance: taylor, speedup: 2.0}
  - finetune: {epochs: 2}
  - quantize: {method: ptq}
targets: [host-onnxruntime, raspberry-pi-4, raspberry-pi-5]
budgets: {accuracy: {metric: top1, max_drop: 0.01}, latency: {p95_ms: 5}}
"""


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write the text of a recipe; its path."""

    def _write(text: str) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.fixture
def problems(write: Callable[[str], Path]) -> Callable[..., list[Problem]]:
    """The problems of a recipe's text; fails where it has none."""

    def _problems(text: str, **options: object) -> list[Problem]:
        with pytest.raises(RecipeError) as caught:
            load_recipe(write(text), env={}, **options)  # type: ignore[arg-type]
        assert caught.value.exit_code == 2
        return list(caught.value.problems)

    return _problems
