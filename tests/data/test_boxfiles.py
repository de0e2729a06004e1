"""Boxes in a file for each picture: what the three formats say, and what is wrong with a broken one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.boxfiles import parse_kitti, parse_voc, parse_yolo
from edgecv.data.readers import open_reader
from edgecv.errors import DataError

from .conftest import encoded, picture

LABELS = ("Car", "Pedestrian")
SIZE = (100, 200)
KITTI = "Car 0.00 0 -1.5 10.0 20.0 50.0 60.0 1.5 1.6 3.7 1.0 1.5 8.4 -1.6"


def voc(*objects: str, size: str = "<size><width>200</width><height>100</height></size>") -> str:
    """A VOC file."""
    return f"<annotation>{size}{''.join(f'<object>{item}</object>' for item in objects)}</annotation>"


def corners(name: str, *values: object, more: str = "") -> str:
    """What stands in one object of a VOC file."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, values, strict=True))
    return f"<name>{name}</name>{more}<bndbox>{inner}</bndbox>"


def test_yolo() -> None:
    truth = parse_yolo("1 0.5 0.5 0.1 0.2\n\n0 0.05 0.1 0.1 0.2\n", SIZE, LABELS)
    assert truth.boxes == pytest.approx(np.array([[90, 40, 110, 60], [0, 0, 20, 20]]))
    assert truth.class_ids.tolist() == [1, 0]
    assert len(parse_yolo("\n", SIZE, LABELS).boxes) == 0


def test_voc_counts_from_one_and_leaves_difficult_ones_out() -> None:
    hard = corners("Pedestrian", 1, 1, 30, 40, more="<difficult>1</difficult>")
    truth = parse_voc(voc(corners("Car", 11, 21, 50, 60), hard), SIZE, LABELS)
    assert truth.boxes.tolist() == [[10, 20, 50, 60], [0, 0, 30, 40]]
    assert truth.class_ids.tolist() == [0, 1]
    assert truth.crowd is not None
    assert truth.crowd.tolist() == [False, True]


def test_kitti_judges_nothing_where_it_does_not_care() -> None:
    care = KITTI.replace("Car", "DontCare").replace("-1.5 10.0", "-10 100.0").replace(" 50.0 ", " 150.0 ")
    truth = parse_kitti(f"{KITTI}\n{care}\n", SIZE, LABELS)
    assert truth.class_ids.tolist() == [0, 0, 1]
    assert truth.crowd is not None
    assert truth.crowd.tolist() == [False, True, True]
    assert truth.boxes[0].tolist() == [10, 20, 50, 60]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.5 0.5 0.1 0.1", "class '2'; with 2 labels, a whole number from 0 to 1 is needed"),
        ("car 0.5 0.5 0.1 0.1", "class 'car'"),
        ("-1 0.5 0.5 0.1 0.1", "class '-1'"),
        ("0 0.5 0.5 0.1", "4 values, too short"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", "7 values, a polygon"),
        ("0 0.5 x 0.1 0.1", "four numbers are needed"),
        ("0 0.5 nan 0.1 0.1", "shares of the picture"),
        ("0 50 50 10 10", "shares of the picture from 0 to 1 are needed, not pixels"),
        ("0 0.5 0.5 0 0.1", "has no area"),
    ],
)
def test_a_broken_line_is_named(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: ") as caught:
        parse_yolo(f"0 0.5 0.5 0.1 0.1\n{line}\n", SIZE, LABELS)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation>", "it is no xml"),
        ("<labels/>", "begins with <labels>"),
        (voc(size="<size><width>10</width><height>20</height></size>"), "of a picture of 10 x 20 pixels"),
        (voc(corners("Dog", 1, 1, 2, 2)), "object 1: its name is 'Dog'; labels are Car, Pedestrian"),
        (voc("<name>Car</name>"), "object 1: nothing: four numbers are needed"),
        (voc(corners("Car", 1, 1, 9, 9), corners("Car", 50, 60, 11, 21)), "object 2: box 49, 59, 11, 21 has no area"),
        (voc(corners("Car", 301, 1, 310, 9)), "lies outside its picture of 200 x 100 pixels"),
    ],
)
def test_a_broken_xml_is_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_voc(text, SIZE, LABELS)
    assert words in str(caught.value)


def test_a_short_kitti_line_is_named() -> None:
    with pytest.raises(ValueError, match=r"line 2: 8 values; at least 15 are needed"):
        parse_kitti(f"{KITTI}\n{' '.join(KITTI.split()[:8])}\n", SIZE, LABELS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures with YOLO labels, one of them empty."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for index, text in enumerate(("0 0.5 0.5 0.5 0.5\n", "", "1 0.5 0.5 0.2 0.2\n")):
        (tmp_path / f"images/{index}.png").write_bytes(encoded(picture(index)))
        (tmp_path / f"labels/{index}.txt").write_text(text)
    return tmp_path


YOLO = DataSpec(kind="yolo", path="images", truth="labels")


def test_a_data_set_of_files(folder: Path) -> None:
    reader = open_reader(YOLO, base=folder, labels=LABELS)
    assert [len(reader[index].truth.boxes) for index in range(3)] == [1, 0, 1]


def test_broken_labels_refuse_the_data_set(folder: Path) -> None:
    (folder / "labels/1.txt").write_text("0 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\n")
    (folder / "labels/2.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"2 truths are broken") as caught:
        open_reader(YOLO, base=folder, labels=LABELS)
    assert "1.txt: line 2: class '7'" in str(caught.value)
    assert "2.txt: it is no text in UTF-8" in str(caught.value)


def test_a_picture_without_labels_is_named(folder: Path) -> None:
    (folder / "labels/1.txt").unlink()
    with pytest.raises(DataError, match=r"1 of 3 pictures have no label file: 1\.png"):
        open_reader(YOLO, base=folder, labels=LABELS)


def test_real_voc(shared_data: Path) -> None:
    pictures = sorted((shared_data / "voc-mini").rglob("*.jpg"))
    spec = DataSpec(
        kind="voc",
        path=str(pictures[0].parent.relative_to(shared_data)),
        truth="voc-mini/Annotations",
    )
    reader = open_reader(spec, base=shared_data, labels=("dog", "person"))
    truth = reader[0].truth
    assert truth.class_ids.tolist() == [0, 1]
    assert truth.boxes[0].tolist() == [47, 239, 195, 371]


def test_real_kitti_labels(shared_data: Path) -> None:
    """The tracking labels carry frame and id before KITTI's object columns; one frame of them is an object file."""
    lines = (shared_data / "mot/KITTI-0013/gt/label_02.txt").read_text().splitlines()
    first = [line.split() for line in lines if line.split()[0] == "0"]
    truth = parse_kitti("\n".join(" ".join(words[2:17]) for words in first), (375, 1242), LABELS)
    assert truth.crowd is not None
    judged = ~truth.crowd
    assert judged.sum() == sum(words[2] in LABELS for words in first)
