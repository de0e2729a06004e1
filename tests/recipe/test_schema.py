from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecv.errors import RecipeError
from edgecv.recipe.files import list_recipes
from edgecv.recipe.load import load_recipe
from edgecv.recipe.schema import recipe_schema, target_schema
from edgecv.recipe.targets import list_targets
from edgecv.recipe.yaml_lines import parse_yaml, read_yaml, to_yaml

Validator = jsonschema.Draft202012Validator
RECIPE = Validator(recipe_schema())
TARGET = Validator(target_schema())


def test_the_schemas_are_schemas() -> None:
    Validator.check_schema(recipe_schema())
    Validator.check_schema(target_schema())
    assert recipe_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_files_are_current(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("schema_tool", root / "tools" / "schema.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for path, text in tool.schema_files().items():
        assert path.read_text() == text, f"{path} is stale: run python tools/schema.py"
    assert tool.main(["--check"]) == 0


@pytest.mark.parametrize("path", list_recipes().values(), ids=lambda path: path.stem)
def test_ready_recipes_fit_the_schema(path: Path) -> None:
    RECIPE.validate(read_yaml(path).value)
    assert path.read_text().startswith("# yaml-language-server: $schema=../recipe.schema.json\n")


@pytest.mark.parametrize("path", list_targets().values(), ids=lambda path: path.stem)
def test_targets_fit_the_schema(path: Path) -> None:
    TARGET.validate(read_yaml(path).value)
    assert path.read_text().startswith("# yaml-language-server: $schema=target.schema.json\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("recipe: 1", "recipe: 2"),
        ("recipe: 1\n", ""),
        ("name: small", "name: A B"),
        ("color: gray", "color: grey"),
        ("size: [8, 8]", "size: [8]"),
        ("size: [8, 8]", "size: [8, 8, 8]"),
        ("mean: [0.0]", "mean: [x]"),
        ("budgets:", "budgts: 1\nbudgets:"),
        ("- finetune: {epochs: 2}", "- finetune"),
        ("- finetune: {epochs: 2}", "- {}"),
        ("- finetune: {epochs: 2}", "- {finetune: {epochs: 2}, prune: {ratio: 0.5}}"),
        ("- finetune: {epochs: 2}", "- fine: {epochs: 2}"),
        ("epochs: 2", "epochs: 2, distill: {weight: 3}"),
        ("epochs: 2", "epochs: '2'"),
        ("speedup: 2.0", "speedup: 2.0, ratio: 0.5"),
        (", speedup: 2.0", ""),
        ("  input:", "  weights: {key: a}\n  input:"),
        ("  input:", "  weights: {path: a, url: 'https://b', sha256: x}\n  input:"),
        ("  input:", "  weights: {url: 'https://b'}\n  input:"),
        ("sklearn-digits, split: test", "sklearn-digits, path: x"),
        ("sklearn-digits, split: test", "imagefolder"),
        ("sklearn-digits, split: test", "csv, path: x, split: test"),
        ("samples: 32", "samples: 0"),
        ("targets: [", "targets: [host-onnxruntime, "),
        ("metric: top1", "metric: top3"),
    ],
)
def test_what_the_loader_refuses_for_its_shape_the_schema_refuses_too(
    problems: Callable[..., Any], good: str, old: str, new: str
) -> None:
    text = good.replace(old, new, 1)
    assert text != good
    assert problems(text, check_files=False)
    assert not RECIPE.is_valid(parse_yaml(text, file="f").value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  input:", "  weights: w.safetensors\n  input:"),
        ("  input:", f"  weights: 'https://b/c.pt#sha256={'a' * 64}'\n  input:"),
        ("  input:", "  weights: null\n  input:"),
        ("labels: [zero, one, two, three, four, five, six, seven, eight, nine]", "labels: imagenet-1k"),
        ("speedup: 2.0", "speedup: null, ratio: 0.5"),
        ("{source: {kind: sklearn-digits, split: train}, samples: 32}", "digits-128"),
        ("epochs: 2", "epochs: 2, distill: {weight: 0.3}"),
    ],
)
def test_the_short_forms_fit_both(write: Callable[[str], Path], good: str, old: str, new: str) -> None:
    text = good.replace(old, new, 1)
    assert text != good
    load_recipe(write(text), check_files=False, env={})
    RECIPE.validate(parse_yaml(text, file="f").value)


def _bend(value: Any, draw: Callable[[Any], Any]) -> None:
    """Put a value of some type at a random place, or take one away."""
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        child = place[key]
        if not isinstance(child, (dict, list)) or not child or draw(st.booleans()):
            break
        place = child
    if draw(st.booleans()):
        place[key] = draw(st.sampled_from([None, True, 0, 1, 0.5, -1, "x", "top5", "gray", [], {}, [0.5], {"x": 1}]))
    else:
        del place[key]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_the_loader_takes_fits_the_schema(data: st.DataObject, tmp_path: Path, good: str) -> None:
    value = copy.deepcopy(parse_yaml(good, file="f").value)
    _bend(value, data.draw)
    path = tmp_path / "bent.yaml"
    path.write_text(to_yaml(value))
    try:
        load_recipe(path, check_files=False, env={})
    except RecipeError:
        return
    RECIPE.validate(value)
