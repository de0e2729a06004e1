"""Polygons: areas, overlaps, growing and cutting out, against what geometry says."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv.vision.polygons import (
    area,
    cut_quad,
    distances,
    iou,
    longer,
    overlap,
    perimeter,
    reading_quad,
    tight_quad,
    unshrunk,
)

SQUARE = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], dtype=np.float64)
ARROW = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]], dtype=np.float64)


def turned(width: float, height: float, degrees: float, at: tuple[float, float] = (50, 40)) -> np.ndarray[Any, Any]:
    """A rectangle around ``at``, its corners from the top left one on."""
    angle = math.radians(degrees)
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    moved: np.ndarray[Any, Any] = corners @ turn + at
    return moved


def test_area_and_perimeter() -> None:
    assert area(SQUARE) == area(SQUARE[::-1]) == 16
    assert perimeter(SQUARE) == 16
    assert area(ARROW) == 10


@pytest.mark.parametrize("other", [SQUARE, SQUARE[::-1]])
def test_overlap_of_convex_ones(other: np.ndarray[Any, Any]) -> None:
    assert overlap(SQUARE, other + 2) == pytest.approx(4)
    assert iou(SQUARE, other + 2) == pytest.approx(4 / 28)
    assert iou(SQUARE, other) == pytest.approx(1)
    assert overlap(SQUARE, other + 4) == 0
    assert overlap(SQUARE, other * 0.5 + 1) == pytest.approx(4), "one within the other"


def test_overlap_of_outlines_that_bend_inwards() -> None:
    assert overlap(ARROW, SQUARE) == pytest.approx(10)
    assert overlap(SQUARE, ARROW) == pytest.approx(10)
    assert overlap(ARROW, ARROW) == pytest.approx(10)
    notch = np.array([[1.5, 3], [2.5, 3], [2.5, 4], [1.5, 4]])
    assert overlap(ARROW, notch) == pytest.approx(0, abs=1e-12), "it stands where the outline bends in"


def test_overlap_is_that_of_counted_places() -> None:
    random = np.random.default_rng(3)
    y, x = np.mgrid[0:400, 0:400]
    places = np.stack([x.ravel(), y.ravel()], axis=1) / 4 + 0.125
    for _ in range(10):
        one, other = (
            turned(
                random.uniform(20, 60), random.uniform(20, 60), random.uniform(0, 180), tuple(random.uniform(40, 60, 2))
            )
            for _ in range(2)
        )
        counted = (distances(one, places)[1] & distances(other, places)[1]).sum() / 16
        assert overlap(one, other) == pytest.approx(counted, rel=0.02, abs=3)


def test_distances() -> None:
    away, inside = distances(SQUARE, np.array([[2.0, 2.0], [1.0, 2.0], [7.0, 8.0], [2.0, -1.0]]))
    assert away == pytest.approx([2, 1, 5, 1])
    assert inside.tolist() == [True, True, False, False]
    assert distances(ARROW, np.array([[2.0, 3.0], [0.5, 2.0]]))[1].tolist() == [False, True]


@pytest.mark.parametrize(("width", "height", "keep"), [(40, 10, 0.4), (10, 10, 0.6), (200, 8, 0.5)])
def test_growing_undoes_the_shrinking_of_a_rectangle(width: float, height: float, keep: float) -> None:
    reach = (1 - keep * keep) * width * height / (2 * (width + height))
    assert unshrunk(width - 2 * reach, height - 2 * reach, keep=keep) == pytest.approx(reach)


@pytest.mark.parametrize("degrees", [0, 20, -35, 50, -58])
def test_corners_start_where_text_starts(degrees: float) -> None:
    quad = turned(60, 12, degrees)
    for start in range(4):
        for step in (1, -1):
            assert reading_quad(np.roll(quad, start, axis=0)[::step]) == pytest.approx(quad)


def test_steep_text_runs_down() -> None:
    quad = turned(60, 12, 80)
    assert reading_quad(quad[::-1]) == pytest.approx(quad)
    assert quad[1, 1] > quad[0, 1]


def test_a_near_square_is_read_level() -> None:
    tall = turned(10, 11, 4)
    assert reading_quad(np.roll(tall, 2, axis=0)) == pytest.approx(tall)


def test_the_tight_rectangle() -> None:
    quad = turned(60, 12, 25)
    inner = np.concatenate([quad, quad.mean(axis=0, keepdims=True)])
    assert tight_quad(inner) == pytest.approx(quad, abs=1e-3)
    assert tight_quad(inner, grow=2) == pytest.approx(turned(64, 16, 25), abs=1e-3)


def test_what_stands_in_a_quadrilateral_is_seen_upright() -> None:
    word = np.full((20, 80), 40, np.uint8)
    word[5:15, 10:30] = 220
    quad = turned(80, 20, 30, at=(100, 80))
    matrix = cv2.getPerspectiveTransform(
        np.array([[0, 0], [80, 0], [80, 20], [0, 20]], np.float32) - 0.5, (quad - 0.5).astype(np.float32)
    )
    page = cv2.warpPerspective(word, matrix, (200, 160), borderMode=cv2.BORDER_CONSTANT, borderValue=(40,))
    seen = cut_quad(page, quad)
    assert seen is not None
    assert seen.shape == (20, 80)
    assert np.abs(seen[2:-2, 2:-2].astype(int) - word[2:-2, 2:-2]).mean() < 8
    wide = cut_quad(page, quad, margin=1.5)
    assert wide is not None
    assert wide.shape == (30, 90)


def test_longer_along_the_text() -> None:
    assert longer(turned(60, 12, 25), 0.5) == pytest.approx(turned(66, 12, 25))


def test_what_cannot_be_cut_out() -> None:
    page = np.zeros((20, 20, 3), np.uint8)
    assert cut_quad(page, np.full((4, 2), np.nan)) is None
    assert cut_quad(page, SQUARE[:3]) is None
    assert cut_quad(page, SQUARE * 0.2) is None
    far = cut_quad(page, SQUARE * 4 + 100)
    assert far is not None, "outside the picture its border goes on"
    assert far.shape == (16, 16, 3)
