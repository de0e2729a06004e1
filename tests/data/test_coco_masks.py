"""COCO's masks: polygons and runs of pixels become truths, and what a broken one is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.coco_masks import list_coco_masks
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError
from edgecv.families.instance_truth import InstanceTruth

from .conftest import encoded, picture

LABELS = ("dog", "cat")
SPEC = DataSpec("coco-masks", path="masks.json", root="images")
SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 11.0, 2.0, 11.0]


def entry(number: int, image: int, category: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    box = [2, 3, 10, 8]
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "segmentation": segmentation, **more}


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    """Two pictures of 32 x 24."""
    (tmp_path / "images").mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        (tmp_path / "images" / name).write_bytes(encoded(picture(seed)))
    runs = {"size": [24, 32], "counts": [24 * 4, 24 * 3, 24 * 25]}
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 32, "height": 24},
            {"id": 9, "file_name": "b.png", "width": 32, "height": 24},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 4, "name": "cow"}],
        "annotations": [
            entry(1, 7, 18, [SQUARE], area=80.0),
            entry(2, 7, 3, runs, iscrowd=1),
            entry(3, 7, 4, [SQUARE]),
            entry(4, 7, 3, [SQUARE, [20, 3, 24, 3, 24, 7, 20, 7]]),
        ],
    }


def listed(tables: dict[str, Any], folder: Path) -> Any:
    (folder / "masks.json").write_text(json.dumps(tables))
    return list_coco_masks(SPEC, base=folder, labels=LABELS)


def test_truths(tables: dict[str, Any], tmp_path: Path) -> None:
    listing = listed(tables, tmp_path)
    first, empty = (item.truth for item in listing.entries)
    assert first.class_ids.tolist() == [0, 1, 1]
    assert first.crowd.tolist() == [False, True, False]
    assert first.area.tolist() == [80, 72, 96]
    assert first.boxes[0].tolist() == [2, 3, 12, 11]
    masks = first.masks()
    assert masks.shape == (3, 24, 32)
    assert masks[0, 3:11, 2:12].all()
    assert (masks[1] == (np.arange(32) // 1 >= 4) & (np.arange(32) < 7)).all()
    assert masks[2, 3:7, 20:24].all()
    assert (len(empty), empty.size) == (0, (24, 32))
    assert any("cow" in note for note in listing.notes)
    assert any("1 objects are of categories without a label" in note for note in listing.notes)
    reader = open_reader(SPEC, base=tmp_path, labels=LABELS)
    assert isinstance(reader[0].truth, InstanceTruth)
    assert open_subset(SPEC, ["b.png"], base=tmp_path, labels=LABELS).ids == ("b.png",)


def test_a_compressed_code_is_read_as_it_was_written(tables: dict[str, Any], tmp_path: Path) -> None:
    codec = pytest.importorskip("faster_coco_eval.core.mask")
    bits = np.random.default_rng(3).random((24, 32)) < 0.4
    code = codec.encode(np.asfortranarray(bits.astype(np.uint8)))["counts"].decode()
    tables["annotations"] = [entry(1, 7, 18, {"size": [24, 32], "counts": code})]
    assert (listed(tables, tmp_path).entries[0].truth.masks()[0] == bits).all()


def test_the_hash_changes_with_a_mask(tables: dict[str, Any], tmp_path: Path) -> None:
    hashes, prints = set(), set()
    for corner in (11.0, 10.0):
        tables["annotations"][0]["segmentation"][0][5] = corner
        listed(tables, tmp_path)
        hashes.add(spec_fingerprint(SPEC, base=tmp_path, labels=LABELS))
        prints.add(open_reader(SPEC, base=tmp_path, labels=LABELS).fingerprint())
    assert len(hashes) == len(prints) == 2


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "segmentation is None; a list of polygons"),
        ([], "segmentation is \\[\\]; a list of polygons"),
        ([[1, 2, 3, 4]], "polygon 0 has 4 values; x and y of at least three corners"),
        ([SQUARE, [1, 2, 3, 4, 5, 6, 7]], "polygon 1 has 7 values"),
        ([SQUARE, "x"], "polygon 1 has 'x'"),
        ([[1, 2, 3, "4", 5, 6]], "polygon 0 holds something that is no number"),
        ([[1, 2, 3, float("nan"), 5, 6]], "polygon 0 holds something that is no number"),
        ([[40, 2, 50, 2, 50, 9]], "polygon 0 has x from 40 to 50, outside its picture of 32 x 24 pixels"),
        ([[4, 2, 1e9, 2, 1e9, 9]], "polygon 0 has x from 4 to 1e\\+09, outside"),
        ([[4, -30, 9, 2, 5, 9]], "polygon 0 has y from -30 to 9, outside"),
        ({"counts": [768]}, "segmentation has size None; its picture has \\[height, width\\] \\[24, 32\\]"),
        ({"size": [32, 24], "counts": [768]}, "segmentation has size \\[32, 24\\]"),
        ({"size": [24, 32], "counts": [700]}, "counts that sum to 700; its picture has 24 x 32 = 768 pixels"),
        ({"size": [24, 32], "counts": [-1, 769]}, "lengths of runs"),
        ({"size": [24, 32], "counts": None}, "segmentation has counts None"),
        ({"size": [24, 32], "counts": "a b"}, "no letter of COCO's run-length code"),
        ({"size": [24, 32], "counts": "0o"}, "end within a number"),
        ({"size": [24, 32], "counts": "ooooooooooooooooo0"}, "lengths of runs|counts that sum"),
    ],
)
def test_broken_masks_are_named(tables: dict[str, Any], tmp_path: Path, segmentation: Any, words: str) -> None:
    tables["annotations"][3]["segmentation"] = segmentation
    with pytest.raises(
        DataError, match=f"(?s)masks.json has 1 broken entries.*annotations\\[3\\] \\(id 4\\): .*{words}"
    ):
        listed(tables, tmp_path)


def test_other_broken_entries(tables: dict[str, Any], tmp_path: Path) -> None:
    tables["annotations"] += [entry(5, 99, 3, [SQUARE]), entry(6, 7, 99, [SQUARE]), entry(7, 7, 3, [SQUARE], bbox=[1])]
    with pytest.raises(DataError) as caught:
        listed(tables, tmp_path)
    told = str(caught.value)
    assert "annotations[4] (id 5): image_id is 99" in told
    assert "annotations[5] (id 6): category_id is 99" in told
    assert "annotations[6] (id 7): bbox is [1]" in told


def test_a_picture_must_have_a_size(tables: dict[str, Any], tmp_path: Path) -> None:
    del tables["images"][0]["height"]
    with pytest.raises(DataError, match="images\\[0\\] \\(id 7\\): has no width and height"):
        listed(tables, tmp_path)
