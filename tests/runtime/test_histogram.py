"""Percentiles from buckets are those of all values, within half a per cent."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.measure.latency import percentiles
from edgecv.runtime.histogram import Histogram


@pytest.mark.parametrize("scale", [0.01, 3.0, 4000.0])
def test_against_all_values(scale: float) -> None:
    values = np.random.default_rng(0).gamma(3.0, scale, 5000)
    histogram = Histogram()
    for value in values:
        histogram.add(float(value))
    found, exact = histogram.percentiles(), percentiles(values / 1000.0)
    assert found is not None
    for name in ("p50_ms", "p90_ms", "p95_ms", "p99_ms"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=0.012), name
    assert found.max_ms == pytest.approx(exact.max_ms)
    assert found.mean_ms == pytest.approx(exact.mean_ms)
    assert found.jitter_ms == pytest.approx(exact.jitter_ms, rel=1e-6)
    assert found.samples == 5000


def test_a_small_sample_has_no_tail() -> None:
    histogram = Histogram()
    assert histogram.percentiles() is None
    assert histogram.status("infer") is None
    for value in range(150):
        histogram.add(float(value))
    found, status = histogram.percentiles(), histogram.status("infer")
    assert found is not None
    assert status is not None
    assert found.p90_ms is not None
    assert found.p95_ms is None
    assert found.p99_ms is None
    assert status.p95_ms is None
    assert status.max_ms == 149


def test_zero_and_huge_values_are_counted() -> None:
    histogram = Histogram()
    histogram.add(0.0)
    histogram.add(1e12)
    found = histogram.percentiles()
    assert found is not None
    assert found.samples == 2
    assert found.max_ms == 1e12


def test_live_view_shows_the_last_times_only() -> None:
    histogram = Histogram()
    for _ in range(1000):
        histogram.add(100.0)
    for _ in range(240):
        histogram.add(1.0)
    status = histogram.status("infer")
    assert status is not None
    assert (status.p50_ms, status.p95_ms, status.max_ms) == (1.0, 1.0, 1.0)
