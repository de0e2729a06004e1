"""Operators that change the shape and not the values. Where a shape holds the batch, it stays open."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from edgecv.models.onnx_import.builder import MANY, Builder
from edgecv.models.onnx_import.values import Call, Converter, Value, ints

__all__ = ["OPS", "reshape_to"]


def reshape_to(builder: Builder, value: Value, target: Sequence[int], *, open_axes: Sequence[int] = ()) -> Value:
    """``value`` with the shape ``target`` (at batch 1); ``open_axes`` are those that the file leaves open.

    Written as flatten, unflatten or unsqueeze where it is one, so that it fits pruned widths too.
    """
    shape, target = builder.shape(value), tuple(target)
    if shape == target:
        return value
    if isinstance(value, np.ndarray):
        return value.reshape(target)
    place = _batch_place(builder, value, target, open_axes)
    for attempt in (_as_unsqueeze, _as_flatten):
        made = attempt(builder, value, target, place)
        if made is not None:
            return made
    sizes = tuple(-1 if index == place else length for index, length in enumerate(target))
    split = _split_axis(shape, target)
    if split is not None:
        axis, count = split
        batch = builder.batch_axis(value)
        if batch is None or (axis == batch) == (place is not None and axis <= place < axis + count):
            return builder.fn(torch.unflatten, value, axis, sizes[axis : axis + count])
    return builder.fn(torch.reshape, value, sizes)


def _batch_place(builder: Builder, value: Value, target: tuple[int, ...], open_axes: Sequence[int]) -> int | None:
    """The axis of ``target`` that takes the batch: all behind it is one picture's share, as before."""
    batch = builder.batch_axis(value)
    if batch is None:
        return None
    share = math.prod(builder.shape(value)[batch:])
    fitting = [axis for axis in range(len(target)) if math.prod(target[axis:]) == share]
    ones = [axis for axis in fitting if target[axis] == 1]
    for wanted in ([axis for axis in ones if axis in open_axes], ones, [a for a in fitting if a in open_axes], fitting):
        if wanted:
            return wanted[0]
    builder.fix_batch(f"mixes pictures of a batch: {list(builder.shape(value))} becomes {list(target)}")
    return None


def _grown(target: tuple[int, ...], place: int | None) -> tuple[int, ...]:
    return tuple(length * MANY if index == place else length for index, length in enumerate(target))


def _as_unsqueeze(builder: Builder, value: Value, target: tuple[int, ...], place: int | None) -> Value | None:
    shape = builder.shape(value)
    if target[: len(shape)] != shape or place != builder.batch_axis(value):
        return None
    for _ in target[len(shape) :]:
        value = builder.fn(torch.unsqueeze, value, -1)
    return value


def _as_flatten(builder: Builder, value: Value, target: tuple[int, ...], place: int | None) -> Value | None:
    """One run of neighbouring axes that becomes one axis, at batch 1 and at larger batches."""
    shape, many = builder.shape(value), builder.shape_of_many(value)
    merged = len(shape) - len(target) + 1
    if merged < 2 or many is None:
        return None
    for first in reversed(range(len(target))):
        end = first + merged
        after = (*many[:first], math.prod(many[first:end]), *many[end:])
        fits = (*shape[:first], math.prod(shape[first:end]), *shape[end:]) == target
        if fits and after == (_grown(target, place) if place is not None else after):
            return builder.fn(torch.flatten, value, first, end - 1)
    return None


def _split_axis(shape: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, int] | None:
    """The one axis that is split, and into how many."""
    count = len(target) - len(shape) + 1
    if count < 2:
        return None
    for axis in range(len(shape)):
        same = target[:axis] == shape[:axis] and target[axis + count :] == shape[axis + 1 :]
        if same and math.prod(target[axis : axis + count]) == shape[axis]:
            return axis, count
    return None


def _reshape(builder: Builder, call: Call) -> Value:
    value = call.tensor(0)
    wanted = call.numbers(1, "shape")
    if wanted is None:
        raise call.refused("it has no shape")
    shape = builder.shape(value)
    keep_zero = bool(call.get("allowzero", 0))
    target = [shape[axis] if length == 0 and not keep_zero else length for axis, length in enumerate(wanted)]
    if -1 in target:
        known = -math.prod(target)
        total = math.prod(shape)
        if known == 0 or total % known:
            raise call.refused(f"{list(shape)} does not fit {wanted}")
        target[target.index(-1)] = total // known
    if math.prod(target) != math.prod(shape):
        raise call.refused(f"{list(shape)} does not fit {wanted}; its shape is fixed for another input size")
    open_axes = [axis for axis, length in enumerate(wanted) if length in (-1, 0)]
    return reshape_to(builder, value, target, open_axes=open_axes)


