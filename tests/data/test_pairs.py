"""Pictures and their references: how they are found, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.data.readers import LabelledReader, open_reader
from edgecv.data.tiled import as_inputs, tiles
from edgecv.errors import DataError
from edgecv.vision.tiles import Tiling


def write(path: Path, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), image)
    return image


def opened(
    base: Path, path: str = "in", truth: str = "out", *, strict: bool = True, only: str | None = None
) -> LabelledReader:
    spec = DataSpec("pairs", path=path, truth=truth, strict=strict, only=only)
    return open_reader(spec, base=base, labels=["picture"])


def test_references_by_name(tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", 10, 12)
    write(tmp_path / "in/deep/b.png", 8, 9)
    large = write(tmp_path / "out/a.bmp", 20, 24, seed=1)
    write(tmp_path / "out/deep/b.png", 16, 18)
    reader = opened(tmp_path)
    assert list(reader.ids) == ["a.png", "deep/b.png"]
    assert reader[0].image.shape == (10, 12, 3)
    assert (reader[0].truth == large).all()


def test_the_scale_in_a_name_may_be_missing_in_the_reference(tmp_path: Path) -> None:
    for name in ("ax2.png", "b_x2.png", "c.png"):
        write(tmp_path / "in" / name, 5, 5)
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "out" / name, 10, 10)
    assert len(opened(tmp_path)) == 3


def test_references_by_a_pattern_beside_the_pictures(tmp_path: Path) -> None:
    write(tmp_path / "all/a.png", 5, 5)
    write(tmp_path / "all/a_good.png", 5, 5)
    reader = opened(tmp_path, "all", "all/{stem}_good.png")
    assert list(reader.ids) == ["a.png"]


def test_pictures_cannot_be_their_own_references(tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", 5, 5)
    with pytest.raises(DataError, match=r"all 1 pictures of .*in are references themselves; truth must be another"):
        opened(tmp_path, "in", "in")


def test_pictures_without_a_reference_are_named(tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", 5, 5)
    write(tmp_path / "in/b.png", 5, 5)
    write(tmp_path / "out/a.png", 5, 5)
    with pytest.raises(DataError, match=r"1 of 2 pictures have no reference: b.png"):
        opened(tmp_path)
    assert len(opened(tmp_path, only="a.*")) == 1
    with pytest.raises(DataError, match="does not exist"):
        opened(tmp_path, truth="nowhere")
    write(tmp_path / "out/a.bmp", 5, 5)
    with pytest.raises(DataError, match="two references"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("size", "why"), [((11, 12), "whole number"), ((10, 18), "whole number"), ((15, 18), "others of the set are 2")]
)
def test_a_reference_of_a_wrong_size_is_named(tmp_path: Path, size: tuple[int, int], why: str) -> None:
    write(tmp_path / "in/a.png", 5, 6)
    write(tmp_path / "out/a.png", 10, 12)
    write(tmp_path / "in/b.png", 5, 6)
    write(tmp_path / "out/b.png", *size)
    with pytest.raises(DataError, match=rf"b.png: .*{why}"):
        opened(tmp_path)
    assert list(opened(tmp_path, only="a.*").ids) == ["a.png"]


def test_broken_references_are_named(tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", 5, 6)
    write(tmp_path / "out/a.png", 5, 6)
    whole = (tmp_path / "out/a.png").read_bytes()
    for broken, why in ((b"", "empty"), (whole[: len(whole) // 2], "cut short|damaged"), (b"no picture", "format")):
        (tmp_path / "out/a.png").write_bytes(broken)
        with pytest.raises(DataError, match=rf"a.png: .*({why})"):
            opened(tmp_path)


def test_a_changed_reference_changes_the_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", 5, 6)
    write(tmp_path / "out/a.png", 10, 12)
    before = opened(tmp_path).fingerprint()
    write(tmp_path / "out/a.png", 10, 12, seed=7)
    assert opened(tmp_path).fingerprint() != before


def test_a_turned_photograph_is_as_large_as_it_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "in/a.jpg", 6, 10)
    data = (tmp_path / "in/a.jpg").read_bytes()
    tiff = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"\xff\xe1" + (len(tiff) + 2).to_bytes(2, "big") + tiff
    (tmp_path / "in/a.jpg").write_bytes(data[:2] + exif + data[2:])
    write(tmp_path / "out/a.png", 20, 12)
    sample = opened(tmp_path)[0]
    assert sample.image.shape == (10, 6, 3)
    assert sample.truth.shape == (20, 12, 3)


def test_tiles_of_pictures_and_the_same_part_of_their_references(tmp_path: Path) -> None:
    small = write(tmp_path / "in/a.png", 70, 90)
    (tmp_path / "out").mkdir()
    cv2.imwrite(str(tmp_path / "out/a.png"), small.repeat(2, axis=0).repeat(2, axis=1))
    spec = FamilySpec("restoration", ("picture",), options={"scale": 2})
    reader = as_inputs(opened(tmp_path), spec, InputContract(size=(32, 24)))
    sample = reader[0]
    assert sample.image.shape == (32, 24, 3)
    assert (sample.truth == sample.image.repeat(2, axis=0).repeat(2, axis=1)).all()
    assert (reader[0].image == sample.image).all()
    assert (len(reader), reader.sha256(0)) == (1, opened(tmp_path).sha256(0))


def test_a_reference_of_another_scale_than_the_models_is_named(tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", 70, 90)
    write(tmp_path / "out/a.png", 140, 180)
    with pytest.raises(DataError, match=r"a.png: .*family.options.scale 3"):
        tiles(opened(tmp_path), Tiling((32, 32), 8, 3))[0]


def test_other_families_see_whole_pictures(tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", 70, 90)
    write(tmp_path / "out/a.png", 70, 90)
    reader = opened(tmp_path)
    assert as_inputs(reader, FamilySpec("embedding", ("x",)), InputContract(size=(32, 32))) is reader
    whole = FamilySpec("restoration", ("picture",), options={"tiles": False})
    assert as_inputs(reader, whole, InputContract(size=(32, 32))) is reader


def test_set5(shared_data: Path) -> None:
    place = shared_data / "restoration-mini" / "set5"
    reader = opened(place, "LR_bicubic_x2", "HR")
    assert [sample.truth.shape for sample in reader] == [(512, 512, 3), (288, 288, 3), (256, 256, 3)]
