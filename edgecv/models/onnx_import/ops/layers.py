"""Operators with weights: convolutions, linear layers and normalisations become torch modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgecv.models.onnx_import.builder import Builder
from edgecv.models.onnx_import.names import layer_name
from edgecv.models.onnx_import.values import Call, Constant, Converter, Value, ints

__all__ = ["OPS", "same_pads"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def same_pads(
    mode: str, lengths: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """ONNX pads (all begins, then all ends) for ``auto_pad`` SAME_UPPER or SAME_LOWER."""
    begins, ends = [], []
    for length, size, stride, dilation in zip(lengths, kernel, strides, dilations, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length)
        small, large = total // 2, total - total // 2
        begins.append(large if mode == "SAME_LOWER" else small)
        ends.append(small if mode == "SAME_LOWER" else large)
    return begins + ends


def _parameter(values: Constant) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(values, dtype=np.float32, copy=True)))


def _filled(module: Any, weight: Constant, bias: Constant | None) -> Any:
    module.weight = _parameter(weight)
    if bias is not None:
        module.bias = _parameter(bias)
    return module


def _empty(kind: Any, *args: Any, **kwargs: Any) -> Any:
    """A module without memory for its weights, which are put in afterwards."""
    return kind(*args, **kwargs, device="meta")


def _setting(call: Call, name: str, default: int, axes: int) -> tuple[int, ...]:
    return tuple(ints(call.get(name, [default] * axes)))


def _conv(builder: Builder, call: Call) -> Value:
    value, weight, bias = call.tensor(0), call.constant(1, "weight"), call.given(2)
    if weight is None or not (bias is None or isinstance(bias, np.ndarray)):
        raise call.refused("its weight or bias depends on the picture; only fixed ones are supported")
    axes, groups = weight.ndim - 2, int(call.get("group", 1))
    kernel = weight.shape[2:]
    strides, dilations = _setting(call, "strides", 1, axes), _setting(call, "dilations", 1, axes)
    pads = list(_setting(call, "pads", 0, 2 * axes))
    mode = str(call.get("auto_pad", "NOTSET"))
    if mode.startswith("SAME"):
        pads = same_pads(mode, builder.shape(value)[2:], kernel, strides, dilations)
    value, padding = _even_padding(builder, value, pads)
    module = _empty(
        _CONVS[axes - 1],
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        stride=strides,
        padding=padding,
        dilation=dilations,
        groups=groups,
        bias=bias is not None,
    )
    key = ("conv", call.names[1:], strides, padding, dilations, groups)
    path = layer_name(call.names[1], call.name)
    return builder.layer(_filled(module, weight, bias), value, path=path, key=key)


def _even_padding(builder: Builder, value: Value, pads: Sequence[int]) -> tuple[Value, tuple[int, ...]]:
    """Padding that a layer can do itself (the same on both sides); any other is put in front of it."""
    axes = len(pads) // 2
    if list(pads[:axes]) == list(pads[axes:]) and min(pads, default=0) >= 0:
        return value, tuple(pads[:axes])
    flat = [item for axis in reversed(range(axes)) for item in (pads[axis], pads[axes + axis])]
    return builder.fn(F.pad, value, tuple(flat)), (0,) * axes


def _conv_transpose(builder: Builder, call: Call) -> Value:
    value, weight, bias = call.tensor(0), call.constant(1, "weight"), call.constant(2, "bias")
    assert weight is not None
    axes, groups = weight.ndim - 2, int(call.get("group", 1))
    kernel, lengths = weight.shape[2:], builder.shape(value)[2:]
    strides, dilations = _setting(call, "strides", 1, axes), _setting(call, "dilations", 1, axes)
    extra = _setting(call, "output_padding", 0, axes)
    pads = list(_setting(call, "pads", 0, 2 * axes))
    full = [
        strides[axis] * (lengths[axis] - 1) + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        for axis in range(axes)
    ]
    mode = str(call.get("auto_pad", "NOTSET"))
    wanted = call.attributes.get("output_shape")
    if wanted is not None or mode.startswith("SAME"):
        sizes = ints(wanted)[-axes:] if wanted is not None else [a * b for a, b in zip(lengths, strides, strict=True)]
        totals = [have - want for have, want in zip(full, sizes, strict=True)]
        small = [total // 2 for total in totals]
        large = [total - half for total, half in zip(totals, small, strict=True)]
        pads = small + large if mode == "SAME_UPPER" else large + small
    even = pads[:axes] == pads[axes:] and min(pads) >= 0
    padding = tuple(pads[:axes]) if even else (0,) * axes
    module = _empty(
        _TRANSPOSED[axes - 1],
        weight.shape[0],
        weight.shape[1] * groups,
        kernel,
        stride=strides,
        padding=padding,
        output_padding=extra,
        groups=groups,
        bias=bias is not None,
        dilation=dilations,
    )
    path = layer_name(call.names[1], call.name)
    key = ("transposed", call.names[1:], strides, padding, dilations, groups, extra)
    made = builder.layer(_filled(module, weight, bias), value, path=path, key=key)
    if even:
        return made
    flat = [-item for axis in reversed(range(axes)) for item in (pads[axis], pads[axes + axis])]
    return builder.fn(F.pad, made, tuple(flat))


def _linear(builder: Builder, call: Call, weight: Constant, bias: Constant | None) -> Value:
    """``weight`` is `(out, in)`."""
    module = _filled(_empty(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None), weight, bias)
    path = layer_name(call.names[1], call.name)
    return builder.layer(module, call.tensor(0), path=path, key=("linear", call.op, *call.names[1:]))


def _gemm(builder: Builder, call: Call) -> Value:
    one, other, shift = call.tensor(0), call.tensor(1), call.given(2)
    alpha, beta = float(call.get("alpha", 1.0)), float(call.get("beta", 1.0))
    simple = shift is None or (isinstance(shift, np.ndarray) and shift.size in (1, *shift.shape[-1:]))
    if isinstance(other, np.ndarray) and not call.get("transA", 0) and simple:
        weight = (other if call.get("transB", 0) else other.T) * np.float32(alpha)
        bias = None
        if isinstance(shift, np.ndarray):
            bias = np.broadcast_to(shift.reshape(-1) * np.float32(beta), weight.shape[:1])
        return _linear(builder, call, weight, bias)
    one = builder.fn(torch.t, one) if call.get("transA", 0) else one
    other = builder.fn(torch.t, other) if call.get("transB", 0) else other
    product = builder.fn(torch.matmul, one, other)
    product = product if alpha == 1.0 else builder.fn(torch.mul, product, alpha)
    if shift is None:
        return product
    return builder.fn(torch.add, product, shift, alpha=beta)


def _matmul(builder: Builder, call: Call) -> Value:
    one, other = call.tensor(0), call.tensor(1)
    if isinstance(other, np.ndarray) and other.ndim == 2 and other.dtype == np.float32:
        return _linear(builder, call, other.T, None)
    return builder.fn(torch.matmul, one, other)


def _batch_norm(builder: Builder, call: Call) -> Value:
    value = call.tensor(0)
    if call.get("training_mode", 0):
        raise call.refused("it is in training mode; export the model in evaluation mode")
    numbers = [call.constant(index, "statistics") for index in range(1, 5)]
    scale, shift, mean, variance = (np.asarray(item, dtype=np.float32) for item in numbers)
    rank = builder.rank(value)
    if rank not in _BATCH_NORMS:
        raise call.refused(f"on a tensor of {rank} axes")
    norm = _empty(
        _BATCH_NORMS[rank],
        len(scale),
        eps=float(call.get("epsilon", 1e-5)),
        momentum=1.0 - float(call.get("momentum", 0.9)),
    )
    module = _filled(norm, scale, shift)
    module.running_mean = torch.from_numpy(mean.copy())
    module.running_var = torch.from_numpy(variance.copy())
    module.num_batches_tracked = torch.tensor(0)
    return builder.layer(module, value, path=layer_name(call.names[1], call.name))


def _instance_norm(builder: Builder, call: Call) -> Value:
    value, scale, shift = call.tensor(0), call.constant(1, "scale"), call.constant(2, "bias")
    assert scale is not None
    norm = _empty(_INSTANCE_NORMS[builder.rank(value)], len(scale), eps=float(call.get("epsilon", 1e-5)), affine=True)
    return builder.layer(_filled(norm, scale, shift), value, path=layer_name(call.names[1], call.name))


def _layer_norm(builder: Builder, call: Call) -> Value:
    value, scale, shift = call.tensor(0), call.constant(1, "scale"), call.constant(2, "bias")
    assert scale is not None
    if len(call.outputs) > 1:
        raise call.refused("its mean and deviation are read; only the first output is supported")
    shape = builder.shape(value)[builder.axis(value, int(call.get("axis", -1))) :]
    norm = _empty(nn.LayerNorm, shape, eps=float(call.get("epsilon", 1e-5)), bias=shift is not None)
    weight = np.broadcast_to(scale, shape)
    bias = None if shift is None else np.broadcast_to(shift, shape)
    return builder.layer(_filled(norm, weight, bias), value, path=layer_name(call.names[1], call.name))


def _group_norm(builder: Builder, call: Call) -> Value:
    value, scale, shift = call.tensor(0), call.constant(1, "scale"), call.constant(2, "bias")
    assert scale is not None
    assert shift is not None
    groups, channels = int(call.attributes["num_groups"]), builder.shape(value)[1]
    if len(scale) == groups != channels:  # before opset 21: one number a group
        scale, shift = (np.repeat(item, channels // groups) for item in (scale, shift))
    norm = _empty(nn.GroupNorm, groups, channels, eps=float(call.get("epsilon", 1e-5)))
    return builder.layer(_filled(norm, scale, shift), value, path=layer_name(call.names[1], call.name))


def _local_response(builder: Builder, call: Call) -> Value:
    alpha, beta, bias = (float(call.get(*item)) for item in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return builder.fn(F.local_response_norm, call.tensor(0), int(call.attributes["size"]), alpha, beta, bias)


def _lp_norm(builder: Builder, call: Call) -> Value:
    order = float(call.get("p", 2))
    return builder.fn(F.normalize, call.tensor(0), order, int(call.get("axis", -1)), 1e-12)


def _einsum(builder: Builder, call: Call) -> Value:
    return builder.fn(torch.einsum, str(call.attributes["equation"]), *call.inputs)


OPS: dict[str, Converter] = {
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_norm,
    "MatMul": _matmul,
}
