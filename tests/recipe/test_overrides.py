from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecv.core.recipe import Finetune, Quantize
from edgecv.errors import Problem
from edgecv.recipe.load import load_recipe, recipe_for
from edgecv.recipe.overrides import Setting, apply, parse_sets

Problems = Callable[..., list[Problem]]
Write = Callable[[str], Path]


def change(plain: dict[str, Any], keys: str, value: Any) -> tuple[dict[str, Any], str | None]:
    done, _, wrong = apply(plain, Setting(keys, value, "--set", None))
    return done, wrong


def test_set_changes_a_copy() -> None:
    plain = {"a": {"b": [{"c": 1}, 2]}}
    done, wrong = change(plain, "a.b.0.c", 5)
    assert wrong is None
    assert done == {"a": {"b": [{"c": 5}, 2]}}
    assert plain == {"a": {"b": [{"c": 1}, 2]}}


def test_set_makes_the_mappings_on_the_way() -> None:
    assert change({"a": None}, "a.b.c", 1) == ({"a": {"b": {"c": 1}}}, None)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("a.2", "allowed: 0 to 1"),
        ("a.x", "not a position"),
        ("a.-1", "not a position"),
        ("b.c", "it holds no 'c'"),
        ("a..b", "empty part"),
        ("", "empty part"),
        ("empty.0", "the list is empty"),
        ("steps.0.finetune.epochs", "is a prune step, not 'finetune'"),
    ],
)
def test_set_refuses_places_that_are_not_there(keys: str, words: str) -> None:
    plain = {"a": [1, 2], "b": 3, "empty": [], "steps": [{"prune": {}}]}
    done, wrong = change(plain, keys, 1)
    assert wrong is not None
    assert words in wrong
    assert done == plain


def test_set_values_are_yaml() -> None:
    settings, problems = parse_sets(["a=1e-4", "b=[x, 2]", "c={d: null}", "e=", "f='7'", "g=x=y"])
    assert problems == []
    assert [setting.value for setting in settings] == [1e-4, ["x", 2], {"d": None}, None, "7", "x=y"]


@pytest.mark.parametrize("text", ["seed", "=3", "seed=[1", "seed=!!int 3", "seed={a: 1, a: 2}", "a=\ud800"])
def test_set_texts_that_cannot_be_read(text: str) -> None:
    _, problems = parse_sets([text])
    assert problems[0].file.startswith("--set ")
    assert problems[0].line is None


def test_sets_change_the_recipe(write: Write, good: str) -> None:
    sets = ["steps.1.finetune.epochs=7", "targets=[host-openvino]", "budgets.size_mb=2", "measure.protocol=quick"]
    recipe = load_recipe(write(good), sets=sets, env={}).recipe
    assert recipe.steps[1] == Finetune(epochs=7)
    assert recipe.targets == ("host-openvino",)
    assert recipe.budgets.size_mb == 2
    assert recipe.measure.protocol == "quick"


def test_set_can_reach_into_short_forms(write: Write, good: str, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"")
    text = good.replace("  input:", "  weights: gone.pt\n  input:")
    sets = ["model.weights=w.pt", "model.weights.strip_prefix=module."]
    weights = load_recipe(write(text), sets=sets[:1], env={}).recipe.model.weights
    assert weights is not None
    assert weights.path == str(tmp_path / "w.pt")
    weights = load_recipe(write(text.replace("gone", "w")), sets=sets[1:], env={}).recipe.model.weights
    assert weights is not None
    assert weights.strip_prefix == "module."


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("steps.1.finetune.epochs=-1", "steps.1.finetune.epochs", "at least 0"),
        ("steps.1.finetune.epoch=3", "steps.1.finetune.epoch", "did you mean 'epochs'"),
        ("budgets.latncy.p95_ms=3", "budgets.latncy", "did you mean 'latency'"),
        ("sed=3", "sed", "did you mean 'seed'"),
        ("steps.0.quantize.method=qat", "", "is a prune step, not 'quantize'"),
        ("model.weights=gone.pt", "model.weights.path", "no such file"),
    ],
)
def test_a_wrong_set_is_named_as_such(problems: Problems, good: str, text: str, where: str, words: str) -> None:
    (problem,) = problems(good, sets=[text])
    assert (problem.file, problem.line, problem.where) == (f"--set {text}", None, where)
    assert words in problem.message


OVERRIDES = """\
overrides:
  - select: "raspberry-pi-*"
    set:
      budgets.latency.p95_ms: 40
      steps.2.quantize.scheme: affine
  - select: raspberry-pi-4
    set: {budgets.latency.p95_ms: 80, measure.fps: 10}
"""


def test_overrides_change_their_targets_only_and_the_last_wins(write: Write, good: str) -> None:
    loaded = load_recipe(write(good + OVERRIDES), env={})
    host, four, five = (recipe_for(loaded, target.name) for target in loaded.targets)
    latency = [recipe.budgets.latency.p95_ms for recipe in (host, four, five) if recipe.budgets.latency]
    assert latency == [5, 80, 40]
    assert [recipe.measure.fps for recipe in (host, four, five)] == [30, 10, 30]
    assert [recipe.steps[2] for recipe in (host, four)] == [Quantize("ptq"), Quantize("ptq", scheme="affine")]
    assert loaded.recipe.steps[2] == Quantize("ptq")
    assert four.overrides == ()


def test_overrides_start_from_what_set_changed(write: Write, good: str) -> None:
    loaded = load_recipe(write(good + OVERRIDES), sets=["budgets.latency.p99_ms=9"], env={})
    latency = recipe_for(loaded, "raspberry-pi-5").budgets.latency
    assert latency is not None
    assert (latency.p95_ms, latency.p99_ms) == (40, 9)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('"raspberry-pi-*"', "jetson-*", 20, "matches no target of this recipe"),
        ("scheme: affine", "scheme: odd", 23, "allowed: portable, symmetric, affine"),
        ("p95_ms: 40", "p95: 40", 22, "did you mean 'p95_ms'"),
        ("steps.2.quantize", "steps.9.quantize", 23, "allowed: 0 to 2"),
        ("steps.2.quantize", "steps.1.quantize", 23, "is a finetune step"),
        ("steps.2.quantize.scheme", "model.source", 23, "is the same for all targets"),
        ("steps.2.quantize.scheme", "steps.0.prune.speedup", 23, "is the same for all targets"),
        ("steps.2.quantize.scheme", "targets", 23, "is the same for all targets"),
        ("steps.2.quantize.scheme: affine", "measure.fps: 0", 23, "above 0"),
        ("set: {budgets", "sets: {budgets", 25, "did you mean 'set'"),
    ],
)
def test_a_wrong_override_is_named_at_its_line(
    problems: Problems, good: str, old: str, new: str, line: int, words: str
) -> None:
    assert old in OVERRIDES
    found = problems(good + OVERRIDES.replace(old, new))
    assert any(problem.line == line and words in problem.message for problem in found), [str(item) for item in found]
    assert len(found) == len(set(found))


def test_a_rule_that_an_override_breaks(problems: Problems, good: str) -> None:
    text = good.replace("method: ptq", "method: fp16").replace(
        "  calibration: {source: {kind: sklearn-digits, split: train}, samples: 32}\n", ""
    )
    (problem,) = problems(text + "overrides:\n  - {select: raspberry-pi-4, set: {steps.2.quantize.method: ptq}}\n")
    assert problem.line == 19
    assert "ptq needs data.calibration" in problem.message
