"""Clean pictures with noise put on: the pairs that a denoiser learns from and is judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.data.readers import LabelledReader, open_reader, open_subset, spec_fingerprint
from edgecv.data.tiled import as_inputs
from edgecv.errors import RecipeError
from edgecv.recipe.load import load_recipe
from edgecv.vision.fidelity import psnr_db
from edgecv.vision.scenes import LABELS as SHOWN

LABELS = ("picture",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four smooth gray pictures of 60 x 80, between 60 and 190, so that hardly any noise is cut."""
    (tmp_path / "clean").mkdir()
    for number in range(4):
        coarse = np.random.default_rng(number).integers(60, 190, (4, 5, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"clean/{number}.png"), cv2.resize(coarse, (80, 60)))
    return tmp_path


def spec(**more: Any) -> DataSpec:
    return DataSpec("noisy", path="clean", **more)


def opened(base: Path, what: DataSpec) -> LabelledReader:
    return open_reader(what, base=base, labels=LABELS)


def gaps(reader: LabelledReader) -> np.ndarray:
    return np.stack([reader[index].image.astype(float) - reader[index].truth for index in range(len(reader))])


@pytest.mark.parametrize(
    ("more", "variance"), [({}, 25.0**2), ({"noise": 10.0}, 100.0), ({"noise": 0.0}, 0.0), ({"shot": 1.0}, None)]
)
def test_the_truth_is_the_file_and_the_picture_is_noisy(
    folder: Path, more: dict[str, float], variance: float | None
) -> None:
    reader = opened(folder, spec(**more))
    clean = [cv2.imread(str(folder / f"clean/{number}.png")) for number in range(4)]
    assert all((reader[index].truth == clean[index]).all() for index in range(4))
    wanted = float(np.mean(clean)) if variance is None else variance
    assert gaps(reader).var() == pytest.approx(wanted, rel=0.04)


def test_noise_follows_from_the_name_alone(folder: Path) -> None:
    whole, again = opened(folder, spec()), opened(folder, spec())
    part = open_subset(spec(), ["2.png"], base=folder, labels=LABELS)
    assert (whole[2].image == again[2].image).all()
    assert (part[0].image == whole[2].image).all()
    noise = gaps(whole)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_scenes_are_clean_before_the_noise(tmp_path: Path) -> None:
    test = DataSpec("scenes-noisy", split="test", limit=3, noise=25.0)
    reader = opened(tmp_path, test)
    assert list(reader.ids) == ["test-00000", "test-00001", "test-00002"]
    sample = reader[1]
    assert sample.image.shape == sample.truth.shape == (240, 320, 3)
    assert psnr_db(sample.image.astype(float), sample.truth.astype(float)) == pytest.approx(20.2, abs=0.4)
    part = open_subset(test, ["test-00001"], base=tmp_path, labels=LABELS)
    assert (part[0].image == sample.image).all()
    usual = open_reader(DataSpec("scenes-boxes", split="test", limit=2), base=tmp_path, labels=SHOWN)[1].image
    assert (usual.astype(float) - sample.truth).std() == pytest.approx(2.7, rel=0.2), "other scenes have some"


def test_a_tile_has_the_same_part_of_both(folder: Path) -> None:
    tiles = as_inputs(opened(folder, spec(noise=0.0)), FamilySpec("restoration", LABELS), InputContract(size=(32, 40)))
    for index in range(len(tiles)):
        assert tiles[index].image.shape == (32, 40, 3)
        assert (tiles[index].image == tiles[index].truth).all()


def test_the_quick_hash_follows_the_noise(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = (spec(), spec(noise=10.0), spec(shot=0.5))
    found = {spec_fingerprint(item, base=folder) for item in specs}
    monkeypatch.setattr("edgecv.__version__", "0.0.0")
    assert len({*found, spec_fingerprint(spec(), base=folder)}) == 4


def test_the_reader_says_which_noise(folder: Path) -> None:
    assert "Gaussian of 25" in opened(folder, spec()).notes[-1]
    assert "Gaussian of 0, Poisson with 0.5 steps" in opened(folder, spec(shot=0.5)).notes[-1]


RECIPE = """
recipe: 1
name: clean
model: {source: "python:edgecv.models.reference_restoration:dncnn", input: {size: [32, 32]}}
family: {kind: restoration, labels: [picture]}
data:
  eval: DATA
steps: []
targets: [host-onnxruntime]
"""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{kind: noisy, path: clean, noise: -1}", "noise"),
        ("{kind: noisy, path: clean, shot: 100}", "shot"),
        ("{kind: noisy, path: clean, truth: clean}", "truth"),
        ("{kind: pairs, path: clean, truth: clean, noise: 5}", r"noise: is 5\.0; it goes only with data of kind noisy"),
        ("{kind: scenes-noisy, path: clean}", "takes no path"),
        ("{kind: noisy}", "needs path: a folder of clean pictures"),
    ],
)
def test_bad_settings_are_named(folder: Path, data: str, words: str) -> None:
    (folder / "bad.yaml").write_text(RECIPE.replace("DATA", data))
    with pytest.raises(RecipeError, match=words):
        load_recipe(folder / "bad.yaml")
