"""Boxes: overlap and non-maximum suppression, against plain loops and other libraries."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from edgecv.vision.boxes import iou, nms, soft_nms, to_corners, top_k


def scattered(count: int, rng: np.random.Generator, *, side: float = 640.0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes all over a picture, few of which overlap much."""
    centres, sizes = rng.uniform(0, side, (count, 2)), np.exp(rng.normal(3.3, 0.7, (count, 2)))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    return boxes.astype(np.float32), rng.uniform(0.01, 1, count).astype(np.float32)


def clustered(count: int, rng: np.random.Generator, *, each: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Many boxes around each of a few objects, as a detector gives them."""
    objects = max(1, count // each)
    centres, sizes = rng.uniform(0, 640, (objects, 2)), np.exp(rng.normal(4, 0.7, (objects, 2)))
    which = rng.integers(0, objects, count)
    middle = centres[which] + rng.normal(0, 0.08, (count, 2)) * sizes[which]
    extent = sizes[which] * np.exp(rng.normal(0, 0.12, (count, 2)))
    boxes = np.concatenate([middle - extent / 2, middle + extent / 2], axis=1)
    return boxes.astype(np.float32), rng.uniform(0.01, 1, count).astype(np.float32)


def loop_iou(one: np.ndarray, other: np.ndarray) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    shared = float(wide) * float(high)
    areas = [float(box[2] - box[0]) * float(box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def loop_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, classes: np.ndarray | None) -> list[int]:
    kept: list[int] = []
    for row in sorted(range(len(boxes)), key=lambda index: (-scores[index], index)):
        rivals = [other for other in kept if classes is None or classes[other] == classes[row]]
        if all(loop_iou(boxes[row], boxes[other]) <= threshold for other in rivals):
            kept.append(row)
    return kept


def test_iou_is_what_a_loop_says() -> None:
    rng = np.random.default_rng(1)
    one, other = clustered(40, rng)[0], clustered(31, rng)[0]
    wanted = [[loop_iou(left, right) for right in other] for left in one]
    found = iou(one, other)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert iou(one, np.zeros((0, 4))).shape == (40, 0)
    assert iou(np.zeros((0, 4), np.float32), other).shape == (0, 31)


def test_iou_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [5, 5, 5, 9], [9, 9, 1, 1]])
    found = iou(boxes, boxes)
    assert found[0].tolist() == pytest.approx([1, 1 / 3, 0, 0, 0])
    assert found[3].tolist() == [0, 0, 0, 0, 0]  # no width: not even with itself
    assert found[4].tolist() == [0, 0, 0, 0, 0]  # turned inside out


@pytest.mark.parametrize("make", [scattered, clustered])
@pytest.mark.parametrize("count", [0, 1, 2, 17, 127, 128, 129, 320])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.45, 0.9, 1.0])
def test_nms_is_what_a_loop_says(make, count: int, threshold: float) -> None:
    rng = np.random.default_rng(count)
    boxes, scores = make(count, rng)
    classes = rng.integers(0, 4, count)
    for ids in (None, classes):
        found = nms(boxes, scores, iou_threshold=threshold, class_ids=ids)
        assert found.dtype == np.int64
        assert found.tolist() == loop_nms(boxes, scores, threshold, ids)


@pytest.mark.parametrize("make", [scattered, clustered])
@pytest.mark.parametrize("count", [100, 1000, 4000])
@pytest.mark.parametrize("threshold", [0.3, 0.65])
def test_nms_is_what_libraries_say(make, count: int, threshold: float) -> None:
    rng = np.random.default_rng(count)
    boxes, scores = make(count, rng)
    found = nms(boxes, scores, iou_threshold=threshold)
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    assert found.tolist() == np.asarray(cv2.dnn.NMSBoxes(corners, scores, 0.0, threshold)).tolist()
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision.ops")
    tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
    assert found.tolist() == ops.nms(*tensors, threshold).tolist()
    classes = rng.integers(0, 80, count)
    # In double precision: batched_nms moves the classes apart, which costs float32 digits.
    wanted = ops.batched_nms(tensors[0].double(), tensors[1].double(), torch.from_numpy(classes), threshold)
    assert nms(boxes, scores, iou_threshold=threshold, class_ids=classes).tolist() == wanted.tolist()


def test_thirty_thousand_boxes() -> None:
    """Each shape of crowd that one of the ways would be slow or wrong at."""
    ops = pytest.importorskip("torchvision.ops")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    count = 30_000
    boxes, scores = clustered(count, rng)
    wanted = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5).tolist()
    assert nms(boxes, scores, iou_threshold=0.5).tolist() == wanted
    same = np.broadcast_to(np.float32([3, 4, 50, 60]), (count, 4))
    assert nms(same, scores, iou_threshold=0.5).tolist() == [int(scores.argmax())]
    assert len(nms(same, scores, iou_threshold=0.5, class_ids=np.arange(count) % 80)) == 80
    assert len(nms(np.zeros((count, 4), np.float32), scores, iou_threshold=0.5)) == count


@pytest.mark.parametrize("turned", [False, True])
def test_a_long_row_of_boxes(turned: bool) -> None:
    """All begin at one x (or, turned, at one y): a sweep along that axis alone would compare all with all."""
    count = 20_000
    at = np.arange(count, dtype=np.float32) * 4
    flat, wide = np.zeros(count, np.float32), np.full(count, 9, np.float32)
    columns = [at, flat, at + 9, wide] if turned else [flat, at, wide, at + 9]
    # The best come first; each overlaps the next by 5/13 and the one after by 1/17.
    scores = np.linspace(1, 0.1, count, dtype=np.float32)
    found = nms(np.stack(columns, axis=1), scores, iou_threshold=0.3)
    assert found.tolist() == list(range(0, count, 2))


def test_chains_keep_every_second() -> None:
    """A box that went takes nothing with it, however long the chain and whatever the way."""
    for count in (5, 100, 128, 129, 1000):
        left = np.arange(count, dtype=np.float32) * 3
        boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1)  # next: 7/13, the one after: 4/16
        scores = np.linspace(0.9, 0.1, count, dtype=np.float32)
        assert nms(boxes, scores, iou_threshold=0.4).tolist() == list(range(0, count, 2))


@pytest.mark.parametrize("count", [6, 300])
def test_rows_with_nan_or_infinity_are_never_kept(count: int) -> None:
    rng = np.random.default_rng(5)
    boxes, scores = scattered(count, rng)
    boxes[0, 1], boxes[1, 2], boxes[2, 0] = math.nan, math.inf, -math.inf
    scores[3], scores[4] = math.nan, math.inf
    sound = np.arange(5, count)
    wanted = [int(sound[row]) for row in loop_nms(boxes[5:], scores[5:], 0.4, None)]
    assert nms(boxes, scores, iou_threshold=0.4).tolist() == wanted
    rows, _ = soft_nms(boxes, scores)
    assert set(rows.tolist()) <= set(sound.tolist())
    assert nms(np.full((3, 4), math.nan), np.ones(3), iou_threshold=0.4).tolist() == []


def test_huge_boxes_do_not_overflow() -> None:
    boxes = np.array([[-1e30, -1e30, 1e30, 1e30], [-1e30, -1e30, 1e30, 1e30], [0, 0, 1e300, 5], [0, 0, 10, 10]])
    assert nms(boxes, np.array([0.9, 0.8, 0.7, 0.6]), iou_threshold=0.5).tolist() == [0, 3]


def test_empty_boxes_overlap_with_nothing() -> None:
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10], [4, 4, 4, 8], [9, 9, 1, 1]], dtype=np.float32)
    assert nms(boxes, np.linspace(1, 0.5, 5), iou_threshold=0.1).tolist() == [0, 1, 2, 3, 4]


def test_an_overlap_of_just_the_threshold_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], dtype=np.float32)
    assert nms(boxes, np.array([0.9, 0.8]), iou_threshold=0.5).tolist() == [0, 1]
    assert nms(boxes, np.array([0.9, 0.8]), iou_threshold=0.49).tolist() == [0]


def test_equal_scores_keep_the_first() -> None:
    boxes = np.repeat(np.array([[0, 0, 9, 9], [20, 0, 29, 9]], dtype=np.float32), 200, axis=0)
    assert nms(boxes, np.full(400, 0.5), iou_threshold=0.5).tolist() == [0, 200]


@pytest.mark.parametrize("make", [scattered, clustered])
def test_max_detections_are_the_best_of_all(make) -> None:
    boxes, scores = make(2000, np.random.default_rng(7))
    every = nms(boxes, scores, iou_threshold=0.45)
    for limit in (0, 1, 5, 39, 300, len(every), 5000):
        assert nms(boxes, scores, iou_threshold=0.45, max_detections=limit).tolist() == every[:limit].tolist()


def test_the_caller_s_arrays_stay_as_they_are() -> None:
    for boxes in (np.float32([[9, 9, 1, 1]]), scattered(300, np.random.default_rng(2))[0]):
        before = boxes.copy()
        scores = np.linspace(1, 0.2, len(boxes), dtype=np.float32)
        nms(boxes, scores, iou_threshold=0.5)
        soft_nms(boxes, scores)
        iou(boxes, boxes)
        to_corners(boxes)
        np.testing.assert_array_equal(boxes, before)


def loop_soft(boxes, scores, classes, sigma: float, threshold: float) -> list[tuple[int, float]]:
    left = {row: float(score) for row, score in enumerate(scores)}
    kept = []
    while left:
        best = max(left, key=lambda row: (left[row], -row))
        score = left.pop(best)
        if score < threshold:
            break
        kept.append((best, score))
        for row in left:
            if classes is None or classes[row] == classes[best]:
                left[row] *= math.exp(-(loop_iou(boxes[best], boxes[row]) ** 2) / sigma)
    return kept


@pytest.mark.parametrize("sigma", [0.3, 0.5])
@pytest.mark.parametrize("grouped", [False, True])
def test_soft_nms_is_what_a_loop_says(sigma: float, grouped: bool) -> None:
    rng = np.random.default_rng(11)
    boxes, scores = clustered(120, rng)
    classes = rng.integers(0, 3, 120) if grouped else None
    wanted = loop_soft(boxes, scores, classes, sigma, 0.05)
    rows, values = soft_nms(boxes, scores, sigma=sigma, class_ids=classes, score_threshold=0.05)
    assert rows.tolist() == [row for row, _ in wanted]
    np.testing.assert_allclose(values, [score for _, score in wanted], rtol=1e-4)
    few, _ = soft_nms(boxes, scores, sigma=sigma, class_ids=classes, score_threshold=0.05, max_detections=7)
    assert few.tolist() == rows[:7].tolist()


def test_soft_nms_is_what_opencv_says() -> None:
    boxes, scores = clustered(60, np.random.default_rng(12))
    boxes = boxes.round()  # OpenCV takes whole pixels here
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(int)
    values, rows = cv2.dnn.softNMSBoxes(sides.tolist(), scores.tolist(), 0.1, 0.5, sigma=0.5)
    found, gained = soft_nms(boxes, scores, sigma=0.5, score_threshold=0.1)
    assert found.tolist() == np.asarray(rows).reshape(-1).tolist()
    np.testing.assert_allclose(gained, np.asarray(values).reshape(-1), rtol=1e-4)


def test_soft_nms_of_nothing() -> None:
    rows, values = soft_nms(np.zeros((0, 4)), np.zeros(0))
    assert (rows.tolist(), values.tolist()) == ([], [])


def test_top_k() -> None:
    scores = np.array([0.5, math.nan, 0.9, 0.5, 0.1, 0.9], dtype=np.float32)
    assert top_k(scores, 3).tolist() == [2, 5, 0]
    assert top_k(scores, 4).tolist() == [2, 5, 0, 3]
    assert top_k(scores, 99).tolist() == [2, 5, 0, 3, 4]
    assert top_k(np.zeros(0), 3).tolist() == []
    many = np.random.default_rng(0).integers(0, 50, 5000).astype(np.float32)
    assert top_k(many, 700).tolist() == sorted(range(5000), key=lambda row: (-many[row], row))[:700]


def test_to_corners() -> None:
    found = to_corners(np.array([[10, 20, 4, 6]], dtype=np.float32))
    assert found.tolist() == [[8, 17, 12, 23]]
    assert to_corners(np.zeros((0, 4))).shape == (0, 4)
