from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.errors import DataError
from edgecv.optimize.histogram import BINS, Histogram, Range, Search, best_range, joined

SEARCHES: tuple[Search, ...] = ("percentile", "mse", "entropy")


def histogram(*parts: Sequence[float] | np.ndarray) -> Histogram:
    made = Histogram()
    for part in parts:
        made.update(np.asarray(part, dtype=np.float32))
    return made


def normal(count: int = 20_000, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def error(values: np.ndarray, found: Range) -> float:
    step = (found.high - found.low) / 255
    return float(np.square(values - np.clip(np.round(values / step) * step, found.low, found.high)).mean())


@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_every_value_is_counted_once_inside_the_top(values: list[float]) -> None:
    made = histogram(*[[value] for value in values])
    assert made.counts.sum() + made.zeros == len(values)
    assert made.top >= max(abs(value) for value in values)
    assert made.low == min(0.0, *values, 0.0)
    assert made.high == max(0.0, *values, 0.0)


def test_memory_does_not_grow_with_the_values() -> None:
    made = histogram(normal() * 1e-3, normal() * 1e6)
    assert made.counts.shape == (BINS,)


def test_the_order_of_values_changes_nothing() -> None:
    small, large = normal() * 0.01, normal(seed=1) * 50
    one, other = histogram(small, large), histogram(large, small)
    assert one.top == other.top
    assert np.abs(np.cumsum(one.counts - other.counts)).max() <= 20_000  # small values share a bin or two
    assert best_range(one, "mse", symmetric=True) == best_range(other, "mse", symmetric=True)


def test_joined_is_the_histogram_of_all() -> None:
    small, large = normal() * 0.1, normal(seed=1) * 9
    whole = histogram(small, large)
    parts = joined([histogram(small), histogram(large)])
    assert (parts.top, parts.low, parts.high) == (whole.top, whole.low, whole.high)
    assert np.array_equal(parts.counts, whole.counts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="finite"):
        histogram([1.0, value])


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_ranges_hold_zero_and_stay_within_what_was_seen(search: Search, symmetric: bool) -> None:
    for values in (normal(), np.abs(normal()), normal() + 20, normal() - 20, np.full(50, 3.0)):
        found = best_range(histogram(values), search, symmetric=symmetric)
        assert found.low <= 0 <= found.high
        assert found.high <= max(abs(values.min()), abs(values.max())) + 1e-3
        if symmetric:
            assert found.low == -found.high


@pytest.mark.parametrize("search", SEARCHES)
def test_all_zeros_have_no_range(search: Search) -> None:
    assert best_range(histogram(np.zeros(100)), search, symmetric=True) == Range(0.0, 0.0)


@pytest.mark.parametrize("search", ["percentile", "entropy"])
def test_one_outlier_does_not_take_the_steps_from_the_rest(search: Search) -> None:
    values = np.append(normal(), 40.0)  # mse keeps it: clipping it would cost more than all rounding
    found = best_range(histogram(values), search, symmetric=True)
    assert 2.5 < found.high < 8
    bulk = values[:-1]
    assert error(bulk, found) < 0.1 * error(bulk, Range(-40.0, 40.0))


def test_mse_finds_the_best_range_of_a_plain_search() -> None:
    values = np.append(normal(), [9.0, -12.0])
    found = best_range(histogram(values), "mse", symmetric=True)
    best = min(error(values, Range(-high, high)) for high in np.geomspace(0.5, 12, 300))
    assert error(values, found) <= 1.03 * best


def test_percentile_leaves_one_in_ten_thousand_outside() -> None:
    values = np.random.default_rng(0).normal(size=200_000)
    found = best_range(histogram(values), "percentile", symmetric=True)
    assert float((np.abs(values) > found.high).mean()) == pytest.approx(1e-4, rel=0.5)


@pytest.mark.parametrize("search", ["mse", "entropy"])
def test_zeros_do_not_weigh(search: Search) -> None:
    values = np.abs(normal())
    plain = best_range(histogram(values), search, symmetric=True)
    assert best_range(histogram(values, np.zeros(500_000)), search, symmetric=True) == plain


def test_entropy_does_not_cut_the_few_values_of_a_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, 30_000) / 127.5 - 1
    assert best_range(histogram(picture), "entropy", symmetric=True).high > 0.95


def test_affine_follows_both_ends() -> None:
    found = best_range(histogram(np.abs(normal())), "mse", symmetric=False)
    assert found.low == 0
    assert found.high > 2.5
