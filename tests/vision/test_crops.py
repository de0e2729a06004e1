"""Crops: where they lie, and the way back into the picture."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.results import Classification, Detections, Poses
from edgecv.vision.crops import crop


@pytest.fixture
def picture() -> np.ndarray:
    rows, columns = np.mgrid[0:100, 0:200]
    return np.dstack([columns, rows, np.zeros_like(rows)]).astype(np.uint8)


def test_the_part_is_that_of_the_box(picture: np.ndarray) -> None:
    part = crop(picture, np.array([20.2, 30.7, 40.1, 50.0]))
    assert part is not None
    assert part.corner == (20, 30)
    assert part.image.shape == (20, 21, 3)
    assert part.image[0, 0].tolist() == [20, 30, 0]
    assert np.shares_memory(part.image, picture), "a view, no copy"


def test_margin_and_shape(picture: np.ndarray) -> None:
    wide = crop(picture, np.array([90, 40, 110, 60]), margin=2.0)
    assert wide is not None
    assert wide.image.shape[:2] == (40, 40)
    tall = crop(picture, np.array([90, 40, 110, 60]), aspect=0.5)
    assert tall is not None
    assert tall.image.shape[:2] == (40, 20)
    cut = crop(picture, np.array([190, 90, 230, 130]), margin=1.5)
    assert cut is not None
    assert cut.image.shape[:2] == (20, 20)
    assert cut.corner == (180, 80)


@pytest.mark.parametrize(
    "box", [[np.nan, 0, 5, 5], [5, 5, 5, 9], [9, 9, 3, 3], [300, 10, 320, 20], [-50, -50, -10, -10], [199.5, 5, 300, 9]]
)
def test_nothing_to_cut_out(picture: np.ndarray, box: list[float]) -> None:
    assert crop(picture, np.array(box)) is None


def test_results_go_back_into_the_picture(picture: np.ndarray) -> None:
    part = crop(picture, np.array([20, 30, 40, 50]))
    assert part is not None
    points = np.array([[[1, 2, 0.5]]], np.float32)
    box = np.array([[0, 0, 5, 5]], np.float32)
    one = np.ones(1, np.float32)
    pose = part.to_picture(Poses(points, one, box))
    assert pose.keypoints.tolist() == [[[21, 32, 0.5]]]
    assert pose.boxes.tolist() == [[20, 30, 25, 35]]
    found = part.to_picture(Detections(box, one, np.zeros(1, np.int64), keypoints=points))
    assert found.boxes.tolist() == [[20, 30, 25, 35]]
    assert found.keypoints.tolist() == [[[21, 32, 0.5]]]
    assert points[0, 0, 0] == 1, "the result itself stays as it was"
    answer = Classification(one, np.zeros(1, np.int64))
    assert part.to_picture(answer) is answer
