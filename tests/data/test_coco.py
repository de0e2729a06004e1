"""COCO instances: what becomes of every annotation, and what a broken file is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.calibration import CalibrationManifest
from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec
from edgecv.core.results import DetectionTruth
from edgecv.data.calibration import calibrate, open_calibration
from edgecv.data.coco import list_coco
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError, RecipeError

from .conftest import encoded, picture

LABELS = ("dog", "cat")
SPEC = DataSpec("coco", path="boxes.json", root="images")


def entry(number: int, image: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, **more}


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    """Three pictures of 32 x 24; the ids of the categories are not in the labels' order."""
    images = tmp_path / "images"
    (images / "train").mkdir(parents=True)
    names = ["a.png", "b.png", "train/c.png"]
    for seed, name in enumerate(names):
        (images / name).write_bytes(encoded(picture(seed)))
    return {
        "images": [
            {"id": 7, "file_name": names[0], "width": 32, "height": 24, "coco_url": "http://x/val2017/a.png"},
            {"id": 9, "file_name": names[1], "width": 32, "height": 24, "coco_url": "http://x/val2017/b.png"},
            {"id": 8, "file_name": names[2]},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [
            entry(1, 7, 18, [1, 2, 10, 8], area=55.5, iscrowd=0),
            entry(2, 7, 3, [0, 0, 4, 5], iscrowd=1),
            entry(3, 8, 3, [30.5, 20, 5, 6]),
        ],
    }


def write(tables: dict[str, Any], folder: Path) -> None:
    (folder / "boxes.json").write_text(json.dumps(tables))


def test_truths(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)
    listing = list_coco(SPEC, base=tmp_path, labels=LABELS)
    assert [item.id for item in listing.entries] == ["a.png", "b.png", "train/c.png"]
    first, empty, last = (item.truth for item in listing.entries)
    assert first.boxes.tolist() == [[1, 2, 11, 10], [0, 0, 4, 5]]
    assert first.class_ids.tolist() == [0, 1]
    assert first.crowd.tolist() == [False, True]
    assert first.area.tolist() == [55.5, 20]
    assert len(empty.class_ids) == 0
    assert last.boxes.tolist() == [[30.5, 20, 35.5, 26]]
    assert listing.notes == ()
    reader = open_reader(SPEC, base=tmp_path, labels=LABELS)
    assert isinstance(reader[0].truth, DetectionTruth)
    assert reader[2].image.shape == (24, 32, 3)
    assert [len(truth.class_ids) for truth in reader.truths] == [2, 0, 1]


@pytest.mark.parametrize(
    ("only", "names"),
    [("val2017", ["a.png", "b.png"]), ("train/*", ["train/c.png"]), ("*.png", ["a.png", "b.png", "train/c.png"])],
)
def test_only(tables: dict[str, Any], tmp_path: Path, only: str, names: list[str]) -> None:
    write(tables, tmp_path)
    listing = list_coco(DataSpec("coco", path="boxes.json", root="images", only=only), base=tmp_path, labels=LABELS)
    assert [item.id for item in listing.entries] == names


def test_only_needs_no_other_picture_and_must_fit_one(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)
    (tmp_path / "images/train/c.png").unlink()
    spec = DataSpec("coco", path="boxes.json", root="images", only="val2017")
    assert len(open_reader(spec, base=tmp_path, labels=LABELS)) == 2
    assert list(open_subset(spec, ["b.png"], base=tmp_path, labels=LABELS).ids) == ["b.png"]
    with pytest.raises(DataError, match=r"3 images and none that fits only: 'test2017'"):
        list_coco(DataSpec("coco", path="boxes.json", root="images", only="test2017"), base=tmp_path, labels=LABELS)


def test_categories_meet_labels_by_name(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)
    listing = list_coco(SPEC, base=tmp_path, labels=["cat"])
    assert [item.truth.class_ids.tolist() for item in listing.entries] == [[0], [], [0]]
    assert "1 of 2 categories have no label: dog" in listing.notes
    assert "1 boxes are of categories without a label and do not count" in listing.notes
    assert list_coco(SPEC, base=tmp_path, labels=["cat", "dog", "cow"]).notes == (
        "1 of 3 labels have no category: cow",
    )
    with pytest.raises(DataError, match=r"without a label: dog\. Labels without a category: hound"):
        list_coco(SPEC, base=tmp_path, labels=["cat", "hound"])


BROKEN: dict[str, tuple[str, Any, str]] = {
    "unknown category": ("annotations", entry(4, 7, 99, [0, 0, 1, 1]), r"annotations\[3\] \(id 4\): category_id is 99"),
    "unknown image": ("annotations", entry(4, 1, 3, [0, 0, 1, 1]), r"image_id is 1, which is not among"),
    "no area": ("annotations", entry(4, 7, 3, [5, 5, 0, 3]), r"\(id 4\): bbox is \[5, 5, 0, 3\], which has no area"),
    "outside": ("annotations", entry(4, 7, 3, [32, 5, 4, 3]), r"outside its picture of 32 x 24 pixels"),
    "not numbers": ("annotations", entry(4, 7, 3, [1, 2, "3", 4]), r"four numbers are needed"),
    "nan": ("annotations", entry(4, 7, 3, [1, 2, float("nan"), 4]), r"four numbers are needed"),
    "double annotation": ("annotations", entry(1, 7, 3, [0, 0, 1, 1]), r"has the id of annotations\[0\]"),
    "double image": ("images", {"id": 7, "file_name": "a.png"}, r"images\[3\] \(id 7\): has the id of images\[0\]"),
    "double category": ("categories", {"id": 3, "name": "cow"}, r"categories\[2\] \(id 3\): has the id of"),
    "double name": ("categories", {"id": 4, "name": "cat"}, r"needs a name of its own"),
    "no id": ("images", {"file_name": "a.png"}, r"images\[3\]: has no id"),
    "missing file": ("images", {"id": 1, "file_name": "gone.png"}, r"images \(id 1\): gone.png is not below"),
    "outside the folder": ("images", {"id": 1, "file_name": "../a.png"}, r"leaves the folder"),
    "no size": ("images", {"id": 1, "file_name": "a.png", "width": 0, "height": 3}, r"width and height are 0 and 3"),
    "no name": ("images", {"id": 1}, r"file_name is None"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_entries_are_named(tables: dict[str, Any], tmp_path: Path, name: str) -> None:
    table, item, message = BROKEN[name]
    tables[table].append(item)
    write(tables, tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        list_coco(SPEC, base=tmp_path, labels=LABELS)
    assert str(tmp_path / "boxes.json") in str(caught.value)
    assert caught.value.exit_code == 2


def test_many_problems_are_counted(tables: dict[str, Any], tmp_path: Path) -> None:
    tables["annotations"] += [entry(10 + number, 7, 99, [0, 0, 1, 1]) for number in range(8)]
    write(tables, tmp_path)
    with pytest.raises(DataError, match=r"has 8 broken entries:(\n.*){5}\n  and 3 more"):
        list_coco(SPEC, base=tmp_path, labels=LABELS)


@pytest.mark.parametrize(("text", "message"), [("{", "is no json"), ("[]", "no list of images"), ("{}", "no list of")])
def test_files_of_another_form(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list_coco(SPEC, base=tmp_path, labels=LABELS)


def test_missing_places(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)
    for spec, message in (
        (DataSpec("coco"), "has no path"),
        (DataSpec("coco", path="gone.json"), "does not exist"),
        (DataSpec("coco", path="images"), "is a folder, not an instances json"),
        (DataSpec("coco", path="boxes.json", root="gone"), "is not a folder; root is 'gone'"),
    ):
        with pytest.raises(DataError, match=message):
            list_coco(spec, base=tmp_path, labels=LABELS)


def test_fingerprints_see_boxes_and_pictures(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)

    def both() -> tuple[str, str]:
        reader = open_reader(SPEC, base=tmp_path, labels=LABELS)
        return spec_fingerprint(SPEC, base=tmp_path, labels=LABELS), reader.fingerprint()

    first = both()
    assert both() == first
    tables["annotations"][0]["bbox"][0] = 1.5
    write(tables, tmp_path)
    moved = both()
    assert moved[0] != first[0]
    assert moved[1] != first[1]
    path = tmp_path / "images/b.png"
    path.write_bytes(encoded(picture(50)))
    os.utime(path, ns=(1, 1))
    changed = both()
    assert changed[0] != moved[0]
    assert changed[1] != moved[1]


@pytest.fixture(scope="module")
def real(shared_data: Path) -> DataSpec:
    """The pictures of val2017 in the data pack."""
    folder = shared_data / "coco-mini"
    return DataSpec("coco", path=str(folder / "instances.json"), root=str(folder / "images"), only="val2017")


@pytest.fixture(scope="module")
def labels(shared_data: Path) -> tuple[str, ...]:
    """COCO's 80 names by rising id."""
    table = json.loads((shared_data / "coco-mini/instances.json").read_text())["categories"]
    return tuple(item["name"] for item in sorted(table, key=lambda item: item["id"]))


def test_real_annotations(real: DataSpec, labels: tuple[str, ...], tmp_path: Path) -> None:
    reader = open_reader(real, base=tmp_path, labels=labels)
    assert len(reader) == 44
    assert reader.skipped == {}
    truths: list[DetectionTruth] = list(reader.truths)
    assert all(truth.boxes[:, 2:].min(initial=1e9) > 0 for truth in truths)
    assert len(np.unique(np.concatenate([truth.class_ids for truth in truths]))) > 40
    assert any(truth.crowd is not None and truth.crowd.any() for truth in truths)
    sample = reader[0]
    assert sample.truth.boxes[:, 2].max() <= sample.image.shape[1] + 1


@pytest.mark.parametrize("select", ["random", "stratified", "k-center"])
def test_a_calibration_set_of_pictures_with_boxes(
    real: DataSpec, labels: tuple[str, ...], tmp_path: Path, select: Any
) -> None:
    manifest, findings = calibrate(
        real,
        base=tmp_path,
        labels=labels,
        contract=InputContract(size=(64, 64)),
        samples=12,
        select=select,
        seed=1,
        name="boxes",
        licence="CC BY 4.0",
        out=tmp_path / "boxes.yaml",
    )
    assert isinstance(manifest, CalibrationManifest)
    assert len(manifest.files) == 12
    assert not [finding for finding in findings if finding.level == "error"]
    assert 10 < len(manifest.coverage) <= 80
    assert max(manifest.coverage.values()) <= 12
    again = open_calibration(manifest, base=tmp_path, labels=labels)
    assert list(again.ids) == [file.id for file in manifest.files]
    assert len(again.fingerprint()) == 64


def test_stratified_covers_more_classes_than_random(real: DataSpec, labels: tuple[str, ...], tmp_path: Path) -> None:
    from edgecv.data.selection import classes_of, pick

    reader = open_reader(real, base=tmp_path, labels=labels)
    contract = InputContract(size=(32, 32))

    def covered(select: Any, seed: int) -> int:
        picked = pick(reader, labels=labels, samples=12, select=select, seed=seed, contract=contract)
        assert len(set(picked)) == 12
        return len({index for place in picked for index in classes_of(reader.truths[place]) or ()})

    assert sum(covered("stratified", seed) for seed in range(8)) > sum(covered("random", seed) for seed in range(8))


def test_a_manifest_of_this_kind_is_read_back(real: DataSpec, labels: tuple[str, ...], tmp_path: Path) -> None:
    from edgecv.recipe.calibration import load_calibration

    options: dict[str, Any] = {"samples": 8, "select": "random", "seed": 0, "name": "set", "licence": "CC BY 4.0"}
    manifest, _ = calibrate(
        real, base=tmp_path, labels=labels, contract=InputContract(size=(32, 32)), out=tmp_path / "set.yaml", **options
    )
    read_back = load_calibration(str(tmp_path / "set.yaml"), base=tmp_path)
    assert read_back.files == manifest.files
    assert read_back.source.only == "val2017"
    text = (tmp_path / "set.yaml").read_text().replace("images", "pictures")
    (tmp_path / "set.yaml").write_text(text)
    with pytest.raises(RecipeError, match="no such folder"):
        load_calibration(str(tmp_path / "set.yaml"), base=tmp_path)
