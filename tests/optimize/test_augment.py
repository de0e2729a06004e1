"""Random changes of pictures: truths stay where their objects are, whatever is drawn; one seed gives one picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from edgecv.core.contract import InputContract
from edgecv.core.protocols import JoinedTruth, MovedTruth
from edgecv.core.recipe import DataSpec
from edgecv.core.results import DetectionTruth
from edgecv.core.steps import AUGMENTS, Augment, augment_of
from edgecv.data.scenes import open_scenes
from edgecv.families.instance_truth import InstanceTruth, mask_box
from edgecv.families.pose_truth import PoseTruth
from edgecv.optimize.augment import FlatMap, Item, Window, changed, mosaic, recoloured, truth_seen
from edgecv.optimize.batches import make_batches
from tests.moves import moved

SIZE = (48, 64)
CONTRACT = InputContract(size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
ALL = Augment(flip=True, scale=(0.5, 1.8), color=0.4, mosaic=0.5)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blocks(seed: int) -> Item:
    """A picture with two blocks whose values are 2 and 3, else 0, and their masks."""
    draw, picture, masks = random(seed), np.zeros((3, *SIZE), np.float32), np.zeros((2, *SIZE), bool)
    for index in range(2):
        high, wide = draw.integers(8, 20, 2)
        top, left = draw.integers(0, SIZE[0] - high), 32 * index + draw.integers(0, 32 - wide)
        masks[index, top : top + high, left : left + wide] = True
        picture[:, masks[index]] = 2.0 + index
    return picture, InstanceTruth.of(masks, np.array([0, 1]))


def no_color(augment: Augment) -> Augment:
    return Augment(augment.shift, augment.flip, augment.scale, 0.0, augment.mosaic)


def check_blocks(item: Item) -> int:
    """Each mask is where the picture has its value, and each box holds its mask; gives how many objects there are."""
    picture, truth = item
    assert picture.shape == (3, *SIZE)
    assert truth.size == SIZE
    for mask, box, kind in zip(truth.masks(), truth.boxes, truth.class_ids, strict=True):
        core = np.zeros_like(mask)
        core[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        assert np.isclose(picture[0, core], 2.0 + kind, atol=0.02).mean() > 0.8 if core.any() else True
        np.testing.assert_allclose(box, mask_box(mask), atol=1.5)
    return len(truth)


@pytest.mark.parametrize("seed", range(12))
def test_masks_and_boxes_stay_around_their_objects(seed: int) -> None:
    assert check_blocks(changed(blocks(seed), no_color(ALL), CONTRACT, random(seed))) >= 0
    others = iter([blocks(seed + 100), blocks(seed + 200), blocks(seed + 300)])
    made = mosaic(blocks(seed), lambda: next(others), no_color(ALL), CONTRACT, random(seed))
    assert check_blocks(made) > 0


def test_a_flip_of_a_flip_is_the_identity() -> None:
    once = Window(0, 0, *SIZE, SIZE, True)
    picture, truth = blocks(3)
    there = once.of(tv_tensors.Image(torch.from_numpy(picture)))
    assert not np.array_equal(there.numpy(), picture)
    assert np.array_equal(once.of(there).numpy(), picture)
    back = truth_seen(truth_seen(truth, SIZE, once), SIZE, once)
    assert back.boxes.tolist() == truth.boxes.tolist()
    assert np.array_equal(back.masks(), truth.masks())
    pose = PoseTruth(
        np.array([[[10, 20, 2], [30, 5, 1], [50.5, 40, 2]]], np.float32),
        np.array([[5, 2, 60, 45]], np.float32),
        np.array([900], np.float32),
        np.array([False]),
        SIZE,
        (1, 0, 2),
    )
    mirrored = truth_seen(pose, SIZE, once)
    assert mirrored.keypoints[0, 0].tolist() == [34, 5, 1], "the left one is now what was the right one"
    again = truth_seen(mirrored, SIZE, once)
    np.testing.assert_allclose(again.keypoints, pose.keypoints)
    np.testing.assert_allclose(again.area, pose.area)


@pytest.mark.parametrize(("down", "right", "mirrored"), [(3, -5, False), (-6, 2, True), (0, 0, True), (40, 50, True)])
def test_what_the_library_moves_is_what_moves_by_hand(down: int, right: int, mirrored: bool) -> None:
    window = Window(-down, -right, *SIZE, SIZE, mirrored)
    _, truth = blocks(5)
    for one in (truth, truth.as_boxes()):
        found, wanted = truth_seen(one, SIZE, window), moved(one, down=down, right=right, mirrored=mirrored)
        assert found.boxes.tolist() == wanted.boxes.tolist()
        assert found.class_ids.tolist() == wanted.class_ids.tolist()
        assert found.crowd.tolist() == wanted.crowd.tolist()
    assert np.array_equal(
        truth_seen(truth, SIZE, window).masks(), moved(truth, down=down, right=right, mirrored=mirrored).masks()
    )


def test_zoom_by_hand() -> None:
    """Twice as large: the middle quarter of the picture fills it, and what is cut off for the most part is a crowd."""
    truth = DetectionTruth(
        np.array([[20, 16, 40, 30], [0, 0, 10, 10], [44, 10, 64, 20]], np.float32), np.array([0, 1, 1]), size=SIZE
    )
    seen = truth_seen(truth, SIZE, Window(12, 16, 24, 32, SIZE, False))
    assert seen.boxes.tolist() == [[8, 8, 48, 36], [56, 0, 64, 16]]
    assert seen.crowd is not None
    assert seen.crowd.tolist() == [False, True]


def test_maps_keep_their_classes_and_are_filled_from_outside() -> None:
    values = np.kron(random().integers(0, 3, (3, 4)), np.ones((16, 16), int)).astype(np.uint8)
    picture = np.repeat(values[None].astype(np.float32) + 1, 3, axis=0)
    item = (picture, FlatMap(values, 255))
    others = iter([item] * 60)
    for seed in range(20):
        for seen, truth in (
            changed(item, no_color(ALL), CONTRACT, random(seed)),
            mosaic(item, lambda: next(others), no_color(ALL), CONTRACT, random(seed)),
        ):
            assert truth.values.dtype == np.uint8
            inside = truth.values != 255
            right = np.abs(seen[0] - (truth.values + 1.0)) < 0.5
            assert right[inside].mean() > 0.85
            assert (seen[0][~inside] < 2).all(), "0 comes in, or a mix of 0 and the edge"


def test_colours_change_and_come_back_to_the_contract() -> None:
    picture = random().uniform(0, 1, (3, *SIZE)).astype(np.float32)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (CONTRACT.mean, CONTRACT.std))
    ready = (picture - mean) / std
    made = recoloured(ready, CONTRACT, share=0.4, random=random()) * std + mean
    assert made.min() >= -1e-5
    assert made.max() <= 1 + 1e-5
    assert np.abs(made - picture).max() > 0.05
    same = recoloured(ready, CONTRACT, share=1e-6, random=random())
    np.testing.assert_allclose(same, ready, atol=1e-3)
    bgr = InputContract(size=SIZE, mean=CONTRACT.mean[::-1], std=CONTRACT.std[::-1], color="bgr")
    turned = recoloured(np.ascontiguousarray(ready[::-1]), bgr, share=0.4, random=random())
    np.testing.assert_allclose(turned[::-1] * std + mean, made, atol=1e-4)


def test_gray_pictures_and_clips_change_as_a_whole() -> None:
    gray = InputContract(size=SIZE, color="gray", mean=(0.5,), std=(0.5,))
    assert recoloured(np.zeros((1, *SIZE), np.float32), gray, share=0.4, random=random()).shape == (1, *SIZE)
    frame = random().uniform(-1, 1, (3, *SIZE)).astype(np.float32)
    both = recoloured(np.concatenate([frame, frame]), CONTRACT, share=0.4, random=random())
    np.testing.assert_allclose(both[:3], both[3:])
    np.testing.assert_allclose(both[:3], recoloured(frame, CONTRACT, share=0.4, random=random()), atol=1e-5)


@pytest.mark.parametrize("kind", ["scenes-instances", "scenes-boxes", "scenes-masks"])
def test_batches_of_scenes_repeat_by_seed_and_workers(kind: str) -> None:
    labels = (["background"] if kind == "scenes-masks" else []) + ["disc", "box"]
    reader = open_scenes(DataSpec(kind=kind, split="train", limit=6), labels=labels)  # type: ignore[arg-type]

    def run(seed: int, workers: int = 0) -> Any:
        return next(
            make_batches(reader, CONTRACT, batch_size=6, shuffle_seed=seed, augment=ALL, workers=workers)(epoch=1)
        )

    one, again, other = run(1), run(1, workers=3), run(2)
    assert np.array_equal(one[0], again[0])
    assert not np.array_equal(one[0], other[0])
    for left, right in zip(one[1], again[1], strict=True):
        assert np.array_equal(getattr(left, "boxes", left), getattr(right, "boxes", right))


def test_truths_that_do_not_move_stay() -> None:
    picture = random().uniform(0, 1, (3, *SIZE)).astype(np.float32)
    seen, truth = changed((picture, 7), Augment(), CONTRACT, random())
    assert truth == 7
    assert seen.dtype == np.float32
    assert not isinstance(FlatMap(np.zeros((2, 2)), 0), MovedTruth)
    assert isinstance(blocks(0)[1], JoinedTruth)


def test_words_and_parts() -> None:
    assert augment_of("none") is None
    assert augment_of("crop") == Augment()
    assert augment_of(ALL) is ALL
    assert ALL.parts == ("shift", "flip", "scale", "color", "mosaic")
    assert Augment().parts == ("shift",)
    strong = AUGMENTS["strong"]
    assert strong is not None
    assert strong.parts == ("shift", "flip", "scale", "color")
