"""Pre-processing: against an independent numpy resampler, quantised against float, and its geometry."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.core.contract import InputContract
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.errors import DataError, ModelError
from edgecv.vision.image import (
    fill_input,
    fit_image,
    geometry,
    input_problems,
    input_spec,
    preprocess,
    value_table,
)
from edgecv.vision.preprocessor import Preprocessor

GRAY = InputContract(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,))
RESIZES = ("stretch", "letterbox", "letterbox-topleft", "crop")


def synthetic(height: int, width: int, *, seed: int = 0, channels: int = 3) -> np.ndarray:
    """A picture with slopes, an edge and noise, from integer arithmetic only: the same on every machine."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.int64)
    noise = ((rows * 7919 + columns * 104729 + seed * 31) * 2654435761 % 4294967296) >> 27
    planes = [
        (rows * 255 // height + noise) % 256,
        (columns * 255 // width + 2 * noise) % 256,
        np.where(rows + columns < (height + width) // 2, 40, 210) + noise,
    ]
    picture = np.stack(planes, axis=-1).astype(np.uint8)
    return picture if channels == 3 else np.ascontiguousarray(picture[:, :, 1])


def numpy_resize(image: np.ndarray, height: int, width: int, *, linear: bool) -> np.ndarray:
    """Half-pixel centres, edges repeated: the textbook definition, in float64."""

    def taps(wanted: int, have: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        centre = (np.arange(wanted) + 0.5) * have / wanted - 0.5
        if not linear:
            near = np.clip(np.floor(centre + 0.5), 0, have - 1).astype(int)
            return near, near, np.zeros(wanted)
        low = np.floor(centre)
        share = centre - low
        low_index = np.clip(low, 0, have - 1).astype(int)
        return low_index, np.clip(low + 1, 0, have - 1).astype(int), share

    top, bottom, down = taps(height, image.shape[0])
    left, right, across = taps(width, image.shape[1])
    values = image.astype(np.float64)
    rows = values[top] * (1 - down)[:, None, None] + values[bottom] * down[:, None, None]
    return rows[:, left] * (1 - across)[None, :, None] + rows[:, right] * across[None, :, None]


@pytest.mark.parametrize(("height", "width"), [(31, 47), (64, 64), (120, 90), (17, 201)])
@pytest.mark.parametrize("to", [(64, 64), (33, 50)])
def test_linear_is_the_textbook_filter(height: int, width: int, to: tuple[int, int]) -> None:
    image = synthetic(height, width)
    found = fit_image(image, InputContract(size=to, color="bgr"))
    wanted = numpy_resize(image, *to, linear=True)
    assert (
        np.abs(found - wanted).max() <= 0.51 + 1e-9 if (height, width) == to else np.abs(found - wanted).max() <= 1.01
    )


@pytest.mark.parametrize(("height", "width"), [(31, 47), (120, 90), (17, 201)])
def test_nearest_takes_the_pixel_at_the_centre(height: int, width: int) -> None:
    image = synthetic(height, width)
    contract = InputContract(size=(40, 56), color="bgr", interpolation="nearest")
    found = fit_image(image, contract)
    wanted = numpy_resize(image, 40, 56, linear=False)
    # Exact ties between two pixels may go either way.
    assert (found != wanted).any(axis=-1).mean() <= 0.02


def test_area_averages_what_it_covers() -> None:
    image = synthetic(64, 96)
    found = fit_image(image, InputContract(size=(16, 24), color="bgr", interpolation="area"))
    wanted = image.reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(found - wanted).max() <= 0.51


def test_cubic_keeps_a_constant_and_overshoots_an_edge() -> None:
    flat = np.full((30, 40, 3), 77, dtype=np.uint8)
    contract = InputContract(size=(55, 63), color="bgr", interpolation="cubic")
    assert (fit_image(flat, contract) == 77).all()
    edge = np.full((30, 40, 3), 100, dtype=np.uint8)
    edge[:, 20:] = 150
    assert fit_image(edge, contract).max() > 150


GOLDEN = {
    ("stretch", "linear"): "8c9854a0b33b590ce86618f680939d5f",
    ("letterbox", "linear"): "5711edb5d0b5924a079984b8c39d9c50",
    ("letterbox-topleft", "linear"): "4d0aaaa12511414b86bf633ebbb7e00d",
    ("crop", "linear"): "d621d1a3b62e6a2d8530b4aa4d4fdba2",
    ("stretch", "nearest"): "6e99edc2bc47ae63d0fceda9a1255395",
    ("crop", "nearest"): "9006abd028b69f1432a384107ed7b67c",
}


@pytest.mark.parametrize(("resize", "interpolation"), list(GOLDEN))
def test_golden_frame(resize: str, interpolation: str) -> None:
    """The same bits on every machine: a board that differs here has another pre-processing than the host."""
    contract = InputContract(
        size=(96, 128),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resize=resize,
        interpolation=interpolation,  # type: ignore[arg-type]
    )
    pixels = fit_image(synthetic(211, 307), contract)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:32] == GOLDEN[(resize, interpolation)]


def test_values_follow_the_contract() -> None:
    image = synthetic(20, 20)
    contract = InputContract(size=(20, 20), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0), range=(-1.0, 1.0))
    found = preprocess(image, contract)
    rgb = image[:, :, ::-1].astype(np.float64)
    wanted = ((-1.0 + rgb / 255.0 * 2.0) - np.array(contract.mean)) / np.array(contract.std)
    assert found.shape == (3, 20, 20)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, wanted.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


def test_channel_order_and_layout() -> None:
    image = synthetic(30, 40)
    rgb = preprocess(image, InputContract(size=(16, 16)))
    bgr = preprocess(image, InputContract(size=(16, 16), color="bgr"))
    last = preprocess(image, InputContract(size=(16, 16)), layout="NHWC")
    np.testing.assert_array_equal(rgb[::-1], bgr)
    np.testing.assert_array_equal(last, rgb.transpose(1, 2, 0))


def test_gray_comes_before_resize() -> None:
    image = synthetic(31, 29)
    weights = np.array([0.114, 0.587, 0.299])
    gray = np.rint(image @ weights)[:, :, np.newaxis]
    found = fit_image(image, replace(GRAY, size=(31, 29)))
    assert found.shape == (31, 29)
    assert np.abs(found - gray[:, :, 0]).max() <= 1
    assert preprocess(image, GRAY).shape == (1, 8, 8)
    assert preprocess(image, GRAY, layout="NHWC").shape == (8, 8, 1)


def test_gray_picture_for_a_colour_model_is_repeated() -> None:
    gray = synthetic(20, 30, channels=1)
    found = preprocess(gray, InputContract(size=(16, 16), resize="letterbox"))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    alike = preprocess(np.repeat(gray[:, :, None], 3, axis=2), InputContract(size=(16, 16), resize="letterbox"))
    np.testing.assert_array_equal(found, alike)


def test_letterbox_pads_with_the_value_and_keeps_the_picture_whole() -> None:
    image = np.full((50, 100, 3), 200, dtype=np.uint8)
    both = fit_image(image, InputContract(size=(64, 64), resize="letterbox", pad_value=7))
    assert (both[:16] == 7).all()
    assert (both[16:48] == 200).all()
    assert (both[48:] == 7).all()
    corner = fit_image(image, InputContract(size=(64, 64), resize="letterbox-topleft", pad_value=7))
    assert (corner[:32] == 200).all()
    assert (corner[32:] == 7).all()


@pytest.mark.parametrize("height", [1, 37, 224, 333, 500, 1080])
@pytest.mark.parametrize("width", [1, 41, 224, 375, 640])
@pytest.mark.parametrize(("size", "ratio"), [(224, 0.875), (224, 0.95), (224, 0.9655), (96, 1.0), (299, 0.875)])
def test_crop_sizes_are_those_of_torchvision(height: int, width: int, size: int, ratio: float) -> None:
    """Resize(int) makes the shorter side exact and the longer int(short * long / short); CenterCrop rounds."""
    short = math.floor(size / ratio + 0.01)
    wide = width >= height
    longer = int(short * max(height, width) / min(height, width))
    resized = (short, longer) if wide else (longer, short)
    top, left = round((resized[0] - size) / 2.0), round((resized[1] - size) / 2.0)
    found = geometry((height, width), InputContract(size=(size, size), resize="crop", crop_ratio=ratio))
    assert found.resized == resized
    assert found.offset == (-top, -left)


@pytest.mark.parametrize("ratio", [224 / 232, 0.9655, 0.96552])
def test_crop_ratio_may_be_written_short(ratio: float) -> None:
    """224 / 0.96552 is 231.9993, and 232 is meant."""
    assert geometry((300, 300), InputContract(size=(224, 224), resize="crop", crop_ratio=ratio)).resized == (232, 232)


@pytest.mark.parametrize(
    ("picture", "resized", "offset"),
    [
        ((427, 640), (43, 64), (10, 0)),  # 42.7 rows; 21 rows of padding, the odd one below
        ((640, 427), (64, 43), (0, 10)),
        ((425, 640), (43, 64), (10, 0)),  # 42.5 goes up
        ((423, 640), (42, 64), (11, 0)),
        ((1, 1000), (1, 64), (31, 0)),  # never below one pixel
    ],
)
def test_letterbox_rounding(picture: tuple[int, int], resized: tuple[int, int], offset: tuple[int, int]) -> None:
    found = geometry(picture, InputContract(size=(64, 64), resize="letterbox"))
    assert (found.resized, found.offset) == (resized, offset)
    assert geometry(picture, InputContract(size=(64, 64), resize="letterbox-topleft")).offset == (0, 0)


@pytest.mark.parametrize("resize", RESIZES)
@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    to_height=st.integers(1, 96),
    to_width=st.integers(1, 96),
    ratio=st.floats(0.3, 1.0),
)
def test_any_size_fits(resize: str, height: int, width: int, to_height: int, to_width: int, ratio: float) -> None:
    contract = InputContract(size=(to_height, to_width), resize=resize, crop_ratio=ratio)  # type: ignore[arg-type]
    place = geometry((height, width), contract)
    if max(place.resized) > 20000:  # a picture of one pixel by 400, cropped: nothing to learn, much to compute
        return
    assert fit_image(np.zeros((height, width, 3), dtype=np.uint8), contract).shape == (to_height, to_width, 3)
    if resize.startswith("letterbox"):
        assert place.resized[0] == to_height or place.resized[1] == to_width
        assert place.resized[0] <= to_height
        assert place.resized[1] <= to_width
    points = np.array([[0.0, 0.0], [width / 3, height / 7], [width, height]])
    np.testing.assert_allclose(place.to_picture(place.to_network(points)), points, atol=1e-9)


@pytest.mark.parametrize("resize", RESIZES)
def test_geometry_finds_a_mark_again(resize: str) -> None:
    image = np.zeros((180, 320, 3), dtype=np.uint8)
    image[80:100, 150:190] = 255
    contract = InputContract(size=(96, 96), resize=resize, pad_value=0)
    rows, columns = np.nonzero(fit_image(image, contract)[:, :, 0] > 127)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    place = geometry((180, 320), contract)
    # One network pixel is up to 320 / 96 picture pixels.
    np.testing.assert_allclose(place.boxes_to_picture(box), [150, 80, 190, 100], atol=320 / 96)


def test_boxes_are_cut_at_the_picture() -> None:
    place = geometry((50, 100), InputContract(size=(64, 64), resize="letterbox"))
    boxes = np.array([[-10.0, 0.0, 70.0, 64.0]], dtype=np.float32)
    np.testing.assert_allclose(place.boxes_to_picture(boxes), [[0, 0, 100, 50]])
    assert place.boxes_to_picture(boxes, clip=False)[0, 1] == pytest.approx(-25.0)


SCALES = [1 / 128, 1 / 255, 0.0078125 * 1.0001, 0.018658, 0.003, 0.5, 2.0, 1e-4, 37.0]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("zero_point", [0, -128, 5, 127, 128, 255])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_quantised_buffer_is_the_quantised_float(dtype: str, zero_point: int, layout: str, color: str) -> None:
    """All 256 pixel values in every channel, for many scales."""
    if not np.iinfo(dtype).min <= zero_point <= np.iinfo(dtype).max:
        return
    count = 1 if color == "gray" else 3
    mean, std = ((0.485, 0.456, 0.406)[:count], (0.229, 0.224, 0.225)[:count])
    contract = InputContract(size=(16, 16), color=color, mean=mean, std=std)  # type: ignore[arg-type]
    plane = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = plane if count == 1 else np.stack([plane, plane[::-1], plane.T], axis=-1)
    shape = (1, count, 16, 16) if layout == "NCHW" else (1, 16, 16, count)
    real = preprocess(image, contract, layout=layout)[np.newaxis]  # type: ignore[arg-type]
    for scale in SCALES:
        spec = TensorSpec("x", shape, dtype, layout, Quantization(scale, zero_point))  # type: ignore[arg-type]
        out = np.empty(shape, dtype=dtype)
        Preprocessor(contract, spec).into(image, out)
        np.testing.assert_array_equal(out, spec.quantize(real))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int16", "uint8", "float64"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_other_stored_types(dtype: str, layout: str, color: str) -> None:
    count = 1 if color == "gray" else 3
    contract = InputContract(
        size=(12, 20),
        color=color,
        mean=(0.0,) * count,
        std=(1.0,) * count,
        range=(0.0, 255.0),  # type: ignore[arg-type]
    )
    image = synthetic(33, 41)
    real = preprocess(image, contract, layout=layout)[np.newaxis]  # type: ignore[arg-type]
    spec = TensorSpec("x", real.shape, dtype, layout)  # type: ignore[arg-type]
    out = np.empty(spec.shape, dtype=dtype)
    Preprocessor(contract, spec).into(image, out)
    np.testing.assert_array_equal(out, spec.quantize(real))
    np.testing.assert_array_equal(out.astype(int), np.rint(real).astype(int))  # raw pixels stay what they are


def test_range_minus_one_to_127_128_is_raw_uint8() -> None:
    """The classic quantised input: scale 1/128, zero point 128."""
    contract = InputContract(size=(16, 16), range=(-1.0, 127 / 128))
    spec = TensorSpec("x", (1, 16, 16, 3), "uint8", "NHWC", Quantization(1 / 128, 128))
    np.testing.assert_array_equal(spec.quantize(value_table(contract)[0]), np.arange(256))


def test_picture_is_not_changed_and_may_be_any_view() -> None:
    image = synthetic(60, 80)
    kept = image.copy()
    contract = InputContract(size=(60, 80))
    preprocess(image, contract)[:] = 0
    np.testing.assert_array_equal(image, kept)
    flipped = image[::-1, ::-1]
    np.testing.assert_array_equal(preprocess(flipped, contract), preprocess(np.ascontiguousarray(flipped), contract))
    image.setflags(write=False)
    preprocess(image, contract)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 1), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        np.zeros((4,), dtype=np.uint8),
    ],
)
def test_wrong_pictures_are_named(image: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"allowed are uint8 \(H, W, 3\)"):
        preprocess(image, InputContract(size=(8, 8)))


