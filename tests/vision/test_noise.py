"""The noise of a sensor: as strong as it is said to be, where it is said to be."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.vision.noise import add_noise


def flat(value: int) -> np.ndarray:
    return np.full((200, 300, 3), value, np.uint8)


def draws() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("sigma", [0.0, 5.0, 25.0])
def test_gaussian_noise_has_its_deviation_and_no_bias(sigma: float) -> None:
    change = add_noise(flat(128), sigma=sigma, shot=0.0, draws=draws()).astype(float) - 128
    assert change.std() == pytest.approx(sigma, rel=0.02, abs=1e-9)
    assert abs(change.mean()) < 0.3
    # Each value of a pixel has noise of its own.
    assert sigma == 0 or abs(np.corrcoef(change[..., 0].ravel(), change[..., 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("value", [30, 60, 120])
def test_the_noise_of_light_grows_with_the_light(value: int) -> None:
    change = add_noise(flat(value), sigma=3.0, shot=0.5, draws=draws()).astype(float) - value
    assert change.var() == pytest.approx(3.0**2 + 0.5 * value, rel=0.03)


def test_black_stays_black_without_reading_noise() -> None:
    assert not add_noise(flat(0), sigma=0.0, shot=2.0, draws=draws()).any()


def test_what_does_not_fit_is_cut() -> None:
    noisy = add_noise(flat(255), sigma=40.0, shot=0.0, draws=draws())
    assert noisy.dtype == np.uint8
    assert 0.4 < (noisy == 255).mean() < 0.6


@pytest.mark.parametrize(("sigma", "shot"), [(-1.0, 0.0), (0.0, -1.0), (float("nan"), 0.0)])
def test_negative_noise_is_refused(sigma: float, shot: float) -> None:
    with pytest.raises(ValueError, match=r"sigma is .* and shot .*; both must be 0 or more"):
        add_noise(flat(1), sigma=sigma, shot=shot, draws=draws())
