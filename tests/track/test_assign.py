"""The matching is the best one: held against scipy's solver."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.track.assign import match

optimize = pytest.importorskip("scipy.optimize")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_sum_is_that_of_an_exact_solver(share: float, seed: int) -> None:
    draws = np.random.default_rng(seed)
    rows, columns = (int(size) for size in draws.integers(1, 40, 2))
    worth = np.where(draws.random((rows, columns)) < share, draws.random((rows, columns)), -1.0)
    one, other = match(worth)
    best = np.maximum(worth, 0)
    assert worth[one, other].sum() == pytest.approx(best[optimize.linear_sum_assignment(-best)].sum())
    assert len(set(one.tolist())) == len(one)
    assert len(set(other.tolist())) == len(other)
    assert (worth[one, other] > 0).all()
    assert (np.diff(one) > 0).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (3, 4)])
def test_nothing_to_match(shape: tuple[int, int]) -> None:
    one, other = match(np.zeros(shape))
    assert len(one) == len(other) == 0


def test_equal_worths_are_matched_the_same_way_each_time() -> None:
    worth = np.ones((6, 6))
    first, again = match(worth), match(worth.copy())
    np.testing.assert_array_equal(first, again)
    assert len(first[0]) == 6
