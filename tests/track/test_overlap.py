"""Pairs of boxes that overlap enough: the same as counting the overlap of each box with each."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.track.overlap import pairs_above
from edgecv.vision.boxes import iou


def boxes(count: int, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    low = draws.uniform(0, 300, (2, count))
    return np.concatenate([low, low + draws.uniform(5, 90, (2, count))])


@pytest.mark.parametrize("least", [-1.0, 0.0, 0.05, 0.3, 0.85])
@pytest.mark.parametrize("sizes", [(60, 50), (1, 40), (40, 1), (3, 3)])
def test_against_the_whole_table(least: float, sizes: tuple[int, int]) -> None:
    one, other = boxes(sizes[0], 1), boxes(sizes[1], 2)
    other[:, ::3] = one[:, : len(other[0, ::3])].repeat(1 + len(other[0]) // 3, axis=1)[:, : len(other[0, ::3])] + 2.0
    table = iou(one.T, other.T)
    rows, columns = np.nonzero(table >= least if least > 0 else table > 0 if least == 0 else table > -1)
    found = pairs_above(one, other, least)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.columns, columns)
    np.testing.assert_allclose(found.overlap, table[rows, columns], rtol=1e-5, atol=1e-6)


def test_no_boxes_and_boxes_without_area() -> None:
    nothing = np.zeros((4, 0))
    for one, other in ((nothing, boxes(3, 0)), (boxes(3, 0), nothing), (nothing, nothing)):
        for least in (-1.0, 0.0, 0.3):
            assert len(pairs_above(one, other, least).rows) == 0
    point = np.array([[5.0], [5.0], [5.0], [5.0]])
    assert len(pairs_above(point, point, 0.3).rows) == 0
    assert pairs_above(point, point, -1.0).overlap.tolist() == [0.0]


def test_a_box_lies_wholly_on_itself() -> None:
    given = boxes(20, 5)
    found = pairs_above(given, given, 1.0)
    np.testing.assert_array_equal(found.rows, np.arange(20))
    np.testing.assert_array_equal(found.columns, np.arange(20))
    assert (found.overlap == 1.0).all()


def test_a_part_of_the_pairs() -> None:
    found = pairs_above(boxes(30, 1), boxes(30, 2), 0.0)
    some = found.of(found.overlap > 0.2)
    assert 0 < len(some.rows) < len(found.rows)
    assert (some.overlap > 0.2).all()
    assert len(some.rows) == len(some.columns) == len(some.overlap)
