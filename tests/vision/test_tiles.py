"""Tiles: what they cover, that joining undoes cutting, and that seams do not show."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.errors import DataError, ModelError
from edgecv.vision.image import Image
from edgecv.vision.tiles import Joiner, Tiling, cut, grid


def noise(height: int, width: int, *, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def enlarged(tile: Image, scale: int) -> np.ndarray:
    """The answer of a network that repeats every pixel: `(1, 3, s*h, s*w)`."""
    return tile.repeat(scale, axis=0).repeat(scale, axis=1).transpose(2, 0, 1)[None].astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    size=st.tuples(st.integers(8, 48), st.integers(8, 48)),
    overlap=st.integers(0, 7),
    scale=st.integers(1, 3),
)
def test_joining_undoes_cutting(height: int, width: int, size: tuple[int, int], overlap: int, scale: int) -> None:
    image, plan = noise(height, width), grid((height, width), Tiling(size, overlap, scale))
    joiner = Joiner(plan)
    tiles = cut(image, plan)
    assert len(tiles) == len(plan)
    for tile in tiles:
        assert tile.shape == (*size, 3)
        joiner.add(enlarged(tile, scale))
    np.testing.assert_allclose(joiner.whole(), enlarged(image, scale), atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 400), size=st.integers(8, 64), overlap=st.integers(0, 40))
def test_tiles_overlap_enough_and_are_the_fewest(length: int, size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    tops = grid((length, size), Tiling((size, size), overlap)).tops
    assert tops[0] == 0
    assert tops[-1] + size == max(length, size)
    assert all(second + overlap <= first + size for first, second in pairwise(tops))
    assert len(tops) == 1 or (len(tops) - 1) * (size - overlap) < length - overlap


def test_the_edge_of_a_tile_does_not_count() -> None:
    plan = grid((64, 112), Tiling((64, 64), 16))
    joiner = Joiner(plan)
    for _ in range(2):
        answer = np.full((1, 1, 64, 64), 5.0, np.float32)
        answer[..., :4] = answer[..., -4:] = 1000.0  # what a network says at the padding of its input
        joiner.add(answer)
    inside = joiner.whole()[0, 0, :, 4:-4]
    np.testing.assert_allclose(inside, 5.0, atol=1e-4)


def test_a_filter_that_sees_little_leaves_no_seam() -> None:
    image = cv2.GaussianBlur(noise(100, 150), (0, 0), 3)
    plan = grid((100, 150), Tiling((48, 48), 16))
    joiner = Joiner(plan)
    for tile in cut(image, plan):
        blurred = cv2.blur(tile.astype(np.float32), (7, 7), borderType=cv2.BORDER_CONSTANT)
        joiner.add(blurred.transpose(2, 0, 1)[None])
    whole = cv2.blur(image.astype(np.float32), (7, 7), borderType=cv2.BORDER_CONSTANT).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(joiner.whole(), whole, atol=1e-3)


def test_channels_last_answers_come_back_as_they_are() -> None:
    image, plan = noise(40, 70), grid((40, 70), Tiling((32, 32), 8))
    joiner = Joiner(plan)
    for tile in cut(image, plan):
        joiner.add(tile[None].astype(np.float32))
    np.testing.assert_allclose(joiner.whole(), image[None], atol=1e-3)


def test_a_small_picture_is_padded_by_reflection() -> None:
    image = noise(5, 3)
    tile = cut(image, grid((5, 3), Tiling((16, 16), 4)))[0]
    assert (tile[:5, :3] == image).all()
    assert (tile[5, :3] == image[4]).all()
    assert (tile[:5, 3] == image[:, 2]).all()


def test_a_reference_is_cut_at_the_same_places() -> None:
    image, plan = noise(70, 90), grid((70, 90), Tiling((32, 32), 8, 2))
    reference = image.repeat(2, axis=0).repeat(2, axis=1)
    for tile, part in zip(cut(image, plan), cut(reference, plan, times=2), strict=True):
        assert (part == tile.repeat(2, axis=0).repeat(2, axis=1)).all()


def test_tilings_that_cannot_work_are_named() -> None:
    assert "overlap is 32" in Tiling((32, 64), 32).problems()[0]
    assert "scale is 0" in Tiling((32, 32), 0, 0).problems()[0]
    with pytest.raises(ModelError, match="overlap is 40"):
        grid((100, 100), Tiling((32, 32), 40))


def test_answers_of_another_size_and_missing_ones_are_named() -> None:
    joiner = Joiner(grid((40, 40), Tiling((32, 32), 8, 2)))
    with pytest.raises(ModelError, match=r"scale 2 its height and width must be \(64, 64\)"):
        joiner.add(np.zeros((1, 3, 32, 32), np.float32))
    joiner.add(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(ModelError, match="1 of 4 tiles"):
        joiner.whole()


def test_only_pictures_are_cut() -> None:
    with pytest.raises(DataError, match="float32"):
        cut(np.zeros((40, 40, 3), np.float32), grid((40, 40), Tiling((32, 32))))  # type: ignore[arg-type]
