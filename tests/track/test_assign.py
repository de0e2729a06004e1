"""The matching is the best one: held against scipy's solver."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.track.assign import match, match_pairs

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


@pytest.mark.parametrize("seed", range(60))
def test_crowds_with_ties(seed: int) -> None:
    """Few different values, so that many sums are equal: still the best one, in groups of every size."""
    draws = np.random.default_rng(seed)
    rows, columns = (int(size) for size in draws.integers(2, 30, 2))
    worth = np.where(draws.random((rows, columns)) < draws.uniform(0.05, 0.6), draws.integers(1, 6, (rows, columns)), 0)
    one, other = match(worth)
    assert worth[one, other].sum() == worth[optimize.linear_sum_assignment(-worth)].sum()
    assert len(set(one.tolist())) == len(one)
    assert len(set(other.tolist())) == len(other)


def test_a_pair_that_beats_all_against_it_is_taken() -> None:
    """0.9 is worth more than 0.4 and 0.45 together; 0.8 is not, and gives way."""
    assert match(np.array([[0.9, 0.4], [0.45, 0.0]]))[1].tolist() == [0]
    assert match(np.array([[0.8, 0.4], [0.45, 0.0]]))[1].tolist() == [1, 0]


def test_a_list_of_pairs_is_the_same_as_a_table() -> None:
    draws = np.random.default_rng(3)
    worth = np.where(draws.random((40, 50)) < 0.08, draws.random((40, 50)), 0.0)
    rows, columns = worth.nonzero()
    best = match_pairs(rows, columns, worth[rows, columns])
    np.testing.assert_array_equal(np.stack([rows[best], columns[best]]), np.stack(match(worth)))
    assert (np.diff(best) > 0).all()
    nothing = np.zeros(0, np.int64)
    assert len(match_pairs(nothing, nothing, np.zeros(0))) == 0


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (3, 4)])
def test_nothing_to_match(shape: tuple[int, int]) -> None:
    one, other = match(np.zeros(shape))
    assert len(one) == len(other) == 0


def test_equal_worths_are_matched_the_same_way_each_time() -> None:
    worth = np.ones((6, 6))
    first, again = match(worth), match(worth.copy())
    np.testing.assert_array_equal(first, again)
    assert len(first[0]) == 6
