"""Operators that pick, join or move parts of tensors."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from edgecv.models.onnx_import.builder import Builder
from edgecv.models.onnx_import.ops.shapes import reshape_to
from edgecv.models.onnx_import.values import Call, Converter, Value, ints

__all__ = ["OPS"]


def _concat(builder: Builder, call: Call) -> Value:
    values = [value for value in call.inputs if value is not None and 0 not in builder.shape(value)]
    axis = builder.axis(values[0], int(call.get("axis", 1)))
    values = _with_batch(builder, values, axis)
    return values[0] if len(values) == 1 else builder.fn(torch.cat, values, axis)


def _with_batch(builder: Builder, values: list[Value], joined: int) -> list[Value]:
    """A constant beside pictures (the class token of a transformer) is repeated for each of them."""
    leaders = [value for value in values if builder.batch_axis(value) is not None]
    if not leaders or len(leaders) == len(values):
        return values
    batch = builder.batch_axis(leaders[0])
    if batch is None or batch == joined or any(builder.shape_of_many(value) is None for value in values):
        return values
    done = []
    for value in values:
        if builder.batch_axis(value) is None and builder.shape(value)[batch] == 1:
            count = builder.method("size", leaders[0], batch)
            sizes = [count if axis == batch else -1 for axis in range(builder.rank(value))]
            value = builder.method("expand", value, *sizes)
        done.append(value)
    return done


def _split(builder: Builder, call: Call) -> Sequence[Value]:
    value = call.tensor(0)
    axis = builder.axis(value, int(call.get("axis", 0)))
    length, count = builder.shape(value)[axis], len(call.outputs)
    sizes = call.numbers(1, "split")
    if sizes is None:
        step = -(-length // count)
        sizes = [min(step, length - step * index) for index in range(count)]
    if len(set(sizes)) == 1:
        parts = builder.fn(torch.chunk, value, len(sizes), axis)
    else:
        parts = builder.fn(torch.split, value, tuple(sizes), axis)
    return [builder.pick(parts, index) for index in range(len(sizes))]


def _slice(builder: Builder, call: Call) -> Value:
    value = call.tensor(0)
    starts, ends = call.numbers(1, "starts") or [], call.numbers(2, "ends") or []
    axes = call.numbers(3, "axes") or list(range(len(starts)))
    steps = call.numbers(4, "steps") or [1] * len(starts)
    shape = builder.shape(value)
    cuts = [slice(None)] * len(shape)
    flipped = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis % len(shape)
        length = shape[axis]
        if step < 0:
            # slice(...).indices does what ONNX wants; the same elements are then taken from the flipped axis.
            first, stop, _ = slice(start, end if end >= -length else None, step).indices(length)
            flipped.append(axis)
            start, end, step = length - 1 - first, length - 1 - stop, -step
        start, end, step = slice(start, end, step).indices(length)
        if (start, end, step) != (0, length, 1):
            cuts[axis] = slice(start or None, None if end == length else end, None if step == 1 else step)
    if flipped:
        value = builder.fn(torch.flip, value, tuple(flipped))
    if all(cut == slice(None) for cut in cuts):
        return value
    batch = builder.batch_axis(value)
    if batch is not None and cuts[batch] != slice(None):
        builder.fix_batch("cuts the batch axis")
    while cuts[-1] == slice(None):
        cuts.pop()
    return builder.fn(operator.getitem, value, tuple(cuts))


def _gather(builder: Builder, call: Call) -> Value:
    value, picks = call.tensor(0), call.tensor(1)
    axis = builder.axis(value, int(call.get("axis", 0)))
    shape = builder.shape(value)
    if builder.batch_axis(value) == axis:
        builder.fix_batch("picks from the batch axis")
    if not isinstance(picks, np.ndarray):
        picks_shape = builder.shape(picks)
        if isinstance(value, np.ndarray) and axis == 0 and value.ndim == 2:
            return builder.fn(F.embedding, picks, value)
        flat = builder.fn(torch.reshape, picks, (-1,)) if len(picks_shape) != 1 else picks
        taken = builder.fn(torch.index_select, value, axis, flat)
        return reshape_to(builder, taken, (*shape[:axis], *picks_shape, *shape[axis + 1 :]))
    indices = np.where(picks < 0, picks + shape[axis], picks).astype(np.int64)
    if indices.ndim == 0:
        return builder.fn(torch.select, value, axis, int(indices))
    flat_indices = indices.reshape(-1)
    run = _as_slice(flat_indices)
    if run is None:
        taken = builder.fn(torch.index_select, value, axis, flat_indices)
    else:
        taken = builder.fn(operator.getitem, value, (*[slice(None)] * axis, run))
    return reshape_to(builder, taken, (*shape[:axis], *indices.shape, *shape[axis + 1 :]))


def _as_slice(indices: np.ndarray) -> slice | None:
    """Indices that lie evenly apart, as a slice."""
    if indices.size == 0:
        return None
    step = int(indices[1] - indices[0]) if indices.size > 1 else 1
    if step < 1 or not np.array_equal(indices, indices[0] + step * np.arange(indices.size)):
        return None
    return slice(int(indices[0]), int(indices[-1]) + 1, step)


def _gather_elements(builder: Builder, call: Call) -> Value:
    value, picks = call.tensor(0), call.tensor(1)
    axis = builder.axis(value, int(call.get("axis", 0)))
    if isinstance(picks, np.ndarray):
        picks = np.where(picks < 0, picks + builder.shape(value)[axis], picks).astype(np.int64)
    return builder.fn(torch.gather, value, axis, picks)


def _gather_nd(builder: Builder, call: Call) -> Value:
    value, picks = call.tensor(0), call.constant(1, "indices")
    assert picks is not None
    if call.get("batch_dims", 0):
        raise call.refused("batch_dims is not supported")
    columns = tuple(np.ascontiguousarray(picks[..., index]) for index in range(picks.shape[-1]))
    return builder.fn(operator.getitem, value, columns)


def _scatter_nd(builder: Builder, call: Call) -> Value:
    value, picks, updates = call.tensor(0), call.constant(1, "indices"), call.tensor(2)
    if picks is None or call.get("reduction", "none") != "none":
        raise call.refused("only plain replacement is supported")
    columns = tuple(np.ascontiguousarray(picks[..., index]) for index in range(picks.shape[-1]))
    return builder.fn(torch.index_put, value, columns, updates)


def _pad(builder: Builder, call: Call) -> Value:
    value = call.tensor(0)
    rank = builder.rank(value)
    pads = call.numbers(1, "pads") or []
    axes = call.numbers(3, "axes") or list(range(rank))
    mode = str(call.get("mode", "constant"))
    fill = call.constant(2, "fill value") if "value" not in call.attributes else np.asarray(call.attributes["value"])
    both = [(0, 0)] * rank
    for index, axis in enumerate(axes):
        both[axis % rank] = pads[index], pads[index + len(axes)]
    if not any(before or after for before, after in both):
        return value
    batch = builder.batch_axis(value)
    if batch is not None and both[batch] != (0, 0):
        builder.fix_batch("pads the batch axis")
    while both and both[0] == (0, 0) and (mode == "constant" or len(both) > max(1, rank - 2)):
        both = both[1:]
    flat = [item for pair in reversed(both) for item in pair]
    if mode == "constant":
        number = 0 if fill is None or fill.size == 0 else fill.reshape(-1)[0].item()
        return builder.fn(F.pad, value, tuple(flat), "constant", number)
    modes = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in modes or len(both) > max(1, rank - 2) or min(flat) < 0:
        raise call.refused(f"mode {mode} is supported on the picture's height and width only, without cutting")
    return builder.fn(F.pad, value, tuple(flat), modes[mode])


def _grid_sample(builder: Builder, call: Call) -> Value:
    modes = {
        "bilinear": "bilinear",
        "linear": "bilinear",
        "nearest": "nearest",
        "bicubic": "bicubic",
        "cubic": "bicubic",
    }
    return builder.fn(
        F.grid_sample,
        call.tensor(0),
        call.tensor(1),
        mode=modes[str(call.get("mode", "bilinear"))],
        padding_mode=str(call.get("padding_mode", "zeros")),
        align_corners=bool(call.get("align_corners", 0)),
    )


def _top_k(builder: Builder, call: Call) -> Sequence[Value]:
    value, counts = call.tensor(0), call.numbers(1, "k")
    if not counts:
        raise call.refused("it has no k")
    axis = builder.axis(value, int(call.get("axis", -1)))
    largest, ordered = bool(call.get("largest", 1)), bool(call.get("sorted", 1))
    found = builder.fn(torch.topk, value, counts[0], axis, largest, ordered)
    return [builder.pick(found, 0), builder.pick(found, 1)]


def _trilu(builder: Builder, call: Call) -> Value:
    diagonal = (call.numbers(1, "k") or [0])[0]
    return builder.fn(torch.triu if call.get("upper", 1) else torch.tril, call.tensor(0), diagonal)


def _one_hot(builder: Builder, call: Call) -> Value:
    depth, values = call.constant(1, "depth"), call.constant(2, "values")
    if depth is None or values is None or int(call.get("axis", -1)) not in (-1, builder.rank(call.tensor(0))):
        raise call.refused("only a fixed depth on the last axis is supported")
    places = np.arange(ints(depth)[0])
    indices = builder.fn(torch.unsqueeze, call.tensor(0), -1)
    hot = builder.fn(torch.eq, builder.fn(torch.remainder, indices, len(places)), places)
    return builder.fn(torch.where, hot, values[1:2], values[0:1])


OPS: dict[str, Converter] = {
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "GridSample": _grid_sample,
    "OneHot": _one_hot,
    "Pad": _pad,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Split": _split,
    "TopK": _top_k,
    "Trilu": _trilu,
}
