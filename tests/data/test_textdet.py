"""Where text stands, from MMOCR's json and ICDAR's files: what they say, and what is wrong with broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader, spec_fingerprint
from edgecv.data.textdet import parse_icdar
from edgecv.errors import DataError

from .conftest import encoded, picture

QUAD = [10, 10, 60, 12, 60, 30, 10, 28]
SIZE = (100, 200)


def instance(polygon: Any = None, **more: Any) -> dict[str, Any]:
    """One piece of text."""
    return {"polygon": QUAD if polygon is None else polygon, "ignore": False, **more}


def write(folder: Path, *instances: Any, **more: Any) -> DataSpec:
    """A json of one picture of 200 x 100 pixels."""
    (folder / "a.png").write_bytes(encoded(picture(1, height=100, width=200)))
    item = {"img_path": "a.png", "height": 100, "width": 200, "instances": list(instances), **more}
    (folder / "textdet.json").write_text(json.dumps({"data_list": [item]}))
    return DataSpec(kind="textdet", path=str(folder / "textdet.json"))


def refused(spec: DataSpec) -> str:
    """What is said of a broken data set."""
    try:
        open_reader(spec, base=Path(), labels=("text",))
    except DataError as error:
        return str(error)
    raise AssertionError(f"{spec.path} was taken")


def test_json(tmp_path: Path) -> None:
    box = {"bbox": [5, 50, 45, 60], "ignore": True}
    spec = write(tmp_path, instance(text="HOTEL"), box, instance([10, 70, 40, 60, 60, 80, 30, 90, 12, 88]))
    sample = open_reader(spec, base=Path(), labels=("text",))[0]
    assert sample.image.shape == (100, 200, 3)
    assert sample.truth.polygons[0] == ((10, 10), (60, 12), (60, 30), (10, 28))
    assert sample.truth.polygons[1] == ((5, 50), (45, 50), (45, 60), (5, 60))
    assert len(sample.truth.polygons[2]) == 5
    assert sample.truth.ignored == (False, True, False)
    assert sample.truth.texts == ("HOTEL", "", "")


def test_pictures_without_sizes_are_looked_at(tmp_path: Path) -> None:
    spec = write(tmp_path, instance([190, 10, 230, 10, 230, 30]), height=None, width=None)
    assert len(open_reader(spec, base=Path(), labels=("text",))[0].truth.polygons) == 1
    beyond = write(tmp_path, instance([210, 10, 230, 10, 230, 30]), height=None, width=None)
    assert "outside its picture of 200 x 100" in refused(beyond)


@pytest.mark.parametrize(
    ("polygon", "said"),
    [
        ([10, 20, 30], "has 3 numbers; x and y of at least three corners"),
        ([10, 20, 30, 40], "has 4 numbers"),
        ([10, 20, 30, 40, 50], "has 5 numbers"),
        ([300, 10, 320, 10, 320, 20], "outside its picture of 200 x 100 pixels"),
        ([10, 10, 20, 10, 30, 10], "has no area"),
        ([10, 10, "x", 10, 30, 10], "a list of numbers"),
        ([10, 10, float("nan"), 10, 30, 10], "not finite"),
        ("10,10", "a list of numbers"),
    ],
)
def test_broken_polygons_are_named(tmp_path: Path, polygon: Any, said: str) -> None:
    message = refused(write(tmp_path, instance(), instance(polygon)))
    assert said in message
    assert "data_list[0]: a.png: instances[1]" in message
    assert str(tmp_path / "textdet.json") in message


def test_other_faults_of_the_json(tmp_path: Path) -> None:
    assert "instances is 3" in refused(write(tmp_path, instances=3))
    assert "instances[0]: is 7" in refused(write(tmp_path, 7))
    assert "bbox is [1]" in refused(write(tmp_path, {"bbox": [1]}))
    assert "img_path is None" in refused(write(tmp_path, instance(), img_path=None))
    assert "b.png is not below" in refused(write(tmp_path, instance(), img_path="b.png"))
    assert "leaves the folder" in refused(write(tmp_path, instance(), img_path="../a.png"))
    spec = write(tmp_path, instance())
    (tmp_path / "textdet.json").write_text("{")
    assert "is no json" in refused(spec)
    (tmp_path / "textdet.json").write_text('{"data_list": {}}')
    assert "no list of data_list" in refused(spec)
    (tmp_path / "textdet.json").unlink()
    assert "does not exist" in refused(spec)
    assert "no picture that fits only: 'x'" in refused(
        DataSpec(kind="textdet", path=write(tmp_path, instance()).path, only="x")
    )


def test_icdar_lines() -> None:
    truth = parse_icdar("377,117,463,117,465,130,378,130,Genaxis, Theatre\n\n1,2,30,2,30,9,1,9,###\n", (500, 600))
    assert list(truth.polygons[0]) == [(377, 117), (463, 117), (465, 130), (378, 130)]
    assert list(truth.texts) == ["Genaxis, Theatre", "###"]
    assert list(truth.ignored) == [False, True]
    assert parse_icdar("", (10, 10)).polygons == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2,3", "line 2: '1,2,3' has 3 parts; eight numbers and a text"),
        ("1,2,30,2,30,9,1,9", "has 8 parts"),
        ("1,2,30,2,30,y,1,9,A", "line 2: 'y' is no number"),
        ("1,2,30,2,30,inf,1,9,A", "not finite"),
        ("301,2,330,2,330,9,301,9,A", "outside its picture of 200 x 100"),
        ("1,2,1,2,1,2,1,2,A", "no area"),
    ],
)
def test_broken_icdar_lines_are_named(line: str, said: str) -> None:
    with pytest.raises(ValueError, match="line 2") as caught:
        parse_icdar("1,2,30,2,30,9,1,9,A\n" + line, SIZE)
    assert said in str(caught.value)


def test_icdar_files(tmp_path: Path) -> None:
    for name in ("img_1", "img_2"):
        (tmp_path / f"{name}.png").write_bytes(encoded(picture(1, height=100, width=200)))
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt/gt_img_1.txt").write_bytes(b"\xef\xbb\xbf1,2,30,2,30,9,1,9,A\r\n")
    (tmp_path / "gt/img_2.txt").write_text("")
    spec = DataSpec(kind="icdar", path=str(tmp_path), only="*.png", truth=str(tmp_path / "gt"))
    reader = open_reader(spec, base=Path(), labels=("text",))
    assert [len(reader[index].truth.polygons) for index in range(2)] == [1, 0]
    before = spec_fingerprint(spec, base=Path(), labels=("text",))
    (tmp_path / "gt/gt_img_1.txt").write_text("1,2,3,4\n")
    assert spec_fingerprint(spec, base=Path(), labels=("text",)) != before
    message = refused(spec)
    assert "gt_img_1.txt: line 1" in message
    (tmp_path / "gt/gt_img_1.txt").unlink()
    assert "img_1.png" in refused(spec)


def test_real_scenes(shared_data: Path) -> None:
    spec = DataSpec(kind="textdet", path=str(shared_data / "ocr-mini/scenes/textdet.json"))
    reader = open_reader(spec, base=Path(), labels=("text",))
    assert len(reader) == 5
    truths = [reader[index].truth for index in range(5)]
    assert sum(len(truth.polygons) for truth in truths) > 20
    assert any(any(truth.ignored) for truth in truths)
    assert reader[0].image.shape == (720, 1280, 3)