def test_wrong_buffers_are_named() -> None:
    contract = InputContract(size=(8, 8))
    image = synthetic(8, 8)
    spec = input_spec(contract)
    with pytest.raises(ModelError, match=r"buffer is float64"):
        Preprocessor(contract, spec).into(image, np.empty(spec.shape))
    with pytest.raises(ModelError, match=r"buffer is float32 \(1, 3, 8, 9\)"):
        Preprocessor(contract, spec).into(image, np.empty((1, 3, 8, 9), dtype=np.float32))
    with pytest.raises(ModelError, match="contiguous"):
        Preprocessor(contract, spec).into(image, np.empty((1, 3, 8, 16), dtype=np.float32)[:, :, :, ::2])
    with pytest.raises(ModelError, match=r"needs \(1, 3, 8, 8\)"):
        fill_input(image, contract, TensorSpec("x", (1, 1, 8, 8), "float32", "NCHW"), np.empty((1, 1, 8, 8)))


def test_input_problems() -> None:
    contract = InputContract(size=(8, 10))
    good = TensorSpec("x", (1, 3, 8, 10), "float32", "NCHW")
    assert input_problems(contract, (good,)) == []
    assert input_problems(contract, (TensorSpec("x", (1, 8, 10, 3), "int8", "NHWC"),)) == []
    assert "2 inputs (x, y)" in input_problems(contract, (good, replace(good, name="y")))[0]
    assert "layout OTHER" in input_problems(contract, (replace(good, layout="OTHER"),))[0]
    assert "(1, 3, 10, 8)" in input_problems(contract, (replace(good, shape=(1, 3, 10, 8)),))[0]
