"""Maps between picture and network: against OpenCV's resizing, and pixel by pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract, Resize
from edgecv.vision.image import Geometry, fit_image, geometry
from edgecv.vision.maps import (
    NO_CLASS,
    best_class,
    classes_to_picture,
    fit_map,
    plane_to_picture,
    planes_to_picture,
)


def smooth_planes(seed: int, classes: int, size: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(5, 6, classes)).astype(np.float32)
    large = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).reshape(*size, classes)
    return np.ascontiguousarray(large.transpose(2, 0, 1))


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "letterbox-topleft", "crop"])
@pytest.mark.parametrize("size", [(40, 60), (61, 33), (20, 20)])
def test_a_map_goes_where_its_picture_goes(resize: Resize, size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 200, size, dtype=np.uint8)
    contract = InputContract(
        size=(32, 48), color="gray", mean=(0,), std=(1,), resize=resize, pad_value=255, interpolation="nearest"
    )
    assert np.array_equal(fit_map(values, contract, fill=255), fit_image(values, contract))


def test_floats_keep_their_type_and_the_padding_its_value() -> None:
    values = np.full((10, 20), 2.5, np.float32)
    fitted = fit_map(values, InputContract(size=(20, 20), resize="letterbox"), fill=np.nan)
    assert fitted.dtype == np.float32
    assert np.isnan(fitted[:5]).all()
    assert np.isnan(fitted[15:]).all()
    assert (fitted[5:15] == 2.5).all()


def test_of_equal_planes_the_first_is_best() -> None:
    planes = np.array([[[1.0, 0.0, 2.0]], [[1.0, 3.0, 2.5]], [[0.0, 3.0, 2.6]]], np.float32)
    assert best_class(planes).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("picture", [(90, 130), (20, 15), (48, 48)])
def test_the_best_class_is_that_of_the_interpolated_planes(resize: Resize, picture: tuple[int, int]) -> None:
    place = geometry(picture, InputContract(size=(48, 48), resize=resize))
    planes = smooth_planes(3, 7, (12, 16))
    whole = np.stack([plane_to_picture(plane, place) for plane in planes]).argmax(axis=0)
    found = planes_to_picture(planes, place)
    seen = found != NO_CLASS
    assert found.shape == picture
    assert np.array_equal(found[seen], whole[seen])
    assert seen.all() == (resize != "crop")
    assert len(np.unique(found[seen])) > 2


def test_planes_are_interpolated_as_opencv_does() -> None:
    plane = smooth_planes(4, 1, (24, 32))[0]
    place = geometry((75, 101), InputContract(size=(48, 64)))
    expected = cv2.resize(plane, (101, 75), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(plane_to_picture(plane, place), expected, atol=2e-5)


def test_class_maps_are_taken_from_the_nearest_place() -> None:
    grid = np.random.default_rng(5).integers(0, 9, (25, 31), dtype=np.uint8)
    place = geometry((76, 100), InputContract(size=(50, 62)))  # odd to even: no centre lies half way between two places
    expected = cv2.resize(grid, (100, 76), interpolation=cv2.INTER_NEAREST_EXACT)
    assert np.array_equal(classes_to_picture(grid, place), expected)


def test_a_letterbox_is_undone() -> None:
    """A map of the network's input that is class 1 on the picture and 2 on the padding shows no padding."""
    contract = InputContract(size=(64, 64), resize="letterbox")
    grid = fit_map(np.ones((30, 90), np.uint8), contract, fill=2)
    assert (classes_to_picture(grid, geometry((30, 90), contract)) == 1).all()
    planes = (grid[np.newaxis] == np.arange(3)[:, None, None]).astype(np.float32)
    assert (planes_to_picture(planes, geometry((30, 90), contract))[1:-1] == 1).all()


def test_what_a_crop_cut_away_has_no_class() -> None:
    contract = InputContract(size=(32, 32), resize="crop", crop_ratio=1.0)
    place = geometry((32, 64), contract)
    found = classes_to_picture(np.zeros((32, 32), np.uint8), place)
    assert (found[:, 16:48] == 0).all()
    assert (found[:, :16] == NO_CLASS).all()
    assert (found[:, 48:] == NO_CLASS).all()
    values = plane_to_picture(np.ones((32, 32), np.float32), place)
    assert values.sum() == 32 * 32


def test_the_result_is_the_callers_own() -> None:
    grid = np.zeros((4, 4), np.uint8)
    same = Geometry((4, 4), (4, 4), (4, 4), (0, 0))
    classes_to_picture(grid, same)[0, 0] = 7
    plane = np.zeros((4, 4), np.float32)
    plane_to_picture(plane, same)[0, 0] = 7
    assert grid[0, 0] == 0
    assert plane[0, 0] == 0
