"""Ranges of int8 tensors by the error that they leave behind the activation that reads them.

What a convolution gives before a leaky ReLU or SiLU reaches far below zero, where the activation makes little of it:
a range that holds all of it spends most of its 256 steps on what is thrown away. Engines need the convolution's
result as int8, so the two cannot be one step as with ReLU; but the range can be the one that serves what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node
from torch.nn import functional

from edgecv.optimize.graph import DEQUANTIZE, QUANTIZE, get_constant
from edgecv.optimize.histogram import CANDIDATES, SMALLEST_BINS, STEPS, Histogram, Range

__all__ = ["Activation", "activations", "best_range_behind"]

Array = npt.NDArray[np.float64]
Activation = Callable[[Array], Array]
"""Elementwise, of float64 values."""

aten = torch.ops.aten
ROUNDS = 2
"""Both ends of a range are searched in turn; they hardly depend on each other."""


def activations(graph: GraphModule) -> dict[str, Activation]:
    """The activation that alone reads each int8 tensor of the Q/DQ ``graph``, by the name of the tensor's node."""
    found: dict[str, Activation] = {}
    for node in graph.graph.nodes:
        if node.target is not QUANTIZE[0] or not isinstance(node.args[0], Node):
            continue
        steps = [user for user in node.users if user.target is DEQUANTIZE[0]]
        readers = [reader for step in steps for reader in step.users]
        activation = _activation(graph, readers, steps)
        if activation is not None and len(steps) == len(node.users):
            found[node.args[0].name] = activation
    return found


def best_range_behind(histogram: Histogram, activation: Activation, *, symmetric: bool) -> Range:
    """The range of int8 that makes the mean squared error behind ``activation`` least; 0 is inside.

    ``symmetric`` gives -high..high.
    """
    largest = max(-histogram.low, histogram.high)
    if largest == 0 or not histogram.counts.any():
        return Range(0.0, 0.0)
    error = _Error(histogram, activation)
    step = error.centres[1] - error.centres[0]
    shares = np.geomspace(1.0, min(1.0, SMALLEST_BINS * step / largest), CANDIDATES)
    if symmetric:
        ends = shares * largest
        high = float(ends[error(-ends, ends).argmin()])
        return Range(-high, high)
    low, high = histogram.low, histogram.high
    for _ in range(ROUNDS):
        lows, highs = shares * histogram.low, shares * histogram.high
        low = float(lows[error(lows, np.full_like(lows, high)).argmin()])
        high = float(highs[error(np.full_like(highs, low), highs).argmin()])
    return Range(low, high)


class _Error:
    """Summed squared error behind ``activation`` of what ``histogram`` holds, by the range that int8 covers.

    A value inside of the range is wrong by its rounding alone, one outside by what the activation makes of the nearer
    end instead. Running sums over the bins give both without going through the bins again.
    """

    def __init__(self, histogram: Histogram, activation: Activation) -> None:
        self.centres, self._activation = histogram.centres, activation
        counts = histogram.counts.astype(np.float64)
        values = activation(self.centres)
        slopes = np.gradient(values, self.centres)
        self._counts, self._values, self._squares, self._rounding = (
            np.concatenate([[0.0], np.cumsum(part)])
            for part in (counts, counts * values, counts * values**2, counts * slopes**2 / 12)
        )

    def __call__(self, lows: Array, highs: Array) -> Array:
        """The errors of the ranges from ``lows`` to ``highs``, both `(N,)`."""
        first, last = self.centres.searchsorted(lows), self.centres.searchsorted(highs, side="right")
        below = self._moved(0, first, self._activation(lows))
        above = self._moved(last, len(self.centres), self._activation(highs))
        return below + above + (self._rounding[last] - self._rounding[first]) * ((highs - lows) / (STEPS - 1)) ** 2

    def _moved(self, first: Any, last: Any, onto: Array) -> Array:
        """The error where all values of the bins from ``first`` to before ``last`` become ``onto``."""
        counts, values, squares = (part[last] - part[first] for part in (self._counts, self._values, self._squares))
        error: Array = np.maximum(onto**2 * counts - 2 * onto * values + squares, 0.0)
        return error


def _activation(graph: GraphModule, readers: list[Node], steps: list[Node]) -> Activation | None:
    """The one activation that ``readers`` compute of a tensor, whose dequantised forms are ``steps``."""
    if len(readers) == 2:
        return _silu if _is_gated(readers, steps) else None
    if len(readers) != 1:
        return None
    reader = readers[0]
    if reader.target is aten.silu.default:
        return _silu
    if reader.target is aten.hardswish.default:
        return partial(_of_torch, functional.hardswish)
    if reader.target is aten.gelu.default:
        return partial(_of_torch, functional.gelu)
    if reader.target is aten.leaky_relu.default:
        return partial(_leaky, float(reader.args[1]) if len(reader.args) > 1 else 0.01)  # type: ignore[arg-type]
    weight = reader.args[1] if reader.target is aten.prelu.default else None
    if isinstance(weight, Node) and weight.op == "get_attr":
        return partial(_leaky, float(get_constant(graph, weight).detach().abs().max()))
    return None


def _is_gated(readers: list[Node], steps: list[Node]) -> bool:
    """Whether the two readers are x * sigmoid(x), as networks that come from ONNX spell SiLU."""
    for gate, product in (readers, readers[::-1]):
        if gate.target is aten.sigmoid.default and product.target is aten.mul.Tensor:
            return gate in product.args[:2] and any(step in product.args[:2] for step in steps)
    return False


def _leaky(slope: float, values: Array) -> Array:
    return np.where(values < 0, slope * values, values)


def _silu(values: Array) -> Array:
    return _of_torch(functional.silu, values)


def _of_torch(function: Callable[[torch.Tensor], torch.Tensor], values: Array) -> Array:
    result: Array = function(torch.from_numpy(np.ascontiguousarray(values))).numpy()
    return result
