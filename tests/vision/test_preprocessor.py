"""The camera's pre-processing against the plain one of calibration: the same bits, with no new array per frame."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.core.contract import InputContract
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.errors import DataError, ModelError
from edgecv.vision import preprocessor
from edgecv.vision.image import fill_input, fit_image, geometry
from edgecv.vision.preprocessor import Preprocessor
from tests.vision.test_image import synthetic

STORED = {
    "float32": None,
    "float16": None,
    "int8": Quantization(1 / 255, -128),
    "uint8": Quantization(0.0173, 114),
}
NUMBERS = {
    "plain": {},
    "imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "raw": {"range": (0.0, 255.0)},
    "signed": {"range": (-1.0, 1.0)},
}


def spec_of(contract: InputContract, layout: str, dtype: str) -> TensorSpec:
    (height, width), count = contract.size, contract.channels
    shape = (1, count, height, width) if layout == "NCHW" else (1, height, width, count)
    return TensorSpec("x", shape, dtype, layout, STORED[dtype])  # type: ignore[arg-type]


def plain(image: np.ndarray, contract: InputContract, spec: TensorSpec) -> np.ndarray:
    out = np.empty(spec.shape, spec.dtype)
    fill_input(fit_image(image, contract), contract, spec, out)
    return out


@settings(max_examples=300, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 150), st.booleans()), min_size=1, max_size=4),
    to=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    resize=st.sampled_from(["stretch", "letterbox", "letterbox-topleft", "crop"]),
    interpolation=st.sampled_from(["linear", "nearest", "area"]),
    color=st.sampled_from(["rgb", "bgr", "gray"]),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    dtype=st.sampled_from(list(STORED)),
    numbers=st.sampled_from(list(NUMBERS)),
    crop_ratio=st.floats(0.5, 1.0),
)
def test_the_bits_of_calibration(  # type: ignore[no-untyped-def]
    sizes, to, resize, interpolation, color, layout, dtype, numbers, crop_ratio
) -> None:
    """Any picture, any contract, a camera that changes its size and comes back to it, two buffers in turn."""
    values = {
        name: value[:1] if color == "gray" and name != "range" else value for name, value in NUMBERS[numbers].items()
    }
    if color == "gray":
        values = {"mean": (0.0,), "std": (1.0,), **values}
    contract = InputContract(
        size=to, color=color, resize=resize, interpolation=interpolation, crop_ratio=crop_ratio, **values
    )
    spec = spec_of(contract, layout, dtype)
    fill, buffers = Preprocessor(contract, spec), [np.zeros(spec.shape, spec.dtype) for _ in range(2)]
    for turn, (height, width, gray) in enumerate([*sizes, *sizes]):
        if max(geometry((height, width), contract).resized) > 5000:
            continue
        image = synthetic(height, width, seed=turn, channels=1 if gray else 3)
        kept = image.copy()
        place = fill.into(image, buffers[turn % 2])
        np.testing.assert_array_equal(buffers[turn % 2], plain(image, contract, spec))
        np.testing.assert_array_equal(image, kept)
        assert place == geometry((height, width), contract)


@pytest.mark.parametrize("picture", [(720, 1280), (1080, 1920), (480, 640), (1440, 2560), (2160, 3840), (360, 480)])
@pytest.mark.parametrize("size", [(160, 160), (320, 320), (416, 416), (640, 640), (180, 320), (256, 192)])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_cameras_sizes(picture: tuple[int, int], size: tuple[int, int], resize: str) -> None:
    """The scales of real cameras, many of them whole numbers: the quicker filters give the exact one's bits."""
    contract = InputContract(size=size, resize=resize)  # type: ignore[arg-type]
    spec = spec_of(contract, "NCHW", "float32")
    image = np.random.default_rng(3).integers(0, 256, (*picture, 3), dtype=np.uint8)
    image[:, ::3] = (image[:, ::3] > 127) * np.uint8(255)
    out = np.zeros(spec.shape, spec.dtype)
    Preprocessor(contract, spec).into(image, out)
    np.testing.assert_array_equal(out, plain(image, contract, spec))


def test_a_quicker_filter_is_taken_only_where_it_has_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = preprocessor._filter.__wrapped__
    assert choose((720, 1280), (240, 427), "linear") == cv2.INTER_LINEAR_EXACT, "no whole number"
    assert choose((720, 1280), (180, 320), "area") == cv2.INTER_AREA
    assert choose((1080, 1920), (360, 640), "linear") == cv2.INTER_NEAREST_EXACT, "the middle pixel of three"
    plain_resize = cv2.resize

    def vendor(image: np.ndarray, size: tuple[int, int], *, interpolation: int) -> np.ndarray:
        """A processor whose quick filters round otherwise."""
        found = plain_resize(image, size, interpolation=interpolation)
        return found if interpolation == cv2.INTER_LINEAR_EXACT else found ^ 1

    monkeypatch.setattr(cv2, "resize", vendor)
    assert choose((1080, 1920), (360, 640), "linear") == cv2.INTER_LINEAR_EXACT
    assert choose((720, 1280), (180, 320), "linear") == cv2.INTER_LINEAR_EXACT


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("size", [(320, 320), (256, 400)])
def test_nothing_is_allocated_per_frame(layout: str, dtype: str, size: tuple[int, int]) -> None:
    contract = InputContract(size=size, resize="letterbox")
    spec = spec_of(contract, layout, dtype)
    fill, out = Preprocessor(contract, spec), np.zeros(spec.shape, spec.dtype)
    frames = [synthetic(480, 640, seed=seed) for seed in range(3)]
    for frame in frames:
        fill.into(frame, out)
    tracemalloc.start()
    try:
        for frame in frames * 3:
            fill.into(frame, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000, f"{peak} bytes, where the smallest picture in between has 230,400"


def test_wrong_pictures_and_buffers() -> None:
    contract = InputContract(size=(8, 16))
    spec = spec_of(contract, "NCHW", "float32")
    fill, out = Preprocessor(contract, spec), np.zeros(spec.shape, np.float32)
    fill.into(synthetic(20, 20), out)
    with pytest.raises(DataError, match="float64"):
        fill.into(np.zeros((20, 20, 3)), out)
    with pytest.raises(DataError, match="not empty"):
        fill.into(np.zeros((0, 20, 3), np.uint8), out)
    with pytest.raises(ModelError, match="input buffer"):
        fill.into(synthetic(20, 20), np.zeros((1, 3, 16, 8), np.float32))
    with pytest.raises(ModelError, match="has shape"):
        Preprocessor(InputContract(size=(9, 16)), spec).into(synthetic(20, 20), out)


def test_many_sizes_and_buffers_are_not_kept_for_ever() -> None:
    contract = InputContract(size=(24, 24), resize="letterbox")
    spec = spec_of(contract, "NCHW", "float32")
    fill = Preprocessor(contract, spec)
    for height in range(10, 60):
        out = np.zeros(spec.shape, np.float32)
        image = synthetic(height, 40)
        fill.into(image, out)
        np.testing.assert_array_equal(out, plain(image, contract, spec))
    assert max(len(fill._plans), len(fill._ready)) <= 8
