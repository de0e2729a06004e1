"""Features of pictures: shapes, values that can be worked out by hand, and what they tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Sample
from edgecv.core.tensor import Array
from edgecv.data.digits import open_digits
from edgecv.data.features import Features, features_of

from .conftest import picture
from .memory_reader import MemoryReader


def features(*images: Array, contract: InputContract) -> Features:
    return features_of(MemoryReader(images), range(len(images)), contract)


def test_shapes(contract: InputContract, gray: InputContract) -> None:
    for settings, channels in ((contract, 3), (gray, 1)):
        found = features(picture(0), picture(1)[:, :, 0], contract=settings)
        assert found.grid.shape == (2, 64 * channels)
        assert found.level.shape == found.contrast.shape == found.sharpness.shape == (2, channels)
        assert found.saturated.shape == (2,)
        assert found.vectors.shape == (2, 66 * channels)
        assert found.regions.shape == (2, 16 * channels)
        assert found.vectors.dtype == np.float32


def test_values_of_simple_pictures(gray: InputContract) -> None:
    halves = np.zeros((32, 32), np.uint8)
    halves[:, 16:] = 255
    flat = np.full((32, 32), 51, np.uint8)
    stripes = np.zeros((32, 32), np.uint8)
    stripes[:, ::2] = 255
    found = features(halves, flat, stripes, contract=gray)
    assert found.level[:, 0] == pytest.approx([0.5, 0.2, 0.5])
    assert found.contrast[:, 0] == pytest.approx([0.5, 0.0, 0.5], abs=1e-6)
    assert found.sharpness[:, 0] == pytest.approx([1 / 31, 0.0, 1.0], abs=1e-6)
    assert found.saturated == pytest.approx([1.0, 0.0, 1.0])
    assert found.regions[0] == pytest.approx([0.0, 0.0, 1.0, 1.0] * 4)
    assert found.grid[2] == pytest.approx([0.5] * 64)


def test_channels_stand_in_the_order_of_the_contract() -> None:
    blue = np.zeros((8, 8, 3), np.uint8)
    blue[:, :, 0] = 255
    rgb = features(blue, contract=InputContract(size=(8, 8)))
    assert rgb.level[0].tolist() == [0.0, 0.0, 1.0]


def test_one_pixel_input_has_no_neighbours() -> None:
    found = features(picture(0), contract=InputContract(size=(1, 1)))
    assert found.sharpness[0].tolist() == [0.0, 0.0, 0.0]


def test_patterns_see_through_brightness_and_contrast(contract: InputContract) -> None:
    image = picture(3, height=64, width=64)
    dimmed = (image * 0.6 + 30).astype(np.uint8)
    flat = np.full_like(image, 90)
    patterns = features(image, dimmed, picture(4, height=64, width=64), flat, contract=contract).patterns
    alike = patterns @ patterns.T
    assert alike[0, 1] > 0.999
    assert alike[0, 2] < 0.6
    assert np.diag(alike)[:3] == pytest.approx(1.0, abs=1e-5)
    assert not patterns[3].any()


def test_pictures_are_read_one_by_one(gray: InputContract, digit_labels: Sequence[str]) -> None:
    class Counting:
        """Only what features need, and how often it was asked."""

        def __init__(self) -> None:
            self.reader = open_digits(split="test", labels=digit_labels, limit=None)
            self.asked: list[int] = []

        def __getitem__(self, index: int) -> Sample:
            self.asked.append(index)
            return self.reader[index]

    reader = Counting()
    features_of(reader, [5, 3, 9], gray)  # type: ignore[arg-type]
    assert reader.asked == [5, 3, 9]
