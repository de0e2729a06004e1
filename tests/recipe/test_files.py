from __future__ import annotations

from pathlib import Path

import pytest

import edgecv
from edgecv.errors import RecipeError
from edgecv.recipe.files import data_folder, find_recipe, list_recipes


def test_in_a_checkout_the_folders_are_at_its_root(root: Path) -> None:
    assert data_folder("recipes") == root / "recipes"
    assert data_folder("targets") == root / "targets"
    assert data_folder("calibration") == root / "calibration"


def test_in_a_wheel_they_are_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edgecv" / "_files" / "targets").mkdir(parents=True)
    monkeypatch.setattr(edgecv, "__file__", str(tmp_path / "edgecv" / "__init__.py"))
    assert data_folder("targets") == tmp_path / "edgecv" / "_files" / "targets"


def test_ready_recipes_by_name_and_recipes_by_path(tmp_path: Path, root: Path) -> None:
    assert {"digits", "cifar10-resnet20", "resnet18"} <= set(list_recipes())
    assert find_recipe("digits") == root / "recipes/classification/digits.yaml"
    own = tmp_path / "own.yaml"
    own.write_text("")
    assert find_recipe(str(own)) == own
    with pytest.raises(RecipeError, match="did you mean 'resnet18'"):
        find_recipe("resnet-18")


def test_the_weights_beside_the_recipes_stay_small(root: Path) -> None:
    """2 MB for all that is trained on made-up pictures; digits are scikit-learn's."""
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    files = sorted((root / "recipes").rglob("*.safetensors"))
    sizes = {path.relative_to(root): path.stat().st_size for path in files}
    assert sum(size for path, size in sizes.items() if path.name != "digits.safetensors") <= 2_000_000, sizes
    assert sum(sizes.values()) <= 2_400_000, sizes
    for path in files:
        assert {value.dtype for value in safetensors.load_file(path).values()} == {torch.float16}, path
