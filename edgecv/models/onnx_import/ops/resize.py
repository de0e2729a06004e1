"""Resize and Upsample: torch's own interpolation where it takes the same pixels, else picks or matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from edgecv.models.onnx_import.builder import Builder
from edgecv.models.onnx_import.values import Call, Constant, Converter, Value

__all__ = ["OPS", "cubic_matrix", "linear_matrix", "source_places"]

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
Floats = NDArray[np.float64]


def source_places(mode: str, length: int, size: int, scale: float) -> Floats:
    """Where each of ``size`` output pixels lies in an input of ``length``, as the ONNX standard defines ``mode``.

    Raises:
        KeyError: the mode needs more than the lengths.
    """
    out = np.arange(size, dtype=np.float64)
    if mode == "half_pixel":
        return (out + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (out + 0.5) / scale - 0.5 if size > 1 else np.zeros(1)
    if mode == "half_pixel_symmetric":
        offset = length / 2 * (1 - size / (scale * length))
        return offset + (out + 0.5) / scale - 0.5
    if mode == "asymmetric":
        return out / scale
    if mode == "align_corners":
        return out * (length - 1) / (size - 1) if size > 1 else np.zeros(1)
    raise KeyError(mode)


def linear_matrix(places: Floats, length: int) -> Constant:
    """`(size, length)` float32: the weights of linear interpolation."""
    places = np.clip(places, 0, length - 1)
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, length - 1)
    matrix = np.zeros((len(places), length))
    rows = np.arange(len(places))
    np.add.at(matrix, (rows, low), 1 - (places - low))
    np.add.at(matrix, (rows, high), places - low)
    return matrix.astype(np.float32)


def cubic_matrix(places: Floats, length: int, a: float, *, exclude_outside: bool) -> Constant:
    """`(size, length)` float32: the weights of cubic convolution (Keys 1981) with coefficient ``a``."""
    low = np.floor(places).astype(np.int64)
    rows = np.arange(len(places))
    matrix = np.zeros((len(places), length))
    for tap in range(-1, 3):
        distance = np.abs(places - (low + tap))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weight = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
        index = low + tap
        if exclude_outside:
            weight = np.where((index < 0) | (index >= length), 0.0, weight)
        np.add.at(matrix, (rows, np.clip(index, 0, length - 1)), weight)
    if exclude_outside:
        matrix /= matrix.sum(1, keepdims=True)
    return matrix.astype(np.float32)


def _rounded(places: Floats, mode: str) -> NDArray[np.int64]:
    if mode == "round_prefer_floor":
        found = np.ceil(places - 0.5)
    elif mode == "round_prefer_ceil":
        found = np.floor(places + 0.5)
    else:
        found = np.ceil(places) if mode == "ceil" else np.floor(places)
    return found.astype(np.int64)


def _wanted(builder: Builder, call: Call) -> tuple[list[int], list[float]]:
    """Output lengths and scales of all axes."""
    shape = builder.shape(call.tensor(0))
    first = 1 if call.op == "Upsample" or call.opset < 11 else 2
    scales = (
        call.constant(first, "scales") if "scales" not in call.attributes else np.asarray(call.attributes["scales"])
    )
    sizes = call.constant(first + 1, "sizes") if call.op == "Resize" and call.opset >= 11 else None
    axes = [axis % len(shape) for axis in call.get("axes", range(len(shape)))]
    if call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refused(f"keep_aspect_ratio_policy {call.attributes['keep_aspect_ratio_policy']} is not supported")
    lengths, factors = list(shape), [1.0] * len(shape)
    for index, axis in enumerate(axes):
        if sizes is not None and sizes.size:
            lengths[axis] = int(sizes[index])
            factors[axis] = lengths[axis] / shape[axis]
        elif scales is not None and scales.size:
            factors[axis] = float(scales[index])
            lengths[axis] = int(np.floor(shape[axis] * factors[axis] + 1e-6))
    return lengths, factors


def _resize(builder: Builder, call: Call) -> Value:
    value = call.tensor(0)
    shape = builder.shape(value)
    lengths, scales = _wanted(builder, call)
    batch = builder.batch_axis(value)
    if batch is not None and lengths[batch] != shape[batch]:
        raise call.refused(f"it changes the batch axis: {list(shape)} to {lengths}")
    changed = [axis for axis in range(len(shape)) if lengths[axis] != shape[axis] or scales[axis] != 1.0]
    if not changed:
        return value
    places = _coordinate_mode(call)
    if call.get("antialias", 0) or places == "tf_crop_and_resize":
        raise call.refused("antialias and tf_crop_and_resize are not supported")
    mode = str(call.get("mode", "nearest"))
    try:
        found = {axis: source_places(places, shape[axis], lengths[axis], scales[axis]) for axis in changed}
    except KeyError:
        raise call.refused(f"coordinate_transformation_mode {places} is not supported") from None
    spatial = lengths[2:] if all(axis >= 2 for axis in changed) and 3 <= len(shape) <= 5 else None
    if mode == "nearest":
        rule = str(call.get("nearest_mode", "round_prefer_floor" if call.opset >= 11 else "floor"))
        picks = {axis: np.clip(_rounded(found[axis], rule), 0, shape[axis] - 1) for axis in changed}
        return _nearest(builder, value, picks, spatial)
    if mode in ("linear", "bilinear", "trilinear", "cubic"):
        return _smooth(builder, call, value, found, spatial)
    raise call.refused(f"mode {mode} is not supported")


def _coordinate_mode(call: Call) -> str:
    if call.op == "Upsample" or call.opset < 11:
        return "asymmetric"
    return str(call.get("coordinate_transformation_mode", "half_pixel"))


def _nearest(
    builder: Builder, value: Value, picks: dict[int, NDArray[np.int64]], spatial: Sequence[int] | None
) -> Value:
    shape = builder.shape(value)
    if spatial is not None:
        for mode in ("nearest", "nearest-exact"):
            if all(np.array_equal(pick, _torch_nearest(mode, shape[axis], len(pick))) for axis, pick in picks.items()):
                return builder.fn(F.interpolate, value, size=tuple(spatial), mode=mode)
    for axis, pick in picks.items():
        value = builder.fn(torch.index_select, value, axis, pick)
    return value


def _torch_nearest(mode: str, length: int, size: int) -> NDArray[np.int64]:
    """The pixels that torch picks (measured, not computed: its rounding is part of the answer)."""
    row = torch.arange(length, dtype=torch.float32).reshape(1, 1, length)
    return np.asarray(F.interpolate(row, size=size, mode=mode).reshape(-1).numpy(), dtype=np.int64)


def _smooth(
    builder: Builder, call: Call, value: Value, places: dict[int, Floats], spatial: Sequence[int] | None
) -> Value:
    shape, cubic = builder.shape(value), call.get("mode", "nearest") == "cubic"
    a, outside = float(call.get("cubic_coeff_a", -0.75)), bool(call.get("exclude_outside", 0))
    if spatial is not None and (not cubic or (len(spatial) == 2 and a == -0.75 and not outside)):
        mode = "bicubic" if cubic else _LINEAR[len(spatial)]
        for corners, name in ((False, "half_pixel"), (True, "align_corners")):
            wanted = {
                axis: source_places(name, shape[axis], len(p), len(p) / shape[axis]) for axis, p in places.items()
            }
            if all(_same_places(places[axis], wanted[axis], shape[axis], cubic=cubic) for axis in places):
                return builder.fn(F.interpolate, value, size=tuple(spatial), mode=mode, align_corners=corners)
    for axis, found in places.items():
        length = shape[axis]
        matrix = cubic_matrix(found, length, a, exclude_outside=outside) if cubic else linear_matrix(found, length)
        value = _along(builder, value, axis, matrix)
    return value


def _same_places(one: Floats, other: Floats, length: int, *, cubic: bool) -> bool:
    if not cubic:
        one, other = np.clip(one, 0, length - 1), np.clip(other, 0, length - 1)
    return bool(np.allclose(one, other, atol=1e-5))


def _along(builder: Builder, value: Value, axis: int, matrix: Constant) -> Value:
    """Multiply ``matrix`` `(out, in)` along ``axis``."""
    last = builder.rank(value) - 1
    moved = value if axis == last else builder.fn(torch.transpose, value, axis, last)
    made = builder.fn(torch.matmul, moved, np.ascontiguousarray(matrix.T))
    return made if axis == last else builder.fn(torch.transpose, made, axis, last)


OPS: dict[str, Converter] = {"Resize": _resize, "Upsample": _resize}
