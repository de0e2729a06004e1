"""Operators over axes: pools, means, sums, softmax, and the place of the largest value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Node

from edgecv.models.onnx_import.builder import Builder
from edgecv.models.onnx_import.ops.layers import same_pads
from edgecv.models.onnx_import.values import Call, Converter, Value, ints

__all__ = ["OPS"]

_MAX_POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE_POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_NOT_NEGATIVE = (F.relu, torch.sigmoid, torch.exp, torch.abs, F.softplus)


def _window(builder: Builder, call: Call) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[int]]:
    """Kernel, strides, dilations and pads (begins, then ends) of a pool."""
    kernel = tuple(ints(call.attributes["kernel_shape"]))
    axes = len(kernel)
    strides = tuple(ints(call.get("strides", [1] * axes)))
    dilations = tuple(ints(call.get("dilations", [1] * axes)))
    pads = ints(call.get("pads", [0] * 2 * axes))
    mode = str(call.get("auto_pad", "NOTSET"))
    if mode.startswith("SAME"):
        pads = same_pads(mode, builder.shape(call.tensor(0))[2:], kernel, strides, dilations)
    return kernel, strides, dilations, pads


def _flat(pads: Sequence[int]) -> tuple[int, ...]:
    """ONNX pads in the order of torch: the last axis first, begin and end together."""
    axes = len(pads) // 2
    return tuple(item for axis in reversed(range(axes)) for item in (pads[axis], pads[axes + axis]))


def _is_native(kernel: Sequence[int], pads: Sequence[int]) -> bool:
    """Whether torch's own padding does it: even, and at most half the kernel."""
    axes = len(kernel)
    return pads[:axes] == pads[axes:] and all(2 * pad <= size for pad, size in zip(pads, kernel, strict=False))


def _max_pool(builder: Builder, call: Call) -> Value:
    if len(call.outputs) > 1:
        raise call.refused("the places of its maxima are read; only the first output is supported")
    value = call.tensor(0)
    kernel, strides, dilations, pads = _window(builder, call)
    ceil, padding = bool(call.get("ceil_mode", 0)), tuple(pads[: len(kernel)])
    if not _is_native(kernel, pads):
        lowest = 0.0 if isinstance(value, Node) and value.target in _NOT_NEGATIVE else -float("inf")
        value, padding = builder.fn(F.pad, value, _flat(pads), "constant", lowest), (0,) * len(kernel)
    return builder.fn(_MAX_POOLS[len(kernel) - 1], value, kernel, strides, padding, dilations, ceil)


def _average_pool(builder: Builder, call: Call) -> Value:
    value = call.tensor(0)
    kernel, strides, dilations, pads = _window(builder, call)
    if set(dilations) != {1}:
        raise call.refused(f"dilations {list(dilations)}; only 1 is supported")
    ceil, counted = bool(call.get("ceil_mode", 0)), bool(call.get("count_include_pad", 0))
    pool: Callable[..., Any] = _AVERAGE_POOLS[len(kernel) - 1]
    if _is_native(kernel, pads):
        return builder.fn(pool, value, kernel, strides, tuple(pads[: len(kernel)]), ceil, counted)
    padded = builder.fn(F.pad, value, _flat(pads))
    pooled = builder.fn(pool, padded, kernel, strides, 0, ceil)
    if counted:
        return pooled
    ones = torch.ones(1, 1, *builder.shape(value)[2:])
    share = pool(F.pad(ones, _flat(pads)), kernel, strides, 0, ceil)
    return builder.fn(torch.mul, pooled, (1.0 / share).numpy())


def _lp_pool(builder: Builder, call: Call) -> Value:
    kernel, strides, _, pads = _window(builder, call)
    if len(kernel) != 2 or call.get("ceil_mode", 0):
        raise call.refused("only pools over height and width without ceil_mode are supported")
    value = builder.fn(F.pad, call.tensor(0), _flat(pads)) if any(pads) else call.tensor(0)
    return builder.fn(F.lp_pool2d, value, float(call.get("p", 2)), kernel, strides)


