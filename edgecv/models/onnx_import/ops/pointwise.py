"""Operators on each value alone: activations, arithmetic, comparisons, casts."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

from edgecv.models.onnx_import.builder import Builder
from edgecv.models.onnx_import.names import layer_name, path_of
from edgecv.models.onnx_import.values import Call, Converter, Value

__all__ = ["OPS"]

_DTYPES = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "INT16": torch.int16,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "BOOL": torch.bool,
}


def _plain(function: Callable[..., Any]) -> Converter:
    return lambda builder, call: builder.fn(function, call.tensor(0))


def _binary(function: Callable[..., Any]) -> Converter:
    return lambda builder, call: builder.fn(function, *builder.operands(call.tensor(0), call.tensor(1)))


def _divide(builder: Builder, call: Call) -> Value:
    one, other = builder.operands(call.tensor(0), call.tensor(1))
    if builder.is_float(call.tensor(0)):
        return builder.fn(operator.truediv, one, other)
    return builder.fn(torch.div, call.tensor(0), other, rounding_mode="trunc")


def _modulo(builder: Builder, call: Call) -> Value:
    function = torch.fmod if call.get("fmod", 0) else torch.remainder
    return builder.fn(function, call.tensor(0), builder.operands(call.tensor(0), call.tensor(1))[1])


def _power(builder: Builder, call: Call) -> Value:
    value, exponent = call.tensor(0), call.tensor(1)
    number = builder.operands(value, exponent)[1]
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return builder.fn(torch.sqrt, value) if number == 0.5 else builder.fn(torch.pow, value, number)


def _variadic(function: Callable[..., Any], *, mean: bool = False) -> Converter:
    def convert(builder: Builder, call: Call) -> Value:
        result = call.tensor(0)
        for value in call.inputs[1:]:
            assert value is not None
            result = builder.fn(function, result, value)
        return builder.fn(operator.truediv, result, len(call.inputs)) if mean and len(call.inputs) > 1 else result

    return convert


def _cast(builder: Builder, call: Call) -> Value:
    name = onnx.TensorProto.DataType.Name(int(call.attributes["to"]))
    if name not in _DTYPES:
        raise call.refused(f"to {name.lower()}; allowed are {', '.join(_DTYPES).lower()}")
    value = call.tensor(0)
    assert not isinstance(value, np.ndarray)
    dtype = _DTYPES[name]
    return value if builder.value_of(value).dtype == dtype else builder.method("to", value, dtype)


def _cast_like(builder: Builder, call: Call) -> Value:
    other = call.tensor(1)
    dtype = getattr(torch, other.dtype.name) if isinstance(other, np.ndarray) else builder.value_of(other).dtype
    return builder.method("to", call.tensor(0), dtype)


def _activation(make: Callable[[Call], nn.Module]) -> Converter:
    return lambda builder, call: builder.layer(make(call), call.tensor(0), path=path_of(call.name))


def _clip(builder: Builder, call: Call) -> Value:
    bounds: list[float] = []
    for index, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        limit = np.asarray(call.attributes[name]) if name in call.attributes else call.constant(index, name)
        bounds.append(default if limit is None or limit.size == 0 else limit.reshape(-1)[0].item())
    low, high = bounds
    huge = float(np.finfo(np.float32).max)
    value = call.tensor(0)
    if (low, high) == (0, 6) and builder.is_float(value):
        return builder.layer(nn.ReLU6(), value, path=path_of(call.name))
    if low == 0 and high >= huge:
        return builder.fn(F.relu, value)
    given = {name: limit for name, limit in (("min", low), ("max", high)) if abs(limit) < huge}
    return builder.fn(torch.clamp, value, **given) if given else value


def _prelu(builder: Builder, call: Call) -> Value:
    value, slope = call.tensor(0), call.tensor(1)
    shape = builder.shape(value)
    if isinstance(slope, np.ndarray):
        wide = (1,) * (len(shape) - slope.ndim) + slope.shape
        per_channel = len(shape) > 1 and all(n == 1 or axis == 1 for axis, n in enumerate(wide))
        if slope.size == 1 or per_channel:
            module = nn.PReLU(slope.size)
            module.weight = nn.Parameter(torch.from_numpy(slope.reshape(-1).copy()))
            return _on_picture(builder, module, value, path=layer_name(call.names[1], call.name))
    negative = builder.fn(operator.mul, builder.fn(torch.clamp, value, max=0.0), slope)
    return builder.fn(operator.add, builder.fn(F.relu, value), negative)


def _on_picture(builder: Builder, module: nn.PReLU, value: Value, *, path: str) -> Value:
    """Scores `(N, C)` go through as pictures of one pixel: Core ML has no per-channel PReLU on two axes."""
    if builder.rank(value) != 2 or module.num_parameters == 1:
        return builder.layer(module, value, path=path)
    pixel = builder.fn(torch.unsqueeze, builder.fn(torch.unsqueeze, value, -1), -1)
    return builder.fn(torch.flatten, builder.layer(module, pixel, path=path), 1)


def _hard_sigmoid(builder: Builder, call: Call) -> Value:
    alpha, beta = float(call.get("alpha", 0.2)), float(call.get("beta", 0.5))
    if abs(alpha - 1 / 6) < 1e-4 and beta == 0.5:
        return builder.layer(nn.Hardsigmoid(), call.tensor(0), path=path_of(call.name))
    scaled = builder.fn(operator.add, builder.fn(operator.mul, call.tensor(0), alpha), beta)
    return builder.fn(torch.clamp, scaled, min=0.0, max=1.0)


def _softplus(builder: Builder, call: Call) -> Value:
    return builder.fn(F.softplus, call.tensor(0))


def _where(builder: Builder, call: Call) -> Value:
    return builder.fn(torch.where, call.tensor(0), call.tensor(1), call.tensor(2))


def _gelu(call: Call) -> nn.Module:
    return nn.GELU(approximate=str(call.get("approximate", "none")))


def _thresholded(builder: Builder, call: Call) -> Value:
    return builder.fn(F.threshold, call.tensor(0), float(call.get("alpha", 1.0)), 0.0)


def _swish(builder: Builder, call: Call) -> Value:
    if float(call.get("alpha", 1.0)) != 1.0:
        raise call.refused("only alpha 1 is supported")
    return builder.layer(nn.SiLU(), call.tensor(0), path=path_of(call.name))


_PLAIN: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Asin": torch.asin,
    "Atan": torch.atan,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsInf": torch.isinf,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": F.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}

_BINARY: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": operator.mul,
    "Or": torch.logical_or,
    "Sub": operator.sub,
    "Xor": torch.logical_xor,
}

_ACTIVATIONS: dict[str, Callable[[Call], nn.Module]] = {
    "Celu": lambda call: nn.CELU(float(call.get("alpha", 1.0))),
    "Elu": lambda call: nn.ELU(float(call.get("alpha", 1.0))),
    "Gelu": _gelu,
    "HardSwish": lambda call: nn.Hardswish(),
    "LeakyRelu": lambda call: nn.LeakyReLU(float(call.get("alpha", 0.01))),
    "Mish": lambda call: nn.Mish(),
}

OPS: dict[str, Converter] = {
    **{name: _plain(function) for name, function in _PLAIN.items()},
    **{name: _binary(function) for name, function in _BINARY.items()},
    **{name: _activation(make) for name, make in _ACTIVATIONS.items()},
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "Div": _divide,
    "HardSigmoid": _hard_sigmoid,
    "Max": _variadic(torch.maximum),
    "Mean": _variadic(operator.add, mean=True),
    "Min": _variadic(torch.minimum),
    "Mod": _modulo,
    "Pow": _power,
    "PRelu": _prelu,
    "Selu": lambda builder, call: builder.fn(F.selu, call.tensor(0)),
    "Softplus": _softplus,
    "Sum": _variadic(operator.add),
    "Swish": _swish,
    "ThresholdedRelu": _thresholded,
    "Where": _where,
}
