"""Average precision from per-picture parts: equal to the reference's, with pictures counted any number of times."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections, DetectionTruth
from edgecv.errors import ArtifactError
from edgecv.families import detection, parts_from
from edgecv.families.box_parts import box_parts
from edgecv.families.detection_metric import AveragePrecision
from edgecv.families.ranked import IGNORED, TRUE, RankedParts

pytest.importorskip("faster_coco_eval", reason="the reference is not installed")

CLASSES = 6
SPEC = FamilySpec(kind="detection", labels=tuple("abcdef"))


def scene(random: np.random.Generator) -> tuple[Detections, DetectionTruth]:
    """True boxes, some of them crowds, and findings: most near a true box, some of another class or anywhere."""
    true, found = int(random.integers(0, 7)), int(random.integers(0, 40))
    boxes = random.uniform(0, 300, (true, 4)).astype(np.float32)
    boxes[:, 2:] = boxes[:, :2] + random.uniform(20, 120, (true, 2)).astype(np.float32)
    classes = random.integers(0, CLASSES, true)
    truth = DetectionTruth(boxes, classes, random.random(true) < 0.1)
    near = random.uniform(0, 300, (found, 4)).astype(np.float32)
    guessed = random.integers(0, CLASSES, found)
    if true:
        source = random.integers(0, true, found)
        near = boxes[source] + random.normal(0, 8, (found, 4)).astype(np.float32)
        guessed = np.where(random.random(found) < 0.8, classes[source], guessed)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 2)
    scores = np.sort(random.random(found).astype(np.float32))[::-1].copy()
    return Detections(near.astype(np.float32), scores, guessed.astype(np.int64)), truth


def counted(scenes: list[tuple[Detections, DetectionTruth]], name: str) -> AveragePrecision:
    metric = detection.metric(SPEC, name)
    for result, truth in scenes:
        metric.update(result, truth)
    return metric


@pytest.mark.parametrize("name", detection.METRICS)
@pytest.mark.parametrize("seed", range(6))
def test_equal_to_faster_coco_eval(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    scenes = [scene(random) for _ in range(int(random.integers(3, 60)))]
    metric = counted(scenes, name)
    once = metric.parts().values(np.ones((1, len(scenes)), dtype=np.int64))
    assert once[0] == pytest.approx(metric.compute().value, abs=1e-9)
    assert 0.05 < once[0] < 1


@pytest.mark.parametrize("seed", range(3))
def test_a_count_is_that_many_copies(seed: int) -> None:
    random = np.random.default_rng(seed)
    scenes = [scene(random) for _ in range(30)]
    counts = random.integers(0, 4, (3, len(scenes)))
    values = counted(scenes, "ap").parts().values(counts)
    for row, value in zip(counts, values, strict=True):
        copies = [item for item, count in zip(scenes, row, strict=True) for _ in range(count)]
        # Copies of a picture tie with each other, so the order of equal scores is all that may differ.
        assert value == pytest.approx(counted(copies, "ap").compute().value, abs=2e-4)


def one(boxes: list[list[float]], scores: list[float], truth: list[list[float]], crowd: list[bool]) -> RankedParts:
    result = Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.zeros(len(scores), np.int64)
    )
    true = DetectionTruth(
        np.array(truth, np.float32).reshape(-1, 4), np.zeros(len(truth), np.int64), np.array(crowd, dtype=bool)
    )
    return box_parts([result], [true], thresholds=[0.5, 0.75])


def test_states_by_hand() -> None:
    square, half, far = [0.0, 0, 10, 10], [0.0, 0, 10, 6], [50.0, 50, 60, 60]
    parts = one([square, square, half, far], [0.9, 0.8, 0.7, 0.6], [square, [45.0, 45, 100, 100]], [False, True])
    assert parts.states.tolist() == [[TRUE, 0, 0, IGNORED], [TRUE, 0, 0, IGNORED]]
    assert parts.truths.tolist() == [[0, 0, 1]]
    parts = one([half, square], [0.9, 0.8], [square], [False])
    assert parts.states.tolist() == [[TRUE, 0], [0, TRUE]]  # 0.6 of overlap is enough at 0.5, not at 0.75
    assert parts.values(np.array([[1], [3], [0]])) == pytest.approx([0.75, 0.75, 0.0])


def test_nothing_to_find_and_nothing_found() -> None:
    assert one([], [], [], []).values(np.ones((2, 1), np.int64)).tolist() == [0, 0]
    assert one([[0, 0, 5, 5]], [0.5], [], []).values(np.ones((1, 1), np.int64)).tolist() == [0]
    missed = one([], [], [[0, 0, 5, 5]], [False])
    assert missed.values(np.ones((1, 1), np.int64)).tolist() == [0]
    assert missed.work == 0


def test_a_class_that_is_not_drawn_does_not_count() -> None:
    square = np.array([[0, 0, 10, 10]], np.float32)
    results = [Detections(square, np.ones(1, np.float32), np.array([index])) for index in (0, 0)]
    truths = [DetectionTruth(square, np.array([index])) for index in (0, 1)]
    values = box_parts(results, truths).values(np.array([[1, 1], [1, 0], [0, 1]]))
    assert values == pytest.approx([0.5, 1.0, 0.0])


def test_parts_come_back_from_arrays() -> None:
    random = np.random.default_rng(1)
    parts = counted([scene(random) for _ in range(10)], "ap").parts()
    counts = random.integers(0, 3, (5, 10))
    again = parts_from(parts.arrays())
    assert again.values(counts).tolist() == parts.values(counts).tolist()
    assert (again.samples, again.work) == (10, parts.work)
    arrays = dict(parts.arrays())
    del arrays["states"]
    with pytest.raises(ArtifactError, match="lack 'states'"):
        parts_from(arrays)
    with pytest.raises(ArtifactError, match="of form 'x'"):
        parts_from({"form": np.array("x")})
