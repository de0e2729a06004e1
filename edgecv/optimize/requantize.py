"""Scales with which no rounding of a layer is a close call, so that every engine rounds the same way.

An integer engine makes an int8 result from an int32 sum by ``round(sum * M)``, ``M = s_in * s_weight / s_out``. One
computes M in float32, another scales first and divides then, a third adds the zero point before it rounds: their
products differ in the seventh digit, and where one lies just between two steps they round apart. That is one value in
100,000, but each such value moves some of those that are computed from it, and at the end of a deep network half of
the values differ. With ``M = p / q`` and an odd q no sum lies nearer to a tie than ``1 / 2q`` steps (``2 p sum`` is
even, ``q (2k + 1)`` odd): 5e-4 of a step for usual M, 6e-5 for the smallest, where float32 errs by about 3e-5.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node

from edgecv.optimize.behind import Activation, activations
from edgecv.optimize.graph import DEQUANTIZE, QUANTIZE, finish, get_constant, set_constant, shape_of
from edgecv.optimize.rules import CLAMPS, LAYERS

__all__ = ["avoid_ties", "odd_fraction"]

aten = torch.ops.aten
Array = npt.NDArray[np.float64]

LARGEST_ODD = 1023
"""Denominators go up to here, further only where M itself is smaller than their reciprocal."""
SMALLEST = 1 / 8191
"""A channel with a smaller M gives next to nothing, and its sums may lie nearer to ties: its scale becomes as large,
and its weights are rounded again."""
FARTHEST = 0.004
"""So far the scale in front of an activation function is moved, up, as a share of itself."""
TRIED = 401
"""Scales that are tried for it."""


def avoid_ties(graph: GraphModule) -> int:
    """Move scales of a Q/DQ ``graph`` so that next to nothing is rounded near a tie; returns how many.

    The int8 weights stay what they are and their scales move, by a few thousandths. What a layer gives to an
    activation function alone (SiLU, hard swish, ...) has 256 values: its scale moves to where none of them comes out
    near a tie. Products and means get such a scale where no other tensor shares it. Call it behind
    `edgecv.optimize.snap.snap_weights` and before `edgecv.optimize.snap.snap_biases`. Weights that more than one layer
    reads are left alone.
    """
    moved = sum(_move_activation(node, function) for node, function in _before_activations(graph))
    used = Counter(node.args[1] for node in graph.graph.nodes if node.target is QUANTIZE[0])
    readers = Counter(node.target for node in graph.graph.nodes if node.op == "get_attr" for _ in node.users)
    for node in graph.graph.nodes:
        if node.target in LAYERS:
            moved += _move_weights(graph, node, readers)
        elif node.target in (aten.mul.Tensor, aten.mean.dim):
            moved += _move_result(node, used)
    finish(graph)
    return moved


def odd_fraction(values: Array) -> Array:
    """The fraction ``p / q`` nearest to each of the positive ``values``, q odd and at most `LARGEST_ODD`.

    Values below twice the reciprocal of that have p = 1 and the q that they need.
    """
    flat = values.reshape(-1)
    odds = np.arange(1, LARGEST_ODD + 1, 2, dtype=np.float64)
    parts = np.maximum(1.0, np.round(flat[:, None] * odds))
    best = np.abs(parts / odds - flat[:, None]).argmin(axis=1)
    found = parts[np.arange(len(flat)), best] / odds[best]
    whole = np.round((1 / flat - 1) / 2) * 2 + 1
    result: Array = np.where(flat < 2 / LARGEST_ODD, 1 / whole, found).reshape(values.shape)
    return result


def _move_weights(graph: GraphModule, node: Node, readers: Counter[Any]) -> int:
    """Move the scales of a layer's weights; ``readers`` counts who reads each constant. 1 if they were moved."""
    values, weights, behind = node.args[0], node.args[1], _quantiser(node)
    if not isinstance(values, Node) or not isinstance(weights, Node) or behind is None:
        return 0
    if values.target is not DEQUANTIZE[0] or weights.target not in DEQUANTIZE or len(weights.users) != 1:
        return 0
    stored: Any = weights.args[0]
    if stored.target not in QUANTIZE or len(stored.users) != 1 or readers[stored.args[0].target] != 1:
        return 0
    per_step = float(values.args[1]) / float(behind.args[1])  # type: ignore[arg-type]
    scale: Any = stored.args[1]
    before = np.asarray(scale if not isinstance(scale, Node) else get_constant(graph, scale).detach().double())
    usable = np.isfinite(before) & (before > 0)
    wanted = np.where(usable, before * per_step, SMALLEST)
    after = odd_fraction(np.maximum(wanted, SMALLEST)) / per_step
    _scale_weights(graph, stored, weights, grid=np.where(wanted < SMALLEST, after, before), scale=after)
    return 1


