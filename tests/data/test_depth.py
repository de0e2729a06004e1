"""Depth maps beside pictures: units, pairing, and what is wrong with a broken one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.depth import read_depth
from edgecv.data.readers import open_reader
from edgecv.errors import DataError

from .conftest import encoded, picture


def spec(**more: Any) -> DataSpec:
    """Pictures in ``color``, maps in ``depth``."""
    return DataSpec(kind="depth", path="color", truth="depth", **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of 16 x 16 with maps that count up from 1000."""
    for name in ("color", "depth"):
        (tmp_path / name).mkdir()
    for index in range(2):
        image = picture(index)
        (tmp_path / f"color/{index}.png").write_bytes(encoded(image))
        values = (1000 + np.arange(image.shape[0] * image.shape[1])).reshape(image.shape[:2]).astype(np.uint16)
        (tmp_path / f"depth/{index}.png").write_bytes(encoded(values))
    return tmp_path


@pytest.mark.parametrize(("unit", "first"), [(None, 1.0), ("mm", 1.0), ("kitti", 1000 / 256), ("sun-rgbd", 0.125)])
def test_units(folder: Path, unit: Any, first: float) -> None:
    reader = open_reader(spec(depth_unit=unit), base=folder, labels=("depth",))
    assert len(reader) == 2
    assert reader[1].truth.metres[0, 0] == pytest.approx(first)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((16, 16), 9, np.uint8), "one channel of 16 bits is needed"),
        (np.ones((3, 4), np.uint16), "align them first"),
        (np.zeros((16, 16), np.uint16), "no distance is known"),
    ],
)
def test_a_map_of_another_kind_is_named(folder: Path, values: np.ndarray[Any, Any], words: str) -> None:
    if len(values) == 16:
        values = np.resize(values, picture(0).shape[:2])
    (folder / "depth/0.png").write_bytes(encoded(values))
    with pytest.raises(DataError, match=rf"1 truth is broken: .*0\.png: .*{words}"):
        open_reader(spec(), base=folder, labels=("depth",))


def test_junk_is_no_map(folder: Path) -> None:
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_depth(b"junk", picture=folder / "color/0.png", unit="mm")


def test_a_picture_without_a_map_is_named(folder: Path) -> None:
    (folder / "depth/1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 pictures have no depth map: 1\.png"):
        open_reader(spec(), base=folder, labels=("depth",))
    (folder / "depth/0.tif").write_bytes((folder / "depth/0.png").read_bytes())
    with pytest.raises(DataError, match="has two depth maps"):
        open_reader(spec(), base=folder, labels=("depth",))
    with pytest.raises(DataError, match="does not exist; truth is the folder of the depth maps"):
        open_reader(DataSpec(kind="depth", path="color", truth="deep"), base=folder, labels=("depth",))


def test_a_pattern_names_maps_beside_their_pictures(folder: Path) -> None:
    for path in (folder / "depth").iterdir():
        path.rename(folder / "color" / f"{path.stem}_depth.png")
    reader = open_reader(
        DataSpec(kind="depth", path="color", truth="color/{stem}_depth.png"), base=folder, labels=("depth",)
    )
    assert list(reader.ids) == ["0.png", "1.png"]


def test_real_maps(shared_data: Path) -> None:
    base = shared_data / "depth-mini"
    room = open_reader(
        DataSpec(kind="depth", path="redwood/color", truth="redwood/depth"), base=base, labels=("depth",)
    )
    assert len(room) == 3
    for index in range(3):
        known = room[index].truth.metres[room[index].truth.metres > 0]
        assert 0.3 < np.median(known) < 6.0, "a room, in metres"
    raw = (base / "sun/SUN_depth.png").read_bytes()
    metres = read_depth(raw, picture=base / "sun/SUN_color.jpg", unit="sun-rgbd").metres
    assert 0.3 < np.median(metres[metres > 0]) < 10.0
