"""Ground truth of tracking sequences as boxes of pictures: classes, flags, frames, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.mot import read_mot
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import LabelledReader, open_reader
from edgecv.errors import DataError

from .conftest import encoded, picture


def sequence(folder: Path, text: str, *, frames: int = 3) -> Path:
    for part in ("gt", "img1"):
        (folder / part).mkdir(parents=True)
    for number in range(1, frames + 1):
        (folder / "img1" / f"{number:06d}.jpg").write_bytes(encoded(picture(number), ".jpg"))
    (folder / "gt" / "gt.txt").write_text(text)
    return folder / "gt" / "gt.txt"


def opened(file: Path, labels: list[str], **settings: Any) -> LabelledReader:
    return open_reader(DataSpec(kind="mot", path=str(file), **settings), base=Path(), labels=labels)


def test_classes_flags_and_empty_frames(tmp_path: Path) -> None:
    text = (
        "3,1,2,3,10,8,1,1,0.9\n"  # a pedestrian
        "1,1,1,1,10,8,1,1,1\n1,2,5,5,6,6,0,1,1\n"  # one that is judged, one with flag 0
        "1,3,2,2,4,4,0,8,1\n1,4,2,2,4,4,1,3,1\n"  # a distractor, a car
    )
    file = sequence(tmp_path, text)
    reader = opened(file, ["Person"])
    assert list(reader.ids) == ["000001.jpg", "000002.jpg", "000003.jpg"]
    first = reader[0].truth
    np.testing.assert_array_equal(first.boxes, [[0, 0, 10, 8], [4, 4, 10, 10], [1, 1, 5, 5]])
    assert first.class_ids.tolist() == [0, 0, 0]
    assert first.crowd.tolist() == [False, True, True]
    assert len(reader[1].truth.boxes) == 0
    both = opened(file, ["car", "pedestrian"])[0].truth
    assert both.class_ids.tolist() == [1, 1, 1, 0]
    assert both.crowd.tolist() == [False, True, True, False]
    assert len(opened(file, ["car"])[2].truth.boxes) == 0


def test_a_file_without_classes_means_the_first_label(tmp_path: Path) -> None:
    file = sequence(tmp_path, "1,1,1,1,10,8,1,-1,-1,-1\n2,1,1,1,10,8,0,-1,-1,-1\n")
    reader = opened(file, ["walker"])
    assert reader[0].truth.crowd.tolist() == [False]
    assert reader[1].truth.crowd.tolist() == [True]


def test_frames_elsewhere(tmp_path: Path) -> None:
    file = sequence(tmp_path / "seq", "1,1,1,1,10,8,1,1,1\n")
    (tmp_path / "seq/img1").rename(tmp_path / "frames")
    with pytest.raises(DataError, match="img1 is not a folder"):
        opened(file, ["person"])
    assert len(opened(file, ["person"], root=str(tmp_path / "frames"), limit=2)) == 2


@pytest.mark.parametrize(
    ("text", "labels", "says"),
    [
        ("1,1,1,1,10,8,1,1,1\nx,1,1,1,10,8,1\n", ["person"], r"gt\.txt:2 is 'x,1"),
        ("1,1,1\n", ["person"], r"gt\.txt:1 has 3 numbers"),
        ("1,1,1,1,10,0,1,1,1\n", ["person"], "1 boxes have no area, such as frame 1, id 1"),
        ("9,1,1,1,10,8,1,1,1\n", ["person"], "1 frames without a picture in .*, such as 9"),
        ("1,1,1,1,10,8,1,1,1\n", ["dog"], r"none of the labels \(dog\) is one: pedestrian"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, labels: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        opened(sequence(tmp_path, text), labels)


def test_no_numbered_picture(tmp_path: Path) -> None:
    file = sequence(tmp_path, "1,1,1,1,10,8,1\n", frames=0)
    (tmp_path / "img1/first.jpg").write_bytes(encoded(picture(0), ".jpg"))
    with pytest.raises(DataError, match="no picture that is named by a frame's number"):
        opened(file, ["person"])


def test_mot16(shared_data: Path, tmp_path: Path) -> None:
    """The boxes of MOT16-11 on empty frames: as many judged ones as the file has pedestrians with flag 1."""
    real = shared_data / "mot/MOT16-11/gt/gt.txt"
    lines = [line for line in real.read_text().splitlines() if int(line.split(",")[0]) <= 40]
    reader = opened(sequence(tmp_path, "\n".join(lines), frames=40), ["pedestrian"])
    pedestrians = [line for line in lines if line.split(",")[6:8] == ["1", "1"]]
    truths = [reader[index].truth for index in range(40)]
    assert sum(int((~truth.crowd).sum()) for truth in truths) == len(pedestrians) > 200
    assert any(truth.crowd.any() for truth in truths)
    assert len(read_mot(real)) < len(read_mot(real, ignored=True))
