"""Picture to network input, exactly as the `InputContract` says, and the map back.

A network input is always a function of 256 pixel values per channel once the picture has its size,
so both float and quantised inputs are written by one table look-up: a quantised buffer is
bit-identical to quantising the float one, and no float picture is ever made on the device.
Nearest and linear resampling give the same bits on every processor: the accuracy that was proven on
the host is that of the board.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.tensor import Array, FloatArray, Layout, TensorSpec
from edgecv.errors import DataError, ModelError

Image = npt.NDArray[np.uint8]

_LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC")
_VECTOR_LAYOUTS: tuple[Layout, ...] = ("NC",)
_CLIP_LAYOUTS: tuple[Layout, ...] = (*_LAYOUTS, "NTCHW", "NCTHW", "NTHWC")

# The plain INTER_LINEAR and INTER_NEAREST differ between processors (vendor libraries take over) and
# INTER_NEAREST does not sample at pixel centres.
FILTERS = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "linear": cv2.INTER_LINEAR_EXACT,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


@dataclass(frozen=True)
class Geometry:
    """Where a picture lies in the network input. Sizes are (height, width) in pixels.

    ``picture`` is scaled to ``resized``, whose top left corner comes to ``offset`` (top, left) of the
    input of ``size``: positive where it is padded, negative where it is cut. Coordinates are
    continuous: pixel i covers [i, i + 1).
    """

    picture: tuple[int, int]
    size: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels per picture pixel, (x, y)."""
        return self.resized[1] / self.picture[1], self.resized[0] / self.picture[0]

    def to_picture(self, points: Array) -> npt.NDArray[np.float64]:
        """Points `(..., 2)` as x, y in the network input -> x, y in the picture; not clipped."""
        shift = np.array([self.offset[1], self.offset[0]], dtype=np.float64)
        moved: npt.NDArray[np.float64] = (np.asarray(points, dtype=np.float64) - shift) / np.array(self.scale)
        return moved

    def to_network(self, points: Array) -> npt.NDArray[np.float64]:
        """Points `(..., 2)` as x, y in the picture -> x, y in the network input."""
        shift = np.array([self.offset[1], self.offset[0]], dtype=np.float64)
        moved: npt.NDArray[np.float64] = np.asarray(points, dtype=np.float64) * np.array(self.scale) + shift
        return moved

    def boxes_to_picture(self, boxes: Array, *, clip: bool = True) -> npt.NDArray[np.float64]:
        """Boxes `(..., 4)` as x1, y1, x2, y2 in the network input -> in the picture, cut at its edges."""
        corners = np.asarray(boxes, dtype=np.float64)
        moved = self.to_picture(corners.reshape(*corners.shape[:-1], 2, 2)).reshape(corners.shape)
        if clip:
            height, width = self.picture
            np.clip(moved, 0.0, np.array([width, height, width, height], dtype=np.float64), out=moved)
        return moved