def _flatten(builder: Builder, call: Call) -> Value:
    value, shape = call.tensor(0), builder.shape(call.tensor(0))
    axis = int(call.get("axis", 1))
    axis = axis if axis >= 0 else axis + len(shape)
    return reshape_to(builder, value, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _squeeze(builder: Builder, call: Call) -> Value:
    value, shape = call.tensor(0), builder.shape(call.tensor(0))
    axes = call.numbers(1, "axes")
    if axes is None:
        axes = [axis for axis, length in enumerate(shape) if length == 1 and axis != builder.batch_axis(value)]
    for axis in sorted((builder.axis(value, axis) for axis in axes), reverse=True):
        value = builder.fn(torch.squeeze, value, axis)
    return value


def _unsqueeze(builder: Builder, call: Call) -> Value:
    value, axes = call.tensor(0), call.numbers(1, "axes") or []
    rank = builder.rank(value) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = builder.fn(torch.unsqueeze, value, axis)
    return value


def _transpose(builder: Builder, call: Call) -> Value:
    value = call.tensor(0)
    order = ints(call.get("perm", range(builder.rank(value))[::-1]))
    return value if order == sorted(order) else builder.fn(torch.permute, value, tuple(order))


def _expand(builder: Builder, call: Call) -> Value:
    value, wanted = call.tensor(0), call.numbers(1, "shape") or []
    shape = np.broadcast_shapes(builder.shape(value), tuple(wanted))
    return _broadcast(builder, value, shape)


def _broadcast(builder: Builder, value: Value, shape: Sequence[int]) -> Value:
    have = builder.shape(value)
    if tuple(shape) == have:
        return value
    lead = len(shape) - len(have)
    sizes = [-1 if axis >= lead and have[axis - lead] == length else length for axis, length in enumerate(shape)]
    return builder.method("expand", value, *sizes)


def _tile(builder: Builder, call: Call) -> Value:
    value, repeats = call.tensor(0), call.numbers(1, "repeats") or []
    axes = [axis for axis, count in enumerate(repeats) if count != 1]
    if all(builder.shape(value)[axis] == 1 for axis in axes) and builder.batch_axis(value) not in axes:
        return _broadcast(builder, value, [a * b for a, b in zip(builder.shape(value), repeats, strict=True)])
    return builder.fn(torch.tile, value, tuple(repeats)) if axes else value


def _depth_to_space(builder: Builder, call: Call) -> Value:
    value, size = call.tensor(0), int(call.get("blocksize", 1))
    if call.get("mode", "DCR") == "CRD":
        return builder.fn(F.pixel_shuffle, value, size)
    channels = builder.shape(value)[1] // size**2
    parts = builder.fn(torch.unflatten, value, 1, (size, size, channels))
    mixed = builder.fn(torch.permute, parts, (0, 3, 4, 1, 5, 2))
    return builder.fn(torch.flatten, builder.fn(torch.flatten, mixed, 4, 5), 2, 3)


def _space_to_depth(builder: Builder, call: Call) -> Value:
    value, size = call.tensor(0), int(call.get("blocksize", 1))
    _, _, height, width = builder.shape(value)
    parts = builder.fn(torch.unflatten, value, 3, (width // size, size))
    parts = builder.fn(torch.unflatten, parts, 2, (height // size, size))
    mixed = builder.fn(torch.permute, parts, (0, 3, 5, 1, 2, 4))
    return builder.fn(torch.flatten, mixed, 1, 3)


def _identity(builder: Builder, call: Call) -> Value:
    return call.tensor(0)


def _dropout(builder: Builder, call: Call) -> Sequence[Value]:
    value = call.tensor(0)
    return [value, np.ones(builder.shape(value), dtype=bool)][: len(call.outputs)]


OPS: dict[str, Converter] = {
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Identity": _identity,
    "Reshape": _reshape,
    "SpaceToDepth": _space_to_depth,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
