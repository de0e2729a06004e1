"""Every ready recipe loads where the data that it names are in place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgecv.core.recipe import CalibrationSpec, Finetune
from edgecv.errors import RecipeError
from edgecv.recipe.files import list_recipes
from edgecv.recipe.load import load_recipe, recipe_for

RECIPES = list_recipes()
WITH_DATA = [name for name, path in RECIPES.items() if "${EDGECV_DATA}" in path.read_text()]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Folders and empty files for every ${...} path of the ready recipes."""
    for path in RECIPES.values():
        for variable, rest in re.findall(r"\$\{(EDGECV_\w+)\}(/[\w./-]+)", path.read_text()):
            place = tmp_path / variable / rest.lstrip("/")
            if place.suffix:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("one\ntwo\n")
            else:
                place.mkdir(parents=True, exist_ok=True)
    return {name: str(tmp_path / name) for name in ("EDGECV_DATA", "EDGECV_WEIGHTS")}


def test_the_ready_recipes() -> None:
    assert len(RECIPES) >= 12
    assert all(load_recipe(path, check_files=False).recipe.name == name for name, path in RECIPES.items())


@pytest.mark.parametrize("name", WITH_DATA)
def test_a_ready_recipe_loads(name: str, env: dict[str, str]) -> None:
    loaded = load_recipe(RECIPES[name], env=env)
    recipe = loaded.recipe
    assert isinstance(recipe.data.calibration, CalibrationSpec)
    first = recipe.steps[0]
    from_nothing = isinstance(first, Finetune) and first.epochs >= 100 and first.distill == 0
    brings_its_own = recipe.model.source.startswith("onnx:")
    assert [recipe.model.weights is not None, brings_its_own, from_nothing].count(True) == 1
    for target in loaded.targets:
        budgets = recipe_for(loaded, target.name).budgets
        assert budgets.accuracy is not None
        assert budgets.accuracy.max_drop is not None


def test_digits_needs_nothing_from_outside() -> None:
    loaded = load_recipe(RECIPES["digits"], env={})
    assert loaded.calibration is not None
    assert len(loaded.calibration.files) == 128


@pytest.mark.parametrize("name", WITH_DATA)
def test_without_data_the_message_tells_what_to_set(name: str) -> None:
    with pytest.raises(RecipeError, match=r"environment variable EDGECV_DATA is not set; .*export EDGECV_DATA="):
        load_recipe(RECIPES[name], env={})


def test_the_detection_recipe_on_real_data(shared_data: Path) -> None:
    recipe = load_recipe(RECIPES["yolox-nano"], env={"EDGECV_DATA": str(shared_data)}).recipe
    table = json.loads((shared_data / "coco-mini" / "instances.json").read_text())["categories"]
    assert list(recipe.family.labels) == [item["name"] for item in sorted(table, key=lambda item: item["id"])]
    assert recipe.budgets.accuracy is not None
    assert recipe.budgets.accuracy.metric == "ap"


def test_the_cifar_recipe_on_real_data(shared_data: Path) -> None:
    loaded = load_recipe(RECIPES["cifar10-resnet20"], env={"EDGECV_DATA": str(shared_data)})
    names = (shared_data / "cifar10-mini" / "labels.txt").read_text().split()
    assert list(loaded.recipe.family.labels) == names
