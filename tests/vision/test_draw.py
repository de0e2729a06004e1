"""Overlays: something is drawn where it belongs, and odd input does no harm."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.results import Classification, Detections, Poses
from edgecv.vision.draw import color_of, draw


def canvas(height: int = 240, width: int = 320) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def detections(boxes: list[list[float]], **more: object) -> Detections:
    count = len(boxes)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(array, np.full(count, 0.8, np.float32), np.zeros(count, np.int64), ("cat",), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(240, 320), (1080, 1920)])
def test_a_box_is_drawn_on_its_edges(size: tuple[int, int]) -> None:
    image = canvas(*size)
    draw(image, detections([[50, 100, 150, 200]]))
    assert image[150, 50].any()
    assert image[200, 100].any()
    assert not image[150, 100].any(), "the object itself stays free"


def test_the_same_track_has_the_same_colour() -> None:
    images = []
    for left in (20, 60):
        image = canvas()
        draw(image, detections([[left, 100, left + 50, 200]], track_ids=np.array([7])))
        images.append(image[150, left].astype(int))
    assert (images[0] == images[1]).all()
    np.testing.assert_allclose(images[0], color_of(7), atol=25)  # the line is smoothed


def test_everything_at_once() -> None:
    points = np.array([[[60, 120, 0.9], [90, 150, 0.9], [70, 180, 0.05]]], np.float32)
    pose = Poses(points, np.array([0.9], np.float32), skeleton=((0, 1), (1, 2)))
    answer = Classification(np.array([0.1, 0.9], np.float32), np.array([1, 0]), ("a", "b"))
    image = canvas()
    found = detections(
        [[50, 100, 150, 200], [10, 10, 40, 40]], keypoints=np.repeat(points, 2, axis=0), second=(pose, answer)
    )
    draw(image, found, lines=("30.0 fps",))
    assert image[120, 60].any()
    assert image[135, 75].any(), "the bone between two sure points"
    alone = canvas()
    draw(alone, pose)
    assert not alone[180, 70].any(), "a point that is not sure"
    named = canvas()
    draw(named, answer)
    assert named[:60].any()


def test_odd_boxes_and_letters() -> None:
    image = canvas()
    odd = [[np.nan, 0, 5, 5], [-50, -50, -10, -10], [400, 10, 500, 20], [30, 30, 10, 10], [-1e9, -1e9, 1e9, 1e9]]
    found = detections(odd)
    draw(image, Detections(found.boxes, found.scores, found.class_ids, ("Käse 猫",)))
    points = np.array([[[np.nan, 5, 0.9], [1e30, -1e30, 0.9]]], np.float32)
    draw(image, Poses(points, np.array([0.5], np.float32), skeleton=((0, 1), (0, 9))))
    draw(image, "no result")
    draw(image, Detections.empty())