def _scale_weights(graph: GraphModule, stored: Node, read: Node, *, grid: Array, scale: Array) -> None:
    """Give weights the int8 values that they have on ``grid``, and ``scale``."""
    source: Any = stored.args[0]
    weight, constant = get_constant(graph, source).detach(), stored.args[1]
    shape, steps = [1] * weight.ndim, torch.as_tensor(scale)
    if isinstance(constant, Node):
        axis: Any = stored.args[3]
        shape[axis] = -1
        get_constant(graph, constant).data.copy_(steps)
    else:
        for step in (stored, read):
            step.args = (step.args[0], float(scale), *step.args[2:])
    whole = torch.round(weight.double() / torch.as_tensor(grid).reshape(shape))
    set_constant(graph, str(source.target), (whole * steps.reshape(shape)).to(weight.dtype))


def _before_activations(graph: GraphModule) -> list[tuple[Node, Activation]]:
    """The quantisers of what a layer gives to an activation function alone, and that function."""
    functions = activations(graph)
    return [
        (node, functions[node.args[0].name])
        for node in graph.graph.nodes
        if node.target is QUANTIZE[0] and node.args[0].target in LAYERS and node.args[0].name in functions
    ]


def _move_result(node: Node, used: Counter[Any]) -> int:
    """Move the scale of a product of int8 values or of their mean, where no other tensor shares it."""
    behind = _quantiser(node)
    sources: list[Any] = node.all_input_nodes
    if behind is None or any(source.target is not DEQUANTIZE[0] for source in sources) or used[behind.args[1]] > 1:
        return 0
    if node.target is aten.mul.Tensor:
        pair: list[Any] = [item for item in node.args[:2] if isinstance(item, Node)]
        if len(pair) < 2:
            return 0
        step = float(pair[0].args[1]) * float(pair[1].args[1])
    else:
        whole, mean = shape_of(sources[0].args[0].args[0]), shape_of(node)
        if not whole or mean is None:
            return 0
        step = float(sources[0].args[1]) * math.prod(mean) / math.prod(whole)
    scale = step / float(odd_fraction(np.asarray(step / float(behind.args[1]))))  # type: ignore[arg-type]
    for quantiser in (behind, *behind.users):
        quantiser.args = (quantiser.args[0], scale, *quantiser.args[2:])
    return 1


def _move_activation(stored: Node, function: Activation) -> int:
    """Move the scale in front of an activation function to where its 256 results keep farthest from ties."""
    steps = list(stored.users)
    behind = {reader for step in steps for user in step.users for reader in (user, *user.users)}
    quantisers = [reader for reader in behind if reader.target is QUANTIZE[0]]
    if len(quantisers) != 1 or any(user.target is aten.leaky_relu.default for step in steps for user in step.users):
        return 0  # of a leaky ReLU the scales are those of `edgecv.optimize.snap.snap_slopes`
    scale, zero, low, high = (float(value) for value in stored.args[1:5])  # type: ignore[arg-type]
    scale_behind, zero_behind, low_behind, high_behind = (float(value) for value in quantisers[0].args[1:5])  # type: ignore[arg-type]
    values = np.arange(low - zero, high - zero + 1)
    tried = scale * np.linspace(1.0, 1.0 + FARTHEST, TRIED)
    made = function(tried[:, None] * values) / scale_behind
    inside = (made > low_behind - zero_behind - 1) & (made < high_behind - zero_behind + 1)
    margin = np.where(inside, np.abs(made - np.floor(made) - 0.5), 0.5).min(axis=1)
    for step in (stored, *steps):
        step.args = (step.args[0], float(tried[margin.argmax()]), *step.args[2:])
    return 1


def _quantiser(node: Node) -> Node | None:
    """What quantises the result of a layer, behind its clamp if it has one."""
    users = list(node.users)
    if len(users) == 1 and users[0].target in CLAMPS:
        users = list(users[0].users)
    return users[0] if len(users) == 1 and users[0].target is QUANTIZE[0] else None
