"""COCO person keypoints: whole pictures and cut-out persons, and what a broken file is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.coco_keypoints import list_keypoints
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError
from edgecv.families.pose_truth import PoseTruth
from edgecv.vision.crops import crop

from .conftest import encoded, picture

LABELS = ("person",)
SPEC = DataSpec("coco-keypoints", path="persons.json", root="images")
NAMES = ["nose", "left_hand", "right_hand"]


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    """Two pictures of 32 x 24; two persons, a crowd and one without labels."""
    (tmp_path / "images").mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        (tmp_path / "images" / name).write_bytes(encoded(picture(seed)))
    person = {"category_id": 1, "iscrowd": 0, "bbox": [4, 2, 12, 16], "area": 99.5}
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 32, "height": 24},
            {"id": 9, "file_name": "b.png", "width": 32, "height": 24},
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": NAMES}, {"id": 2, "name": "dog"}],
        "annotations": [
            {**person, "id": 1, "image_id": 7, "keypoints": [10, 5, 2, 6, 9, 1, 0, 0, 0]},
            {**person, "id": 2, "image_id": 7, "keypoints": [0] * 9},
            {**person, "id": 3, "image_id": 9, "keypoints": [20, 5, 2, 0, 0, 0, 0, 0, 0], "bbox": [18, 2, 8, 8]},
            {**person, "id": 4, "image_id": 9, "keypoints": [0] * 9, "iscrowd": 1},
            {"id": 5, "image_id": 9, "category_id": 2, "bbox": [1, 1, 2, 2]},
        ],
    }


def write(tables: dict[str, Any], folder: Path) -> None:
    (folder / "persons.json").write_text(json.dumps(tables))


def test_whole_pictures(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)
    reader = open_reader(SPEC, base=tmp_path, labels=LABELS)
    assert list(reader.ids) == ["a.png", "b.png"]
    assert reader.notes == ("1 annotations are of other categories and do not count",)
    truth = reader[0].truth
    assert isinstance(truth, PoseTruth)
    assert truth.size == (24, 32)
    assert truth.mirror == (0, 2, 1)
    assert truth.keypoints[0].tolist() == [[10, 5, 2], [6, 9, 1], [0, 0, 0]]
    assert truth.boxes[0].tolist() == [4, 2, 16, 18]
    assert truth.area[0] == pytest.approx(99.5)
    assert truth.ignored.tolist() == [False, True]
    assert reader[1].truth.crowd.tolist() == [False, True]


def test_a_picture_without_persons_is_a_sample(tables: dict[str, Any], tmp_path: Path) -> None:
    tables["annotations"] = tables["annotations"][:1]
    write(tables, tmp_path)
    assert len(open_reader(SPEC, base=tmp_path, labels=LABELS)[1].truth) == 0


def test_cut_outs_are_what_a_second_stage_looks_at(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)
    spec = DataSpec("coco-keypoints", path="persons.json", root="images", crop=0.75)
    reader = open_reader(spec, base=tmp_path, labels=LABELS)
    assert list(reader.ids) == ["a.png#1", "b.png#3"]
    assert "2 of 4 persons have no labelled keypoint and are not cut out" in reader.notes
    whole = open_reader(SPEC, base=tmp_path, labels=LABELS)[0].image
    part = crop(whole, np.array([4, 2, 16, 18]), margin=1.25, aspect=0.75)
    assert part is not None
    sample = reader[0]
    assert np.array_equal(sample.image, part.image)
    assert sample.truth.size == part.image.shape[:2]
    np.testing.assert_allclose(sample.truth.keypoints[0, 0, :2], np.array([10, 5]) - part.corner)
    assert len(sample.truth) == 1
    other = open_subset(spec, ["b.png#3"], base=tmp_path, labels=LABELS)
    assert np.array_equal(other[0].image, reader[1].image)


def test_fingerprints_tell_cut_outs_apart(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)
    found = {
        spec_fingerprint(
            DataSpec("coco-keypoints", path="persons.json", root="images", crop=aspect), base=tmp_path, labels=LABELS
        )
        for aspect in (None, 0.75, 1.0)
    }
    assert len(found) == 3
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    spec = DataSpec("coco-keypoints", path="persons.json", root="images", crop=0.75)
    assert spec_fingerprint(spec, base=moved, labels=LABELS) in found


def test_a_picture_smaller_than_told(tables: dict[str, Any], tmp_path: Path) -> None:
    tables["images"][0].update(width=320, height=240)
    tables["annotations"][0]["bbox"] = [4, 2, 120, 160]
    write(tables, tmp_path)
    spec = DataSpec("coco-keypoints", path="persons.json", root="images", crop=0.75)
    with pytest.raises(DataError, match=r"32 x 24 pixels, smaller than the data set says: a\.png#1"):
        open_reader(spec, base=tmp_path, labels=LABELS)[0]


def change(index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tables: tables["annotations"][index].update(values)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (change(0, keypoints=[1, 2, 2]), r"annotations\[0\] \(id 1\): keypoints have 3 values; 9 are needed"),
        (change(0, keypoints=None), "keypoints have None values"),
        (change(0, keypoints=["x"] * 9), "something that is no number"),
        (change(0, keypoints=[float("nan")] * 9), "something that is no number"),
        (change(2, keypoints=[20, 5, 3] + [0] * 6), r"annotations\[2\] .*keypoint 0 has visibility 3; allowed are 0"),
        (change(2, keypoints=[33, 5, 2] + [0] * 6), "keypoint 0 is at 33, 5, outside its picture of 32 x 24 pixels"),
        (change(2, keypoints=[20, -1, 1] + [0] * 6), "keypoint 0 is at 20, -1, outside"),
        (change(1, bbox=[1, 2, 0, 4]), r"annotations\[1\] .*which has no area"),
        (change(1, image_id=99), "image_id is 99, which is not among the images"),
        (change(1, id=1), r"has the id of annotations\[0\]"),
        (lambda tables: tables["images"][0].pop("width"), r"images\[0\] \(id 7\): has no width and height"),
        (lambda tables: tables["categories"][0].update(keypoints="nose"), "a list of their names is needed"),
        (lambda tables: tables["categories"][0].update(name="robot"), "0 categories have keypoints"),
        (lambda tables: tables["images"][1].update(file_name="none.png"), "none.png is not below"),
        (lambda tables: tables.pop("images"), "no list of images"),
    ],
)
def test_broken_files_are_named(
    tables: dict[str, Any], tmp_path: Path, break_it: Callable[[dict[str, Any]], Any], words: str
) -> None:
    break_it(tables)
    write(tables, tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        list_keypoints(SPEC, base=tmp_path, labels=LABELS)
    assert caught.value.exit_code == 2
    assert "persons.json" in str(caught.value)


def test_a_place_outside_does_not_matter_where_it_is_not_labelled(tables: dict[str, Any], tmp_path: Path) -> None:
    tables["annotations"][2]["keypoints"] = [20, 5, 2, -5, 99, 0, 0, 0, 0]
    write(tables, tmp_path)
    assert len(list_keypoints(SPEC, base=tmp_path, labels=LABELS).entries) == 2


def test_nothing_to_cut_out_or_to_pick(tables: dict[str, Any], tmp_path: Path) -> None:
    tables["annotations"] = tables["annotations"][1:2]
    write(tables, tmp_path)
    with pytest.raises(DataError, match="none with a labelled keypoint"):
        list_keypoints(
            DataSpec("coco-keypoints", path="persons.json", root="images", crop=1.0), base=tmp_path, labels=LABELS
        )
    with pytest.raises(DataError, match="none that fits only"):
        list_keypoints(
            DataSpec("coco-keypoints", path="persons.json", root="images", only="c.png"), base=tmp_path, labels=LABELS
        )


def test_coco_mini(shared_data: Path) -> None:
    spec = DataSpec("coco-keypoints", path="coco-mini/person_keypoints.json", root="coco-mini/images")
    entries = list_keypoints(spec, base=shared_data, labels=LABELS).entries
    assert len(entries) == 57
    assert sum(len(entry.truth) for entry in entries) == 116
    cut = DataSpec("coco-keypoints", path=spec.path, root=spec.root, crop=0.75)
    persons = list_keypoints(cut, base=shared_data, labels=LABELS).entries
    assert len(persons) == 55
    assert all(entry.truth.labelled.any() for entry in persons)
