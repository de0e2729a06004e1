"""Times that never go back."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.runtime.steady import SteadyTime


def test_a_good_clock_is_taken_as_it_is() -> None:
    time = SteadyTime()
    assert [time.take(raw, resume_s=99.0, latest_s=50.0) for raw in (1.0, 2.5, 2.5, 7.0)] == [
        (1.0, False),
        (2.5, False),
        (2.5, False),
        (7.0, False),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_clock_does_time_does_not_go_back(seed: int) -> None:
    draws, time = np.random.default_rng(seed), SteadyTime()
    raws = np.cumsum(draws.normal(0.01, 1.0, 500))
    times = [time.take(float(raw), resume_s=time.after(0.1))[0] for raw in raws]
    assert np.all(np.diff(times) >= 0)


def test_after_a_step_distances_are_kept() -> None:
    time = SteadyTime()
    time.take(100.0, resume_s=0.0)
    assert time.take(5.0, resume_s=101.0) == (101.0, True)
    assert time.take(5.5, resume_s=999.0) == (101.5, False)


def test_what_is_too_far_ahead_is_a_step() -> None:
    time = SteadyTime()
    assert time.take(500.0, resume_s=10.0, latest_s=11.0) == (10.0, True)
    assert time.take(500.5, resume_s=10.4, latest_s=11.0) == (10.5, False)


def test_it_never_resumes_before_the_last_time() -> None:
    time = SteadyTime()
    time.take(10.0, resume_s=0.0)
    assert time.take(3.0, resume_s=4.0) == (10.0, True)


def test_a_restart_forgets_the_shift() -> None:
    time = SteadyTime()
    time.take(10.0, resume_s=0.0)
    time.take(3.0, resume_s=11.0)
    time.restart()
    assert time.take(12.0, resume_s=99.0) == (12.0, False)
