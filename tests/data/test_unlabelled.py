"""Pictures without labels: folders, globs, and what cannot be done with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec
from edgecv.data.lint import lint_calibration
from edgecv.data.readers import open_reader, spec_fingerprint
from edgecv.data.selection import pick
from edgecv.data.unlabelled import list_images
from edgecv.errors import DataError

from .conftest import Draw, encoded, picture


def ids(pattern: str, base: Path, only: str | None = None) -> list[str]:
    return [entry.id for entry in list_images(DataSpec("images", path=pattern, only=only), base=base).entries]


@pytest.fixture
def shots(draw: Draw, tmp_path: Path) -> Path:
    """Pictures in two folders, and a file that is none."""
    draw({"day": 2, "night": 1}, name="shots")
    (tmp_path / "shots/list.txt").write_text("no picture")
    return tmp_path


def test_a_folder_and_globs(shots: Path) -> None:
    everything = ["day/000.png", "day/001.png", "night/000.png"]
    assert ids("shots", shots) == everything
    assert ids("shots/**/*.png", shots) == everything
    assert ids("shots/*/000.png", shots) == ["day/000.png", "night/000.png"]
    assert ids("shots/day/*", shots) == ["000.png", "001.png"]
    assert ids("shots", shots, only="night") == ["night/000.png"]
    assert ids("shots", shots, only="*/001.png") == ["day/001.png"]


@pytest.mark.parametrize(
    ("path", "only", "message"),
    [
        (None, None, "has no path"),
        ("gone", None, "does not exist"),
        ("shots/list.txt", None, "is a file; path is"),
        ("shots/*.jpg", None, "0 images and none; allowed are files ending in .bmp"),
        ("shots", "dusk", "3 images and none that fits only: 'dusk'"),
    ],
)
def test_nothing_there(shots: Path, path: str | None, only: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_images(DataSpec("images", path=path, only=only), base=shots)


def test_they_calibrate_without_classes(draw: Draw, tmp_path: Path) -> None:
    draw({"a": 12}, name="shots")
    spec = DataSpec("images", path="shots")
    reader = open_reader(spec, base=tmp_path, labels=["x", "y"])
    assert reader[0].truth is None
    contract = InputContract(size=(32, 32))
    for select in ("random", "k-center"):
        assert len(pick(reader, labels=["x", "y"], samples=8, select=select, seed=0, contract=contract)) == 8
    with pytest.raises(DataError, match="no labels; use select: random or k-center"):
        pick(reader, labels=["x", "y"], samples=8, select="stratified", seed=0, contract=contract)
    codes = {finding.code for finding in lint_calibration(reader, None, labels=["x", "y"], contract=contract)}
    assert not codes & {"one-class", "missing-classes"}


def test_fingerprint(shots: Path) -> None:
    spec = DataSpec("images", path="shots")
    before = spec_fingerprint(spec, base=shots)
    assert spec_fingerprint(spec, base=shots) == before
    (shots / "shots/new.png").write_bytes(encoded(picture(9)))
    assert spec_fingerprint(spec, base=shots) != before