@lru_cache(maxsize=256)
def geometry(picture: tuple[int, int], contract: InputContract) -> Geometry:
    """How a picture of (height, width) is brought to ``contract.size``.

    Letterbox: the largest scale at which the whole picture fits, the other side rounded half up,
    the odd pixel of padding on the right or bottom. Crop: the smallest scale at which the picture
    covers ``floor(size / crop_ratio + 0.01)``, the longer side rounded down, the cut placed at
    ``round((resized - size) / 2)`` half to even: for square sizes what torchvision's Resize and CenterCrop do (the
    0.01 takes up ratios that were written with four digits).
    """
    height, width = picture
    to_height, to_width = contract.size
    if contract.resize == "stretch":
        return Geometry(picture, contract.size, contract.size, (0, 0))
    if contract.resize == "crop":
        short_height, short_width = (int(length / contract.crop_ratio + 0.01) for length in contract.size)
        if short_height * width >= short_width * height:
            resized = (short_height, width * short_height // height)
        else:
            resized = (height * short_width // width, short_width)
        top, left = (round((have - want) / 2) for have, want in zip(resized, contract.size, strict=True))
        return Geometry(picture, contract.size, resized, (-top, -left))
    if to_height * width <= to_width * height:
        resized = (to_height, max(1, (2 * width * to_height + height) // (2 * height)))
    else:
        resized = (max(1, (2 * height * to_width + width) // (2 * width)), to_width)
    if contract.resize == "letterbox-topleft":
        return Geometry(picture, contract.size, resized, (0, 0))
    return Geometry(picture, contract.size, resized, ((to_height - resized[0]) // 2, (to_width - resized[1]) // 2))


def fit_image(image: Image, contract: InputContract) -> Image:
    """Colour and size: uint8 `(H, W, 3)` BGR or `(H, W)` gray -> uint8 `(h, w, 3)` or, for gray, `(h, w)`.

    The channels of the result stand in the order of ``contract.color``. Where nothing has to change the
    result is ``image`` itself: do not write to it.

    Raises:
        DataError: the picture is of another type or shape, or empty.
    """
    check_image(image)
    picture = np.ascontiguousarray(image)
    if contract.color == "gray" and picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    place = geometry((picture.shape[0], picture.shape[1]), contract)
    if place.resized != place.picture:
        picture = cv2.resize(picture, place.resized[::-1], interpolation=FILTERS[contract.interpolation])
    picture = _place(picture, place, contract.pad_value)
    # Resampling treats the channels alike, so their order is put right on the (mostly smaller) result.
    if contract.color != "gray" and picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    elif contract.color == "rgb":
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(picture, dtype=np.uint8)


def fill_input(pixels: Image, contract: InputContract, spec: TensorSpec, out: Array) -> None:
    """Write the pixels of `fit_image` into ``out``, the batch-1 input buffer of an engine.

    ``out`` has the shape and type of ``spec``, `(1, C, h, w)` or `(1, h, w, C)` by its layout, and is
    C-contiguous. Each stored value equals ``spec.quantize`` of the value that the contract gives.

    Raises:
        ModelError: ``spec`` or ``out`` does not fit the contract.
    """
    check_buffer(contract, spec, out)
    tables = stored_tables(contract, spec)
    if spec.layout == "NCHW":
        planes = (pixels,) if pixels.ndim == 2 else cv2.split(pixels)
        for plane, table, target in zip(planes, tables, out[0], strict=True):
            look_up(plane, table, target)
    elif contract.channels == 1:
        look_up(pixels, tables[0], out.reshape(contract.size))
    elif out.dtype.itemsize == 1 or out.dtype == np.float32:
        look_up(pixels, np.ascontiguousarray(tables.T)[np.newaxis], out[0])
    else:
        for channel, table in enumerate(tables):
            out[0, :, :, channel] = table[pixels[:, :, channel]]


def preprocess(image: Image, contract: InputContract, *, layout: Literal["NCHW", "NHWC"] = "NCHW") -> FloatArray:
    """Picture -> float32 network input `(C, h, w)`, or `(h, w, C)` for ``layout="NHWC"``, without batch axis.

    ``image`` is uint8, `(H, W, 3)` BGR or `(H, W)` gray. See `InputContract` for the order of the steps. Where the
    contract asks for clips it is one, `(T, H, W, 3)`, and the frames' channels follow each other: `(T * C, h, w)`.

    Raises:
        DataError: the picture is of another type or shape, or empty.
    """
    if contract.clip is not None:
        return _preprocess_clip(image, contract, layout)
    spec = input_spec(contract, layout=layout)
    out = np.empty(spec.shape, dtype=np.float32)
    fill_input(fit_image(image, contract), contract, spec, out)
    result: FloatArray = out[0]
    return result


def _preprocess_clip(image: Image, contract: InputContract, layout: Literal["NCHW", "NHWC"]) -> FloatArray:
    from edgecv.vision.clips import check_clip

    assert contract.clip is not None
    check_clip(image, contract.clip)
    frames = [preprocess(frame, contract.still, layout=layout) for frame in image]
    return np.concatenate(frames, axis=0 if layout == "NCHW" else 2)


def input_spec(contract: InputContract, *, layout: Layout = "NCHW") -> TensorSpec:
    """The float32 network input, batch 1, that the contract describes."""
    return TensorSpec("input", input_shape(contract, layout), "float32", layout)


def input_problems(contract: InputContract, inputs: tuple[TensorSpec, ...]) -> list[str]:
    """Why an engine's inputs do not fit the contract, in words; empty when they do.

    Of a network that streams the first is the frame, and the state is not looked at (`edgecv.core.state`).
    """
    if contract.streams:
        return input_problems(contract.once, inputs[:1])
    if len(inputs) != 1:
        return [
            f"the model has {len(inputs)} inputs ({', '.join(spec.name for spec in inputs)}); exactly one is allowed"
        ]
    spec = inputs[0]
    allowed = _VECTOR_LAYOUTS if contract.vector else _LAYOUTS if contract.clip is None else _CLIP_LAYOUTS
    if spec.layout not in allowed:
        return [f"input {spec.name!r} has layout {spec.layout}; allowed are {', '.join(allowed)}"]
    wanted = input_shape(contract, spec.layout)
    if spec.shape != wanted:
        clip = "" if contract.clip is None else f", clip of {contract.clip.frames} frames"
        asked = f"size {list(contract.size)}, color {contract.color}{clip}"
        asked = f"a row of {contract.size[1]} numbers" if contract.vector else asked
        return [
            f"input {spec.name!r} has shape {spec.shape} ({spec.layout}); the input contract ({asked}) needs {wanted}"
        ]
    return []


def value_table(contract: InputContract) -> FloatArray:
    """What each of the 256 pixel values becomes, `(C, 256)` float32, channels in the order of ``contract.color``."""
    low, high = contract.range
    pixels = low + np.arange(256, dtype=np.float64) / 255.0 * (high - low)
    mean = np.array(contract.mean, dtype=np.float64)[:, np.newaxis]
    std = np.array(contract.std, dtype=np.float64)[:, np.newaxis]
    return ((pixels - mean) / std).astype(np.float32)


@lru_cache(maxsize=64)
def stored_tables(contract: InputContract, spec: TensorSpec) -> Array:
    """`value_table` in the stored type of ``spec``, `(C, 256)`; not to be written to."""
    tables = spec.quantize(value_table(contract))
    tables.setflags(write=False)  # shared by all callers
    return tables


def look_up(pixels: Image, table: Array, out: Array) -> None:
    """``out = table[pixels]``. cv2.LUT is the fastest way but knows neither int8 nor float16 everywhere."""
    if out.dtype.itemsize == 1:
        cv2.LUT(pixels, table.view(np.uint8), out.view(np.uint8))
    elif out.dtype == np.float32:
        cv2.LUT(pixels, table, out)
    else:
        np.take(table, pixels, out=out, mode="clip")


def _place(picture: Image, place: Geometry, pad_value: int) -> Image:
    """Pad or cut the resized picture to the network's size."""
    height, width = place.size
    top, left = place.offset
    if (top, left) == (0, 0) and place.resized == place.size:
        return picture
    if place.resized[0] >= height and place.resized[1] >= width:
        return picture[-top : height - top, -left : width - left]
    bottom, right = height - place.resized[0] - top, width - place.resized[1] - left
    border: Any = (pad_value,) * 3
    padded: Image = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=border)
    return padded


def input_shape(contract: InputContract, layout: Layout) -> tuple[int, ...]:
    """The shape of the network's input, batch 1, in a ``layout`` of pictures, of clips or (NC) of rows of numbers."""
    (height, width), channels = contract.size, contract.channels
    frames = 1 if contract.clip is None else contract.clip.frames
    shapes: dict[Layout, tuple[int, ...]] = {
        "NCHW": (1, contract.planes, height, width),
        "NHWC": (1, height, width, contract.planes),
        "NTCHW": (1, frames, channels, height, width),
        "NCTHW": (1, channels, frames, height, width),
        "NTHWC": (1, frames, height, width, channels),
        "NC": (1, width),
    }
    return shapes[layout]


def check_image(image: Image) -> None:
    """Raise `DataError` for anything but a picture as `fit_image` takes it."""
    fits = image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
    if not fits or image.size == 0:
        raise DataError(
            f"the picture is {image.dtype} {image.shape}; allowed are uint8 (H, W, 3) in BGR order and (H, W) gray, "
            "not empty. Convert it first (an alpha channel has to go)."
        )


def check_buffer(contract: InputContract, spec: TensorSpec, out: Array) -> None:
    """Raise `ModelError` where ``spec`` does not fit the contract, or ``out`` not ``spec``."""
    found = input_problems(contract, (spec,))
    if found:
        raise ModelError(found[0])
    if out.shape != spec.shape or out.dtype != np.dtype(spec.dtype) or not out.flags.c_contiguous:
        raise ModelError(
            f"the input buffer is {out.dtype} {out.shape}; "
            f"input {spec.name!r} needs a contiguous {spec.dtype} {spec.shape}"
        )
