"""Truths with a value for every pixel go through resizing, crops and flips as their pictures do."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.contract import InputContract, Resize
from edgecv.core.protocols import Sample
from edgecv.core.steps import AugmentName
from edgecv.families.segmentation_map import NO_CLASS, MaskTruth
from edgecv.optimize.batches import make_batches

LEVELS = np.array([40, 120, 200], np.uint8)


class Painted:
    """Gray pictures in which the value of each pixel tells its class."""

    skipped: dict[str, str] = {}

    def __init__(self, count: int = 6, size: tuple[int, int] = (24, 36)) -> None:
        random = np.random.default_rng(0)
        coarse = random.integers(0, 3, (count, size[0] // 6, size[1] // 6), dtype=np.uint8)
        self.masks = np.kron(coarse, np.ones((1, 6, 6), np.uint8))
        self.ids = tuple(str(index) for index in range(count))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], LEVELS[self.masks[index]], MaskTruth(self.masks[index]))

    def sha256(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        return "painted"


def contract(resize: Resize, size: tuple[int, int] = (48, 48)) -> InputContract:
    return InputContract(
        size=size, color="gray", mean=(0.0,), std=(1 / 255,), resize=resize, interpolation="nearest", pad_value=7
    )


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("augment", ["none", "crop", "crop-flip"])
def test_every_pixel_keeps_its_class(resize: Resize, augment: AugmentName) -> None:
    batches = make_batches(Painted(), contract(resize), batch_size=3, shuffle_seed=1, augment=augment)
    moved = False
    for epoch in range(3):
        for inputs, truths in batches(epoch):
            assert truths.shape == (3, 48, 48)
            assert truths.dtype == np.uint8
            pixels = np.rint(inputs[:, 0]).astype(int)
            inside = truths != NO_CLASS
            assert np.array_equal(pixels[inside], LEVELS[truths[inside]])
            assert set(np.unique(pixels[~inside])) <= {0, 7}  # moved in from outside, or the letterbox
            moved |= bool((pixels[~inside] == 0).any())
    assert moved == (augment != "none")


def test_flips_and_moves_differ_from_epoch_to_epoch_and_repeat() -> None:
    batches = make_batches(Painted(), contract("stretch"), batch_size=6, shuffle_seed=1, augment="crop-flip")
    first, second = next(batches(0)), next(batches(1))
    assert not np.array_equal(first[1], second[1])
    again = next(batches(0))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_maps_count_for_the_cache() -> None:
    reader = Painted(2, (24, 24))
    small = contract("stretch", (24, 24))
    both = (24 * 24 * 4 + 24 * 24) / 1e6
    kept = make_batches(reader, small, batch_size=2, cache_mb=both * 1.5)
    next(kept(0))
    assert len(kept.cache.items) == 1
    assert kept.cache.used_bytes == pytest.approx(both * 1e6)
