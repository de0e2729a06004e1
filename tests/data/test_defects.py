"""Good pictures of the user's, of which some are spoiled."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError, RecipeError
from edgecv.recipe.load import load_recipe
from edgecv.vision.textures import draw_texture

COUNT = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good surfaces of 256 x 192 pixels."""
    place = tmp_path_factory.mktemp("good")
    for number in range(COUNT):
        cv2.imwrite(
            str(place / f"{number:02d}.png"), draw_texture("wood", np.random.default_rng(number), size=(192, 256))
        )
    return place


def spec(folder: Path, split: str = "all", **keys: object) -> DataSpec:
    return DataSpec("defects", path=str(folder), split=split, **keys)  # type: ignore[arg-type]


def test_about_half_are_spoiled_where_the_mask_says(folder: Path) -> None:
    reader = open_reader(spec(folder), base=folder, labels=())
    plain = open_reader(DataSpec("images", path=str(folder)), base=folder, labels=())
    spoiled = 0
    for index in range(COUNT):
        sample, before = reader[index], plain[index].image
        changed = np.abs(sample.image.astype(int) - before).max(axis=2) > 0
        if not sample.truth.defect:
            assert not changed.any()
            assert sample.truth.mask is None
            continue
        spoiled += 1
        mask = sample.truth.mask.astype(bool)
        # A soft edge reaches a little further than the mask does; nothing else of the picture changes.
        near = cv2.dilate(sample.truth.mask, np.ones((31, 31), np.uint8)).astype(bool)
        assert changed[mask].mean() > 0.8
        assert not changed[~near].any()
        assert 20 < mask.sum() < 0.3 * mask.size
    assert 0.25 * COUNT <= spoiled <= 0.75 * COUNT
    assert [truth == "defect" for truth in reader.truths] == [reader[index].truth.defect for index in range(COUNT)]
    assert any("painted" in note for note in reader.notes)


def test_split_train_is_all_good(folder: Path) -> None:
    reader = open_reader(spec(folder, "train"), base=folder, labels=())
    assert not any(reader[index].truth.defect for index in range(COUNT))
    assert not any("painted" in note for note in reader.notes)


def test_a_part_is_spoiled_as_the_whole_is(folder: Path) -> None:
    whole = open_reader(spec(folder), base=folder, labels=())
    names = [whole.ids[3], whole.ids[10]]
    part = open_subset(spec(folder), names, base=folder, labels=())
    some = open_reader(spec(folder, only="*1*"), base=folder, labels=())
    for other in (part, some):
        for index, name in enumerate(other.ids):
            assert np.array_equal(other[index].image, whole[list(whole.ids).index(name)].image)


def test_the_quick_hash_follows_the_split_and_who_paints(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {spec_fingerprint(spec(folder, split), base=folder) for split in ("all", "train")}
    monkeypatch.setattr("edgecv.__version__", "0.0.0")
    assert len({*found, spec_fingerprint(spec(folder), base=folder)}) == 3


def test_defects_grow_with_the_picture(tmp_path: Path) -> None:
    shares = []
    for side in (128, 512):
        place = tmp_path / str(side)
        place.mkdir()
        for number in range(COUNT):
            surface = draw_texture("stone", np.random.default_rng(number), size=(128, 128))
            cv2.imwrite(str(place / f"{number:02d}.png"), cv2.resize(surface, (side, side)))
        reader = open_reader(spec(place), base=place, labels=())
        samples = [reader[index] for index in range(COUNT)]
        shares.append(np.mean([sample.truth.mask.mean() for sample in samples if sample.truth.defect]))
    assert shares[1] == pytest.approx(shares[0], rel=0.3)


def test_a_set_without_a_spoiled_picture_is_refused(folder: Path, tmp_path: Path) -> None:
    reader = open_reader(spec(folder), base=folder, labels=())
    good = next(name for name, truth in zip(reader.ids, reader.truths, strict=True) if truth != "defect")
    with pytest.raises(DataError, match="1 pictures, and by name none of them"):
        open_reader(spec(folder, only=good), base=folder, labels=())
    assert len(open_subset(spec(folder), [good], base=folder, labels=())) == 1


def test_other_kinds_of_files_have_no_split(tmp_path: Path) -> None:
    text = """
recipe: 1
name: surfaces
model: {source: "python:edgecv.models.reference_anomaly:student_teacher", input: {size: [64, 64]}}
family: {kind: anomaly, labels: [defect]}
data:
  train: {kind: KIND, path: good, split: train}
  eval: {kind: KIND, path: good}
steps: [{fit: {samples: 8}}]
targets: [host-onnxruntime]
"""
    (tmp_path / "good").mkdir()
    (tmp_path / "good.yaml").write_text(text.replace("KIND", "defects"))
    assert load_recipe(tmp_path / "good.yaml").recipe.data.eval.kind == "defects"
    (tmp_path / "bad.yaml").write_text(text.replace("KIND", "anomaly"))
    with pytest.raises(RecipeError, match="have splits"):
        load_recipe(tmp_path / "bad.yaml")
