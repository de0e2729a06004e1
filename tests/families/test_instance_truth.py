"""True masks: where they go with their picture, and what the metric and the loss make of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.masks import ObjectMask
from edgecv.core.protocols import PointTruth
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections
from edgecv.errors import DataError
from edgecv.families import instance, parts_from
from edgecv.families.instance_truth import InstanceTruth
from tests.moves import moved

pytest.importorskip("faster_coco_eval")  # it encodes the masks and counts them; not on the board

LABELS = ("a", "b")
SPEC = FamilySpec("instance", LABELS, head="prototypes")


def planes(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (32, 48)) -> np.ndarray:
    made = np.zeros((len(boxes), *size), dtype=bool)
    for plane, (left, top, right, bottom) in zip(made, boxes, strict=True):
        plane[top:bottom, left:right] = True
    return made


def truth(*boxes: tuple[int, int, int, int], classes: list[int] | None = None, crowd: Any = None) -> InstanceTruth:
    return InstanceTruth.of(planes(*boxes), np.array(classes or [0] * len(boxes)), crowd)


def found(masks: np.ndarray, scores: list[float], classes: list[int]) -> Detections:
    kept = tuple(ObjectMask.of(mask, (masks.shape[1], masks.shape[2])) for mask in masks)
    boxes = np.zeros((len(masks), 4), dtype=np.float32)
    ids = np.array(classes, dtype=np.int64)
    return Detections(boxes, np.array(scores, dtype=np.float32), ids, LABELS, masks=kept)


def test_masks_and_boxes() -> None:
    made = truth((4, 6, 20, 16), (0, 0, 1, 1), classes=[1, 0], crowd=[False, True])
    assert isinstance(made, PointTruth)
    assert made.boxes.tolist() == [[4, 6, 20, 16], [0, 0, 1, 1]]
    assert made.area.tolist() == [160, 1]
    assert (made.masks() == planes((4, 6, 20, 16), (0, 0, 1, 1))).all()
    assert made.select(made.crowd).class_ids.tolist() == [0]
    assert len(InstanceTruth.of(np.zeros((2, 5, 5)), np.array([0, 1]))) == 0
    assert made.as_boxes().boxes.tolist() == made.boxes.tolist()


def test_in_the_network_and_moved() -> None:
    made = truth((4, 6, 20, 16), (40, 24, 48, 32))
    there = made.to_network(InputContract(size=(64, 96), resize="stretch"))
    assert there.size == (64, 96)
    assert there.boxes.tolist() == [[8, 12, 40, 32], [80, 48, 96, 64]]
    assert there.area.tolist() == [640, 256]
    gone = moved(there, down=20, right=-10, mirrored=False)
    assert gone.boxes.tolist() == [[0, 32, 30, 52]], "the other one is outside"
    assert (gone.masks()[0] == planes((0, 32, 30, 52), size=(64, 96))[0]).all()
    turned = moved(there, down=0, right=0, mirrored=True)
    assert turned.boxes.tolist() == [[56, 12, 88, 32], [0, 48, 16, 64]]
    assert (turned.masks() == there.masks()[:, :, ::-1]).all()


def test_perfect_masks_have_precision_1_and_shifted_ones_less() -> None:
    values = []
    for shift in (0, 2, 12):
        metric = instance.metric(SPEC, "mask_ap")
        for seed in range(4):
            made = truth((4, 6 + seed, 20, 16 + seed), (24, 4, 44, 20), classes=[1, 0])
            metric.update(found(np.roll(made.masks(), shift, axis=2), [0.9, 0.8], [1, 0]), made)
        figures = metric.compute()
        ones = np.ones((1, 4), dtype=np.int64)
        parts = metric.parts()
        assert parts.values(ones)[0] == pytest.approx(figures.value)
        assert parts_from(parts.arrays()).values(ones)[0] == pytest.approx(figures.value)
        assert figures.extras["f1"] == pytest.approx(np.mean(figures.per_sample))
        values.append(figures.value)
    assert values[0] == 1.0
    assert 0.3 < values[1] < 1.0
    assert values[2] == 0.0


def test_the_rules_of_crowds_misses_and_doubles() -> None:
    made = truth((0, 0, 10, 10), (20, 0, 40, 20), classes=[0, 0], crowd=[False, True])
    metric = instance.metric(replace(SPEC, labels=LABELS), "mask_ap50")
    # On the crowd, twice: neither right nor wrong. The second finding of one object is wrong.
    masks = planes((0, 0, 10, 10), (22, 2, 30, 10), (21, 1, 25, 9), (0, 0, 10, 9))
    metric.update(found(masks, [0.9, 0.85, 0.84, 0.8], [0, 0, 0, 0]), made)
    metric.update(found(planes(), [], []), truth((0, 0, 10, 10)))
    figures = metric.compute()
    assert figures.per_sample == (pytest.approx(2 / 3), 0.0)
    assert figures.value == pytest.approx(51 / 101, abs=1e-6), "half of what is there is found, first of all"
    assert metric.parts().values(np.ones((1, 2), dtype=np.int64))[0] == pytest.approx(figures.value)
    assert metric.parts().values(np.array([[1, 0], [0, 1]]))[:2].tolist() == [1.0, 0.0]


def test_nothing_there_and_nothing_found() -> None:
    metric = instance.metric(SPEC, "mask_ap")
    with pytest.raises(DataError, match="no picture"):
        metric.compute()
    metric.update(found(planes(), [], []), truth())
    assert (metric.compute().value, metric.compute().per_sample) == (0.0, (1.0,))
    metric.update(found(planes(), [], []), truth((0, 0, 3, 3)))
    assert metric.compute().value == 0.0


def test_truths_that_do_not_fit() -> None:
    metric = instance.metric(SPEC, "mask_ap")
    with pytest.raises(DataError, match="needs an InstanceTruth"):
        metric.update(found(planes(), [], []), 3)
    with pytest.raises(DataError, match="a true class is 2"):
        metric.update(found(planes(), [], []), truth((0, 0, 3, 3), classes=[2]))
    with pytest.raises(DataError, match="the true masks are of a picture of 48 x 32 pixels, the picture has 40 x 20"):
        metric.update(found(planes((0, 0, 5, 5), size=(20, 40)), [0.9], [0]), truth((0, 0, 3, 3)))


def test_coco_against_itself(shared_data: Path) -> None:
    """The masks are those of COCO's own reader, and its evaluation of shifted ones gives our figure."""
    from faster_coco_eval import COCO, COCOeval_faster

    from edgecv.core.recipe import DataSpec
    from edgecv.data.readers import list_files

    file = shared_data / "coco-mini/instances.json"
    labels = tuple(item["name"] for item in json.loads(file.read_text())["categories"])
    spec = DataSpec("coco-masks", path=str(file), root=str(file.parent / "images"))
    listing = list_files(spec, base=file.parent, labels=labels)
    coco = COCO(str(file), print_function=lambda *_: None)
    ids = {item["file_name"]: key for key, item in coco.imgs.items()}
    categories = {item["name"]: key for key, item in coco.cats.items()}
    metric = instance.metric(FamilySpec("instance", labels, head="prototypes"), "mask_ap")
    rows, checked = [], 0
    for entry in listing.entries:
        masks = entry.truth.masks()
        notes = coco.loadAnns(coco.getAnnIds(imgIds=[ids[entry.id]]))
        for mask, note in zip(masks, notes, strict=True):
            checked += bool((mask == (coco.annToMask(note) != 0)).all())
        moved = np.roll(masks[~entry.truth.crowd], 5, axis=2)
        classes = entry.truth.class_ids[~entry.truth.crowd]
        scores = [0.9 - 0.001 * row for row in range(len(moved))]
        result = found(moved, scores, classes.tolist())
        metric.update(result, entry.truth)
        rows += [
            {
                "image_id": ids[entry.id],
                "category_id": categories[labels[index]],
                "segmentation": coco.annToRLE({"image_id": ids[entry.id], "segmentation": mask.to_rle()}),
                "score": float(score),
            }
            for mask, index, score in zip(result.masks, classes, result.scores, strict=True)
        ]
    assert checked == len(coco.anns), "every mask, those of crowds too"
    judge = COCOeval_faster(coco, coco.loadRes(rows), "segm", print_function=lambda *_: None)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert 0.2 < judge.stats[0] < 0.9
    assert metric.compute().value == pytest.approx(judge.stats[0], abs=1e-9)
