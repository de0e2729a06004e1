"""Pictures of a camera -> a network's input buffer, without a new array per frame.

The result is bit for bit that of `edgecv.vision.image.fit_image` and `fill_input`, with which calibration and training
read their pictures; here the same numbers are reached with less work:

* scratch pictures and the padding of the buffer are made once per camera size;
* for whole-numbered scales a quicker filter of OpenCV has the same bits as the exact one. That is not taken on trust:
  each processor shows it on a picture of noise before the quicker filter is used there;
* where the look-up table only flips bits (int8 that is the pixel less 128) or only divides (pixel / 255), a vector
  instruction takes its place, if it gives the table's own 256 values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.tensor import Array, TensorSpec
from edgecv.vision.clips import check_clip, frame_spec, frame_views
from edgecv.vision.image import (
    FILTERS,
    Geometry,
    Image,
    check_buffer,
    check_image,
    geometry,
    look_up,
    stored_tables,
)
from edgecv.vision.vectors import fill_vector

_REMEMBERED = 8
_NOISE_SEED = 20

_Shortcut = tuple[Literal["flip", "divide"], Any]
"""The bits to flip, or the number to divide by."""


@dataclass(frozen=True)
class _Plan:
    """What is done with pictures of one size: where they go, and the scratch that it takes.

    ``order`` are the ``planes`` as the channels of a picture (BGR) go to them.
    """

    place: Geometry
    filter: int
    gray: Image | None
    small: Image | None
    swapped: Image | None
    planes: Image | None
    order: tuple[Image, ...]
    cut: tuple[slice, slice]
    region: tuple[slice, slice]


_Buffer = tuple[Array, _Plan, Array]
"""An input buffer, the plan that its padding was written for, and the part that pictures go to."""


Fitted = tuple[Array, "_Plan | None"]
"""A picture in the network's size and number of channels, BGR, padding left out; and what is done with it next. A row
of numbers stays as it is, without a plan."""


class Preprocessor:
    """Pictures of one camera -> the input buffers of one model.

    Keeps scratch arrays, so it serves one thread at a time. A buffer's padding is written when the buffer or the
    picture's size is new: nothing else may write to a buffer that is filled here.
    """

    def __init__(self, contract: InputContract, spec: TensorSpec) -> None:
        self._contract, self._spec = contract, spec
        self._tables: Array | None = None
        self._shortcut: _Shortcut | None = None
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self._ready: dict[int, _Buffer] = {}
        self._frames: tuple[Preprocessor, Array] | None = None

    def into(self, image: Image, out: Array) -> Geometry:
        """Fill ``out``, C-contiguous with the model's input shape, batch 1; where the picture lies in it.

        ``image`` is uint8 `(H, W, 3)` BGR or `(H, W)` gray, of any size, and is not changed; where the contract asks
        for clips, a clip `(T, H, W, 3)`, and where it asks for a row of numbers, floats `(D,)`.

        Raises:
            DataError: the picture is of another type or shape, or empty.
            ModelError: ``out`` does not fit the model's input, or the input not the contract.
        """
        if self._contract.clip is not None:
            return self._clip_into(image, out)
        return self.fill(self.fit(image), out)

    def _clip_into(self, image: Image, out: Array) -> Geometry:
        contract, spec = self._contract, self._spec
        assert contract.clip is not None
        check_clip(image, contract.clip)
        check_buffer(contract, spec, out)
        if self._frames is None:
            one = frame_spec(spec, contract)
            self._frames = Preprocessor(contract.still, one), np.zeros(one.shape, dtype=one.dtype)
        prepare, scratch = self._frames
        for frame, view in zip(image, frame_views(out, spec.layout, contract.clip.frames), strict=True):
            place = prepare.into(frame, scratch)
            view[...] = scratch[0]
        return place

    def fit(self, image: Image) -> Fitted:
        """The first half of `into`: the picture in the network's size, good until the next call.

        Raises:
            DataError: the picture is of another type or shape, or empty.
        """
        if self._contract.vector:
            return image, None
        plan = self._plans.get(image.shape) if image.dtype == np.uint8 else None
        if plan is None:
            check_image(image)
            plan = self._plan(image.shape)
        picture = image if image.flags.c_contiguous else np.ascontiguousarray(image)
        if plan.gray is not None:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY, dst=plan.gray)
        if plan.small is not None:
            picture = cv2.resize(picture, plan.place.resized[::-1], dst=plan.small, interpolation=plan.filter)
        return picture[plan.cut], plan

    def fill(self, fitted: Fitted, out: Array) -> Geometry:
        """The second half of `into`: channel order, numbers and layout.

        Raises:
            ModelError: ``out`` does not fit the model's input, or the input not the contract.
            DataError: a row of numbers is too long or short, or no numbers.
        """
        pixels, plan = fitted
        if plan is None:
            fill_vector(pixels, self._contract, self._spec, out)
            return geometry(self._contract.size, self._contract)
        known = self._ready.get(id(out))
        if known is None or known[0] is not out or known[1] is not plan:
            known = self._prepare(out, plan)
        self._write(pixels, plan, known[2])
        return plan.place

    def _plan(self, shape: tuple[int, ...]) -> _Plan:
        contract = self._contract
        place = geometry((shape[0], shape[1]), contract)
        colored = len(shape) == 3 and contract.color != "gray"
        tail = (3,) if colored else ()
        (height, width), (top, left) = place.resized, place.offset
        cut = tuple(
            slice(max(0, -start), max(0, -start) + size) for start, size in zip((top, left), place.size, strict=True)
        )
        top, left = max(0, top), max(0, left)
        shown = (min(height, place.size[0]), min(width, place.size[1]))
        swaps = colored and contract.color == "rgb" and self._spec.layout == "NHWC"
        planes = np.empty((3, *shown), np.uint8) if colored and self._spec.layout == "NCHW" else None
        plan = _Plan(
            place=place,
            filter=_filter(place.picture, place.resized, contract.interpolation),
            gray=np.empty(place.picture, np.uint8) if len(shape) == 3 and not colored else None,
            small=np.empty((height, width, *tail), np.uint8) if place.resized != place.picture else None,
            swapped=np.empty((*shown, 3), np.uint8) if swaps else None,
            planes=planes,
            order=() if planes is None else tuple(planes[:: -1 if contract.color == "rgb" else 1]),
            cut=(cut[0], cut[1]),
            region=(slice(top, top + shown[0]), slice(left, left + shown[1])),
        )
        if len(self._plans) >= _REMEMBERED:
            self._plans.clear()
        self._plans[shape] = plan
        return plan

    def _prepare(self, out: Array, plan: _Plan) -> _Buffer:
        """Check a buffer that is new, and write the padding that pictures of this size leave."""
        check_buffer(self._contract, self._spec, out)
        self._tables = stored_tables(self._contract, self._spec)
        self._shortcut = _find_shortcut(self._tables)
        padding = self._tables[:, self._contract.pad_value]
        out[0] = padding[:, None, None] if self._spec.layout == "NCHW" else padding
        planes = out[0] if self._spec.layout == "NCHW" else np.moveaxis(out[0], -1, 0)
        if len(self._ready) >= _REMEMBERED:
            self._ready.clear()
        self._ready[id(out)] = (out, plan, planes[:, plan.region[0], plan.region[1]])
        return self._ready[id(out)]

    def _write(self, pixels: Image, plan: _Plan, targets: Array) -> None:
        """The picture into its part of the buffer, `(C, h, w)` in whatever order the memory has."""
        tables = self._tables
        assert tables is not None
        if self._spec.layout == "NHWC" and self._contract.channels == 3:
            if pixels.ndim == 2:
                pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
            elif plan.swapped is not None:
                pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=plan.swapped)
            _fill(pixels, tables, np.moveaxis(targets, 0, -1), self._shortcut)
            return
        if plan.planes is None:
            for table, target in zip(tables, targets, strict=True):
                _fill(pixels, table[None], target, self._shortcut)
            return
        cv2.split(pixels, plan.order)
        if self._shortcut is not None:
            _fill(plan.planes, tables, targets, self._shortcut)
            return
        for plane, table, target in zip(plan.planes, tables, targets, strict=True):
            _fill(plane, table[None], target, None)


def _fill(pixels: Image, tables: Array, out: Array, shortcut: _Shortcut | None) -> None:
    """``out = table[pixels]`` for `(h, w)` with one table or `(h, w, C)` with one per channel."""
    if shortcut is not None and shortcut[0] == "flip":
        np.bitwise_xor(pixels, shortcut[1], out=out.view(np.uint8))
    elif shortcut is not None:
        np.divide(pixels, shortcut[1], out=out, dtype=np.float32, casting="unsafe")
    elif pixels.ndim == 2:
        look_up(pixels, tables[0], out)
    elif out.dtype.itemsize == 1 or out.dtype == np.float32:
        look_up(pixels, np.ascontiguousarray(tables.T)[np.newaxis], out)
    else:
        for channel, table in enumerate(tables):
            out[:, :, channel] = table[pixels[:, :, channel]]


def _find_shortcut(tables: Array) -> _Shortcut | None:
    """What gives all values of the tables; None where only looking them up does."""
    pixels = np.arange(256, dtype=np.uint8)
    if tables.dtype.itemsize == 1:
        stored = tables.view(np.uint8)
        bits = stored[0, 0]
        return ("flip", bits) if (stored == pixels ^ bits).all() else None
    if tables.dtype == np.float32 and tables[0, 255] > 0:
        divisor = np.float32(np.rint(255.0 / tables[0, 255]))
        if divisor > 0 and (tables == pixels / divisor).all():
            return "divide", divisor
    return None


@lru_cache(maxsize=64)
def _filter(picture: tuple[int, int], resized: tuple[int, int], interpolation: str) -> int:
    """The quickest filter of OpenCV that has the bits of the contract's one at this scale on this processor."""
    exact = FILTERS[interpolation]
    whole = all(have % want == 0 for have, want in zip(picture, resized, strict=True))
    if exact != cv2.INTER_LINEAR_EXACT or not whole or picture == resized:
        return exact
    random = np.random.default_rng(_NOISE_SEED)
    noise = random.integers(0, 256, (*picture, 3), dtype=np.uint8)
    noise[: picture[0] // 2] &= 129  # extremes and neighbours of them, which plain noise rarely brings together
    wanted = cv2.resize(noise, resized[::-1], interpolation=exact)
    for quick in (cv2.INTER_NEAREST_EXACT, cv2.INTER_LINEAR):
        if np.array_equal(cv2.resize(noise, resized[::-1], interpolation=quick), wanted):
            return quick
    return exact