def _global_max(builder: Builder, call: Call) -> Value:
    return builder.fn(torch.amax, call.tensor(0), tuple(range(2, builder.rank(call.tensor(0)))), True)


def _global_average(builder: Builder, call: Call) -> Value:
    rank = builder.rank(call.tensor(0))
    if rank == 4:
        return builder.fn(F.adaptive_avg_pool2d, call.tensor(0), (1, 1))
    return builder.fn(torch.mean, call.tensor(0), tuple(range(2, rank)), True)


def _axes(builder: Builder, call: Call) -> tuple[int, ...]:
    """The axes that a reduction goes over; () where it goes over none."""
    axes, rank = call.numbers(1, "axes"), builder.rank(call.tensor(0))
    if not axes:
        return () if call.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis % rank for axis in axes))


def _reduction(reduce: Callable[[Builder, Value, tuple[int, ...], bool], Value]) -> Converter:
    def convert(builder: Builder, call: Call) -> Value:
        value, axes = call.tensor(0), _axes(builder, call)
        if builder.batch_axis(value) in axes:
            builder.fix_batch("goes over the batch axis")
        return reduce(builder, value, axes, bool(call.get("keepdims", 1))) if axes else value

    return convert


def _over(function: Callable[..., Any]) -> Converter:
    return _reduction(lambda builder, value, axes, keep: builder.fn(function, value, axes, keep))


def _product(builder: Builder, value: Value, axes: tuple[int, ...], keep: bool) -> Value:
    for axis in reversed(axes):
        value = builder.fn(torch.prod, value, axis, keep)
    return value


def _l1(builder: Builder, value: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return builder.fn(torch.sum, builder.fn(torch.abs, value), axes, keep)


def _sum_of_squares(builder: Builder, value: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return builder.fn(torch.sum, builder.fn(torch.mul, value, value), axes, keep)


def _l2(builder: Builder, value: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return builder.fn(torch.sqrt, _sum_of_squares(builder, value, axes, keep))


def _log_sum(builder: Builder, value: Value, axes: tuple[int, ...], keep: bool) -> Value:
    return builder.fn(torch.log, builder.fn(torch.sum, value, axes, keep))


def _softmax(function: Callable[..., Any]) -> Converter:
    def convert(builder: Builder, call: Call) -> Value:
        value, shape = call.tensor(0), builder.shape(call.tensor(0))
        axis = builder.axis(value, int(call.get("axis", -1 if call.opset >= 13 else 1)))
        rest = shape[axis + 1 :]
        if call.opset >= 13 or all(length == 1 for length in rest):
            return builder.fn(function, value, axis)
        # Old opsets go over all axes from this one on.
        flat = builder.fn(function, builder.fn(torch.flatten, value, axis), axis)
        return builder.fn(torch.unflatten, flat, axis, shape[axis:])

    return convert


def _arg(function: Callable[..., Any]) -> Converter:
    def convert(builder: Builder, call: Call) -> Value:
        if call.get("select_last_index", 0):
            raise call.refused("select_last_index is not supported")
        return builder.fn(function, call.tensor(0), int(call.get("axis", 0)), bool(call.get("keepdims", 1)))

    return convert


def _cumulative_sum(builder: Builder, call: Call) -> Value:
    axis = call.numbers(1, "axis")
    if not axis or call.get("exclusive", 0) or call.get("reverse", 0):
        raise call.refused("exclusive and reverse sums are not supported")
    return builder.fn(torch.cumsum, call.tensor(0), axis[0])


OPS: dict[str, Converter] = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "AveragePool": _average_pool,
    "CumSum": _cumulative_sum,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "LogSoftmax": _softmax(F.log_softmax),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
    "ReduceL1": _reduction(_l1),
    "ReduceL2": _reduction(_l2),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _over(torch.logsumexp),
    "ReduceMax": _over(torch.amax),
    "ReduceMean": _over(torch.mean),
    "ReduceMin": _over(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _over(torch.sum),
    "ReduceSumSquare": _reduction(_sum_of_squares),
    "Softmax": _softmax(F.softmax),
}
