"""Pictures for inspection: folders of good and defective ones with or without masks, and made-up surfaces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError
from edgecv.families.anomaly_map import AnomalyTruth
from edgecv.vision.textures import DEFECTS, TEXTURES, add_defect, draw_texture

SPEC = DataSpec("anomaly", path="test", truth="ground_truth")


@pytest.fixture
def bottle(tmp_path: Path) -> Path:
    """Two good pictures, one with a hole and one with a scratch, with masks, laid out as MVTec AD is."""
    image = np.full((20, 30, 3), 90, np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:8, 10:12] = 255
    for name in ("good/000", "good/001", "hole/000", "scratch/000"):
        write(tmp_path / f"test/{name}.png", image)
    write(tmp_path / "ground_truth/hole/000_mask.png", mask)
    write(tmp_path / "ground_truth/scratch/000.png", mask)
    return tmp_path


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def test_good_and_defective_pictures_are_read(bottle: Path) -> None:
    reader = open_reader(SPEC, base=bottle, labels=())
    assert list(reader.ids) == ["good/000.png", "good/001.png", "hole/000.png", "scratch/000.png"]
    assert reader[0].truth == AnomalyTruth(False)
    for row in (2, 3):
        truth = reader[row].truth
        assert truth.defect
        assert truth.mask.shape == (20, 30)
        assert int(truth.mask.sum()) == 6
    assert reader.notes == ()
    one = open_reader(DataSpec("anomaly", path="test", truth="ground_truth", only="good*"), base=bottle, labels=())
    assert list(one.ids) == ["good/000.png", "good/001.png"]


def test_defects_without_masks_are_whole_pictures(bottle: Path) -> None:
    reader = open_reader(DataSpec("anomaly", path="test"), base=bottle, labels=())
    assert reader[2].truth == AnomalyTruth(True)
    assert reader.notes == ("no masks for hole, scratch: judged by whole pictures only",)
    (bottle / "ground_truth/hole/000_mask.png").unlink()
    (bottle / "ground_truth/hole").rmdir()
    reader = open_reader(SPEC, base=bottle, labels=())
    assert reader[2].truth == AnomalyTruth(True)
    assert reader[3].truth.mask is not None
    assert "no masks for hole:" in reader.notes[0]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((4, 4), 255, np.uint8), "the mask has 4 x 4 pixels and its picture 000.png 30 x 20"),
        (np.zeros((20, 30), np.uint8), "the mask is all 0"),
        (np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8), "the mask is in colour"),
    ],
)
def test_broken_masks_are_named(bottle: Path, mask: np.ndarray, message: str) -> None:
    write(bottle / "ground_truth/hole/000_mask.png", mask)
    with pytest.raises(DataError, match=message) as error:
        open_reader(SPEC, base=bottle, labels=())
    assert "000_mask.png" in str(error.value)
    assert error.value.exit_code == 2


def test_folders_that_are_not_as_they_should(bottle: Path) -> None:
    (bottle / "ground_truth/hole/000.png").write_bytes((bottle / "ground_truth/hole/000_mask.png").read_bytes())
    with pytest.raises(DataError, match=r"hole/000.png has two masks"):
        open_reader(SPEC, base=bottle, labels=())
    for name in ("000.png", "000_mask.png"):
        (bottle / "ground_truth/hole" / name).unlink()
    with pytest.raises(DataError, match=r"hole/000.png has no mask in"):
        open_reader(SPEC, base=bottle, labels=())
    with pytest.raises(DataError, match="has no folder 'good' \\(it has hole, scratch\\)"):
        open_reader(DataSpec("anomaly", path="ground_truth"), base=bottle, labels=())
    with pytest.raises(DataError, match="does not exist; truth is 'nowhere'"):
        open_reader(DataSpec("anomaly", path="test", truth="nowhere"), base=bottle, labels=())
    with pytest.raises(DataError, match="has no picture that fits only: 'hole'"):
        open_reader(DataSpec("anomaly", path="test", only="hole"), base=bottle, labels=())


def test_the_quick_hash_follows_the_masks(bottle: Path) -> None:
    before = spec_fingerprint(SPEC, base=bottle)
    mask = np.zeros((20, 30), np.uint8)
    mask[0, 0] = 255
    write(bottle / "ground_truth/hole/000_mask.png", np.ascontiguousarray(np.tile(mask, (1, 1))))
    (bottle / "ground_truth/hole/000_mask.png").touch()
    assert spec_fingerprint(SPEC, base=bottle) != before


def test_surfaces_are_the_same_everywhere_and_their_masks_exact() -> None:
    spec = DataSpec("textures", split="test", only="wood", limit=12)
    reader = open_reader(spec, base=Path(), labels=())
    assert [name.split("/")[1] for name in reader.ids[:4]] == ["good", "scratch", "good", "stain"]
    again = open_reader(spec, base=Path(), labels=())
    assert reader.fingerprint() == again.fingerprint()
    for sample in reader:
        assert sample.image.shape == (128, 128, 3)
        if sample.truth.defect:
            assert 5 <= int(sample.truth.mask.sum()) < 128 * 128 / 4
    part = open_subset(spec, [reader.ids[3]], base=Path(), labels=())
    assert (part[0].image == reader[3].image).all()
    train = open_reader(DataSpec("textures", split="train", limit=10), base=Path(), labels=())
    assert {name.split("/")[0] for name in train.ids} == set(TEXTURES)
    assert not any(sample.truth.defect for sample in train)
    with pytest.raises(DataError, match="only is 'marble', and no surface has that name"):
        open_reader(DataSpec("textures", only="marble"), base=Path(), labels=())


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_changes_its_pixels_and_no_others(kind: str) -> None:
    for number, surface in enumerate(TEXTURES):
        random = np.random.default_rng(number)
        plain = draw_texture(surface, random)
        spoiled, mask = add_defect(plain, kind, random)
        change = np.abs(spoiled.astype(int) - plain.astype(int)).mean(axis=2)
        assert change[mask > 0].mean() >= 20
        far = cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0
        assert change[far].mean() < 0.5
