"""Made-up scenes as data sets: exact truths, the same on every machine, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError
from edgecv.vision.scenes import LABELS

HERE = Path()
MASKS = ("background", *LABELS)


def scenes(kind: str, labels: Sequence[str] = LABELS, **more: object) -> DataSpec:
    """A data set of scenes."""
    return DataSpec(kind=f"scenes-{kind}", **more)  # type: ignore[arg-type]


def test_splits_share_no_picture() -> None:
    parts = {
        split: open_reader(scenes("boxes", split=split, limit=3), base=HERE, labels=LABELS)
        for split in ("train", "test")
    }
    assert list(parts["train"].ids) == ["train-00000", "train-00001", "train-00002"]
    hashes = {parts[split].sha256(index) for split in parts for index in range(3)}
    assert len(hashes) == 6
    both = open_reader(scenes("boxes", limit=3), base=HERE, labels=LABELS)
    assert {both.sha256(index) for index in range(len(both))} == hashes


def test_boxes_are_of_the_labels_in_their_order() -> None:
    reader = open_reader(scenes("boxes", limit=12), base=HERE, labels=("person", "disc"))
    truths = [reader[index].truth for index in range(len(reader))]
    classes = np.concatenate([truth.class_ids for truth in truths])
    assert set(classes) == {0, 1}
    tall = [box[3] - box[1] for truth in truths for box in truth.boxes[(truth.class_ids == 0) & ~truth.crowd]]
    wide = [box[2] - box[0] for truth in truths for box in truth.boxes[(truth.class_ids == 0) & ~truth.crowd]]
    assert np.median(np.array(tall) / np.array(wide)) > 1.5, "label 0 is the person, which is taller than wide"
    assert any(truth.crowd.any() for truth in truths), "what is mostly hidden does not count"


def test_masks_cover_the_boxes() -> None:
    boxes = open_reader(scenes("boxes", limit=8), base=HERE, labels=LABELS)
    masks = open_reader(scenes("masks", limit=8), base=HERE, labels=MASKS)
    for index in range(8):
        assert np.array_equal(boxes[index].image, masks[index].image)
        truth, mask = boxes[index].truth, masks[index].truth.classes
        assert mask.shape == boxes[index].image.shape[:2]
        for box, number in zip(truth.boxes[~truth.crowd], truth.class_ids[~truth.crowd], strict=True):
            x1, y1, x2, y2 = (round(float(value)) for value in box)
            inside = mask[y1:y2, x1:x2] == number + 1
            assert inside.mean() > 0.15, "at least a thin figure's share of its box is of its class"


def test_depth_is_nearer_on_objects_than_behind_them() -> None:
    reader = open_reader(scenes("depth", limit=4), base=HERE, labels=("depth",))
    for index in range(4):
        depth = reader[index].truth.metres
        assert depth.dtype == np.float32
        assert depth.shape == reader[index].image.shape[:2]
        assert depth.min() >= 1.0
        assert depth.max() <= 12.0
        assert (depth < 6.0).any()


def test_keypoints_of_all_persons_and_of_one_that_is_cut_out() -> None:
    persons = ("person",)
    whole = open_reader(scenes("keypoints", limit=6), base=HERE, labels=persons)
    cut = open_reader(scenes("keypoints", limit=6, crop=0.75), base=HERE, labels=persons)
    assert max(int((~whole[index].truth.ignored).sum()) for index in range(6)) >= 2
    for index in range(6):
        sample = cut[index]
        truth = sample.truth
        assert len(truth) == 1
        assert truth.size == sample.image.shape[:2]
        assert truth.labelled.sum() >= 9, "half of a person shows"
        seen = truth.keypoints[0, truth.labelled[0], :2]
        assert (seen >= 0).all()
        assert (seen <= truth.size[::-1]).all()
        low, high = truth.boxes[0, :2], truth.boxes[0, 2:]
        assert ((seen >= low - 1) & (seen <= high + 1)).all()
        assert 0.15 < truth.area[0] / np.prod(high - low) < 0.9
    assert cut.sha256(0) != whole.sha256(0)
    assert (
        cut.fingerprint()
        == open_reader(scenes("keypoints", limit=6, crop=0.75), base=HERE, labels=persons).fingerprint()
    )


def test_a_subset_has_the_same_pictures() -> None:
    whole = open_reader(scenes("boxes", limit=5, split="test"), base=HERE, labels=LABELS)
    some = open_subset(scenes("boxes", limit=5, split="test"), ["test-00003", "x"], base=HERE, labels=LABELS)
    assert list(some.ids) == ["test-00003"]
    assert some.sha256(0) == whole.sha256(3)


def test_fingerprints_follow_the_settings_and_the_truth() -> None:
    specs = [scenes("boxes", limit=2), scenes("masks", limit=2), scenes("boxes", limit=3)]
    assert len({spec_fingerprint(spec, base=HERE, labels=LABELS) for spec in specs}) == 3
    one = open_reader(specs[0], base=HERE, labels=LABELS).fingerprint()
    assert open_reader(specs[0], base=HERE, labels=LABELS).fingerprint() == one
    assert open_reader(specs[1], base=HERE, labels=MASKS).fingerprint() != one
    assert open_reader(specs[0], base=HERE, labels=LABELS[::-1]).fingerprint() != one


@pytest.mark.parametrize(
    ("kind", "labels", "words"),
    [
        ("boxes", ("disc", "cat"), "'cat'; data of kind scenes-boxes shows disc, box, triangle, person"),
        ("boxes", ("disc", "disc"), "each at most once"),
        ("masks", LABELS, "the first label is 'disc'; data of kind scenes-masks needs 'background' there"),
        ("masks", ("background",), "each at most once"),
        ("keypoints", ("person", "disc"), "data of kind scenes-keypoints shows person, each at most once"),
    ],
)
def test_other_labels_are_refused(kind: str, labels: Sequence[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_reader(scenes(kind), base=HERE, labels=labels)
