"""Masks of objects: only the part around them is kept, and nothing is lost by it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edgecv.core.masks import ObjectMask
from edgecv.core.results import Detections


def random_bits(seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    size = tuple(draws.integers(1, 24, 2))
    return draws.random(size) < draws.random()


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_and_coco_reads_the_same(seed: int) -> None:
    codec = pytest.importorskip("faster_coco_eval.core.mask")
    bits = random_bits(seed)
    height, width = bits.shape
    mask = ObjectMask.of(bits, (height, width))
    assert (mask.full() == bits).all()
    assert mask.area == bits.sum()
    plain = mask.to_rle()
    assert plain["size"] == [height, width]
    assert sum(plain["counts"]) == height * width
    code = codec.frPyObjects(plain, height, width)
    assert code["counts"] == codec.encode(np.asfortranarray(bits.astype(np.uint8)))["counts"]


def test_a_part_somewhere_in_the_picture() -> None:
    bits = np.zeros((4, 5), dtype=bool)
    bits[1:3, 2:4] = True
    mask = ObjectMask.of(bits, (20, 30), left=10, top=6)
    assert (mask.left, mask.top, mask.width, mask.height) == (12, 7, 2, 2)
    wanted = np.zeros((20, 30), dtype=bool)
    wanted[7:9, 12:14] = True
    assert (mask.full() == wanted).all()
    assert mask.packed.nbytes == 2, "a bit for each pixel of the part"


@pytest.mark.parametrize("seed", range(20))
def test_overlap_is_that_of_whole_pictures(seed: int) -> None:
    draws = np.random.default_rng(seed)
    one, other = (draws.random((2, 15, 17)) < 0.2).astype(bool)
    one[:, : draws.integers(0, 16)] = False
    other[draws.integers(0, 14) :] = False
    union = (one | other).sum()
    wanted = (one & other).sum() / union if union else 0.0
    masks = [ObjectMask.of(bits, (15, 17)) for bits in (one, other)]
    assert masks[0].iou(masks[1]) == pytest.approx(wanted)
    assert masks[1].iou(masks[0]) == pytest.approx(wanted)


def test_an_empty_mask() -> None:
    mask = ObjectMask.of(np.zeros((3, 4), dtype=bool), (8, 9), left=2, top=1)
    assert mask.area == 0
    assert not mask.full().any()
    assert mask.to_rle() == {"size": [8, 9], "counts": [72]}
    assert mask.iou(mask) == 0.0


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="not inside its picture of 10 x 8"):
        ObjectMask.of(np.ones((3, 4)), (8, 10), left=7)
    with pytest.raises(ValueError, match="for a width of 9 pixels"):
        ObjectMask(0, 0, 9, np.zeros((2, 1), np.uint8), (20, 20))
    with pytest.raises(ValueError, match="cannot be compared"):
        ObjectMask.of(np.ones((2, 2)), (2, 2)).iou(ObjectMask.of(np.ones((2, 2)), (3, 2)))


def detections(count: int = 3) -> Detections:
    masks = tuple(ObjectMask.of(np.ones((2, 2 + row)), (10, 12), left=row, top=row) for row in range(count))
    boxes = np.array([[row, row, 2 * row + 2, row + 2] for row in range(count)], dtype=np.float32)
    return Detections(boxes, np.full(count, 0.5, np.float32), np.arange(count), ("a", "b", "c"), masks=masks)


def test_masks_go_with_their_objects() -> None:
    found = detections()
    chosen = found.select(np.array([2, 0]))
    assert [mask.left for mask in chosen.masks] == [2, 0]
    assert [mask.left for mask in found.select(np.array([False, True, False])).masks] == [1]
    objects = json.loads(json.dumps(found.to_dict()))["objects"]
    assert objects[1]["mask"] == {"size": [10, 12], "counts": found.masks[1].to_rle()["counts"]}
    with pytest.raises(ValueError, match="1 masks for 3 scores"):
        Detections(found.boxes, found.scores, found.class_ids, masks=found.masks[:1])


def test_masks_in_supervision() -> None:
    pytest.importorskip("supervision")
    given = detections().to_supervision()
    assert given.mask.shape == (3, 10, 12)
    assert given.mask[2].sum() == 8


def test_a_tracker_keeps_the_masks() -> None:
    from edgecv import track

    given = replace(detections(), scores=np.full(3, 0.9, np.float32))
    tracker = track.make("bytetrack", {}, fps=30.0)
    for step in range(3):
        seen = tracker.update(given, step / 30)
    assert len(seen) == len(seen.masks) > 0
    for box, mask in zip(seen.boxes, seen.masks, strict=True):
        assert abs(float(box[0]) - mask.left) < 1, "each object its own"
