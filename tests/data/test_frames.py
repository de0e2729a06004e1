"""Pictures out of videos: which ones, in any order, and videos that cannot be read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec
from edgecv.data import frames
from edgecv.data.lint import lint_calibration
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.data.selection import pick
from edgecv.errors import DataError
from edgecv.recipe.paths import resolve_data

LEVEL = 8
"""Frame ``n`` is a gray of about ``n * LEVEL``."""


def record(path: Path, *, frames: int = 25, fps: float = 5.0, code: str = "MJPG") -> Path:
    """A video whose frames tell their numbers by their brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, (48, 32))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((32, 48, 3), number * LEVEL, np.uint8))
    writer.release()
    return path


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """Two videos, of five and of two and a half seconds, and a file that is none."""
    record(tmp_path / "drives/a.avi")
    record(tmp_path / "drives/night/b.avi", fps=10)
    (tmp_path / "drives/notes.txt").write_text("no video")
    return tmp_path


def spec(path: str = "drives", **options: object) -> DataSpec:
    return DataSpec("video-frames", path=path, **options)  # type: ignore[arg-type]


A = ["a.avi#0", "a.avi#5", "a.avi#10", "a.avi#15", "a.avi#20"]
B = ["night/b.avi#0", "night/b.avi#10", "night/b.avi#20"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (spec(), A + B),
        (spec("drives/a.avi"), A),
        (spec("drives/**/*.avi"), A + B),
        (spec("drives/night"), [name.removeprefix("night/") for name in B]),
        (spec(only="night"), B),
        (spec(limit=4), [A[0], A[2], A[4], B[1]]),
    ],
)
def test_one_picture_a_second_of_each_video(drives: Path, given: DataSpec, wanted: list[str]) -> None:
    reader = open_reader(given, base=drives, labels=["x"])
    assert list(reader.ids) == wanted
    assert list(reader.truths) == [None] * len(wanted)


@pytest.mark.parametrize(("suffix", "code"), [("avi", "MJPG"), ("mp4", "mp4v")])
@pytest.mark.parametrize("near", [0, 64])
def test_far_frames_are_found_as_those_are_that_one_passes(
    tmp_path: Path, suffix: str, code: str, near: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mp4v keeps the differences of frames, so that a wrong place shows."""
    monkeypatch.setattr(frames, "NEAR", near)
    path = record(tmp_path / f"long.{suffix}", frames=30, code=code)
    for order in (range(6), (5, 0, 4, 1, 3, 2)):
        reader = open_reader(spec(path.name), base=tmp_path, labels=[])
        for index in order:
            assert abs(float(reader[index].image.mean()) - index * 5 * LEVEL) < 3


def test_a_file_that_cannot_be_searched_is_gone_through(drives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "NEAR", 0)
    monkeypatch.setattr(frames, "SAME_S", 0.0)  # no time is ever the right one
    reader = open_reader(spec(), base=drives, labels=[])
    for index in (3, 1, 7):
        number = int(reader.ids[index].rpartition("#")[2])
        assert abs(float(reader[index].image.mean()) - number * LEVEL) < 3


def test_frames_come_in_any_order(drives: Path) -> None:
    reader = open_reader(spec(), base=drives, labels=[])
    for index in (0, 3, 1, 7, 2, 2, 4):
        sample = reader[index]
        number = int(sample.id.rpartition("#")[2])
        assert sample.image.shape == (32, 48, 3)
        assert abs(float(sample.image.mean()) - number * LEVEL) < 3
    assert len({reader.sha256(index) for index in range(len(reader))}) == len(reader)


def test_a_subset_has_the_same_pictures(drives: Path) -> None:
    whole = open_reader(spec(), base=drives, labels=[])
    part = open_subset(spec(), [A[2], B[0], "gone.avi#0", "a.avi#3"], base=drives, labels=[])
    assert list(part.ids) == [A[2], B[0]]
    assert part.sha256(0) == whole.sha256(2)
    assert np.array_equal(part[1].image, whole[5].image)


def test_they_calibrate(drives: Path) -> None:
    reader = open_reader(spec(), base=drives, labels=["x", "y"])
    contract = InputContract(size=(32, 32))
    assert len(pick(reader, labels=["x", "y"], samples=4, select="k-center", seed=0, contract=contract)) == 4
    codes = {finding.code for finding in lint_calibration(reader, None, labels=["x", "y"], contract=contract)}
    assert not codes & {"one-class", "missing-classes", "duplicates"}


def test_a_damaged_video_is_left_out_or_refused(drives: Path) -> None:
    (drives / "drives/bad.mp4").write_bytes(b"no video at all")
    reader = open_reader(spec(), base=drives, labels=[])
    assert list(reader.ids) == A + B
    assert "no video that can be read" in reader.skipped["bad.mp4"]
    with pytest.raises(DataError, match=r"bad\.mp4: .*Repair or remove them"):
        open_reader(spec(strict=True), base=drives, labels=[])
    with pytest.raises(DataError, match=r"bad\.mp4: it is no video"):
        open_reader(spec(only="bad"), base=drives, labels=[])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.mp4", "does not exist"),
        ("drives/notes.txt", "0 videos and none; allowed are files ending in"),
        ("drives/*.mp4", "0 videos and none"),
    ],
)
def test_nothing_there(drives: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_reader(spec(path), base=drives, labels=[])


def test_a_video_that_changed_is_named(drives: Path) -> None:
    reader = open_reader(spec("drives/a.avi"), base=drives, labels=[])
    before = spec_fingerprint(spec("drives/a.avi"), base=drives)
    record(drives / "drives/a.avi", frames=3)
    with pytest.raises(DataError, match="frame 20 was there when the data set was opened"):
        reader[4]
    assert spec_fingerprint(spec("drives/a.avi"), base=drives) != before


def test_a_recipe_names_a_video_a_folder_or_a_glob(drives: Path) -> None:
    for path in ("drives", "drives/a.avi", "drives/*.avi"):
        assert resolve_data(spec(path), base=drives, env={})[1] == []
    ((where, message),) = resolve_data(spec("gone.mp4"), base=drives, env={})[1]
    assert where == ("path",)
    assert "there is no such video or folder of videos" in message
