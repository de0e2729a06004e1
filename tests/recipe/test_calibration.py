from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgecv.core.calibration import CalibrationFile, CalibrationManifest
from edgecv.core.recipe import DataSpec
from edgecv.errors import RecipeError
from edgecv.recipe.calibration import calibration_folders
from edgecv.recipe.load import load_calibration, load_recipe, write_calibration


def manifest(**changes: object) -> CalibrationManifest:
    made = CalibrationManifest(
        calibration=1,
        name="two",
        source=DataSpec("imagefolder", path="pictures"),
        licence="CC0",
        select="stratified",
        seed=0,
        coverage={"1e5": 1, "no": 1},
        files=(CalibrationFile("cat/1e5.jpg", "a" * 64), CalibrationFile("007", "1" * 63 + "e")),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "calibration" / "pictures").mkdir(parents=True)
    return tmp_path


def test_what_is_written_is_read_back(folder: Path) -> None:
    path = folder / "calibration" / "two.yaml"
    write_calibration(manifest(), path)
    assert load_calibration("two", base=folder, check_files=False) == manifest()
    source = dataclasses.replace(manifest().source, path=str(folder / "calibration" / "pictures"))
    assert load_calibration("two", base=folder, env={}) == manifest(source=source)
    assert load_calibration("calibration/two.yaml", base=folder, env={}).name == "two"
    assert [item.name for item in path.parent.iterdir() if item.is_file()] == ["two.yaml"]


def test_it_is_found_beside_and_above_the_recipe(folder: Path) -> None:
    write_calibration(manifest(), folder / "calibration" / "two.yaml")
    below = folder / "recipes"
    assert load_calibration("two", base=below, env={}).name == "two"
    assert len(calibration_folders(below)) == 3
    with pytest.raises(RecipeError, match=r"no calibration manifest 'tow' \(did you mean 'two'\?\)"):
        load_calibration("tow", base=below)


@pytest.mark.parametrize("name", ["../two", "a/b", "/etc/passwd", "", ".."])
def test_names_are_not_paths(folder: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="is not a calibration name"):
        load_calibration(name, base=folder)


@pytest.mark.parametrize("identifier", ["/etc/passwd", "../x.jpg", "a/../../x", "C:\\x.jpg", "..\\x", "\\x"])
def test_ids_stay_inside_the_source(folder: Path, identifier: str) -> None:
    bad = manifest(files=(CalibrationFile(identifier, "a" * 64),))
    with pytest.raises(RecipeError, match="relative to the source"):
        write_calibration(bad, folder / "two.yaml")
    path = folder / "calibration" / "two.yaml"
    write_calibration(manifest(), path)
    path.write_text(path.read_text().replace("007", identifier))
    with pytest.raises(RecipeError, match="relative to the source") as caught:
        load_calibration("two", base=folder, env={})
    assert caught.value.problems[0].line == path.read_text().splitlines().index(
        next(line for line in path.read_text().splitlines() if identifier in line)
    ) + 1  # fmt: skip


def test_other_things_that_a_manifest_must_not_have(folder: Path) -> None:
    path = folder / "calibration" / "two.yaml"
    for bad, words in (
        (manifest(name="other"), "must be the file's name"),
        (manifest(files=()), "1 or more"),
        (manifest(files=(CalibrationFile("a", "a" * 64),) * 2), "listed twice"),
        (manifest(files=(CalibrationFile("a", "A" * 64),)), "must match"),
    ):
        with pytest.raises(RecipeError, match=words):
            write_calibration(bad, path)
        assert not path.exists()


def test_a_missing_source_is_named(folder: Path) -> None:
    write_calibration(manifest(source=DataSpec("imagefolder", path="gone")), folder / "calibration" / "two.yaml")
    with pytest.raises(RecipeError, match="there is no such folder"):
        load_calibration("two", base=folder, env={})
    with pytest.raises(RecipeError, match="no such calibration manifest"):
        load_calibration("gone.yaml", base=folder)


def test_a_recipe_brings_its_manifest(folder: Path, good: str) -> None:
    write_calibration(manifest(), folder / "calibration" / "two.yaml")
    path = folder / "small.yaml"
    path.write_text(good.replace("{source: {kind: sklearn-digits, split: train}, samples: 32}", "two"))
    loaded = load_recipe(path, env={})
    assert loaded.recipe.data.calibration == "two"
    assert loaded.calibration is not None
    assert loaded.calibration.source.path == str(folder / "calibration" / "pictures")


def test_problems_of_a_manifest_carry_its_own_lines(folder: Path, good: str) -> None:
    (folder / "calibration" / "two.yaml").write_text("calibration: 1\nname: two\nselect: best\n")
    path = folder / "small.yaml"
    path.write_text(good.replace("{source: {kind: sklearn-digits, split: train}, samples: 32}", "two"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, env={})
    assert any(item.line == 3 and item.file.endswith("two.yaml") for item in caught.value.problems)
