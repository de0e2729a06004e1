"""Passes that put the numbers of a Q/DQ graph on the grids that integer engines use."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgecv.optimize.graph import (
    CONVOLUTIONS,
    DEQUANTIZE,
    LINEAR,
    QUANTIZE,
    TRANSPOSED,
    finish,
    get_constant,
    replace_argument,
    set_constant,
)

__all__ = ["snap_biases", "snap_slopes", "snap_weights"]

LEAKY = torch.ops.aten.leaky_relu.default
FACTOR_BITS = 8
"""XNNPACK multiplies int8 values by the two factors of a leaky ReLU as whole 256ths, rounding half up."""
NUDGE = 1e-5
"""So much steeper above zero and flatter below: what lies between two int8 steps goes up then, in every engine."""
MOST_MOVED = 0.04
"""So far a scale is moved for it: 0.3 dB of the one tensor at most, and what lies at the ends of its range. Where the
scale behind is coarser, it may grow by as much more: the noise is that of the coarser one."""


def snap_biases(graph: GraphModule) -> int:
    """Round every bias of a quantised layer to a multiple of input scale x weight scale; returns how many.

    Integer engines hold the bias as int32 in exactly these steps, others keep it in float. Rounded here,
    both add the same number. The change is at most half an accumulator step.
    """
    snapped = 0
    for node in list(graph.graph.nodes):
        if node.target not in (*CONVOLUTIONS, *TRANSPOSED, LINEAR) or len(node.args) < 3 or node.args[2] is None:
            continue
        steps = _accumulator_step(graph, node)
        bias_node = node.args[2]
        if steps is None or bias_node.op != "get_attr":
            continue
        bias = get_constant(graph, bias_node).double()
        limit = float(2**31 - 1)
        snapped_bias = torch.clamp(torch.round(bias / steps), -limit, limit) * steps
        replace_argument(graph, node, 2, snapped_bias.float())
        snapped += 1
    finish(graph)
    return snapped


def snap_weights(graph: GraphModule) -> int:
    """Round every weight to the int8 grid that it is quantised to; returns how many tensors.

    The graph computes the same as before. Converters that quantise the weights once more do not all round
    as torch does; from values on the grid they all get the same integers.
    """
    snapped = 0
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.target in QUANTIZE else None
        if not isinstance(source, Node) or source.op != "get_attr":
            continue
        arguments = [get_constant(graph, item) if isinstance(item, Node) else item for item in node.args]
        with torch.no_grad():
            dequantize = DEQUANTIZE[QUANTIZE.index(node.target)]
            set_constant(graph, str(source.target), dequantize(node.target(*arguments), *arguments[1:]))
        snapped += 1
    return snapped


def snap_slopes(graph: GraphModule) -> int:
    """Move the scale of what a layer gives to a leaky ReLU so that integer engines compute it right; returns how many.

    Between int8 scales a leaky ReLU multiplies by ``s_in / s_out``, below zero by the slope times that. XNNPACK
    (LiteRT) rounds both factors to 256ths: with the scales as they were measured one value in twenty is a step off,
    all to one side. Factors of whole 256ths put values just between two steps, where engines differ: `NUDGE`. Only
    tensors that a layer makes and the leaky ReLU alone reads are moved; call it before `snap_biases`.
    """
    snapped = 0
    for node in list(graph.graph.nodes):
        if node.target is not LEAKY:
            continue
        before: Any = node.args[0]
        behind = list(node.users)
        if before.target is not DEQUANTIZE[0] or len(behind) != 1 or behind[0].target is not QUANTIZE[0]:
            continue
        stored: Any = before.args[0]
        alone = len(stored.users) == 1 and len(before.users) == 1
        if not alone or stored.args[0].target not in (*CONVOLUTIONS, *TRANSPOSED, LINEAR):
            continue
        slope = float(node.args[1]) if len(node.args) > 1 else 0.01
        scale = _scale_before(stored.args[1:5], behind[0].args[1:5], slope)
        for step in (stored, before):
            step.args = (step.args[0], scale * (1 + NUDGE), *step.args[2:])
        node.args = (before, slope * (1 - 2 * NUDGE), *node.args[2:])
        snapped += 1
    finish(graph)
    return snapped


def _scale_before(before: Any, behind: Any, slope: float) -> float:
    """The scale near that of ``before`` with which 256ths give most int8 values as exact factors would.

    Both are scale, zero point, lowest and highest value of a quantiser.
    """
    one = 1 << FACTOR_BITS
    scale, zero, low, high = (float(value) for value in before)
    scale_behind, zero_behind, low_behind, high_behind = (float(value) for value in behind)
    values = np.arange(int(low - zero), int(high - zero) + 1)
    wanted = one * scale / scale_behind
    best, least = scale, math.inf
    ends = (low_behind - zero_behind, high_behind - zero_behind)
    most = wanted * (1 + MOST_MOVED * max(1.0, one / wanted))
    for factor in range(math.ceil(wanted * (1 - MOST_MOVED)), math.floor(most) + 1):
        exact = values * np.where(values < 0, slope * factor * (1 - NUDGE), factor * (1 + NUDGE)) / one
        whole = np.where(values < 0, round(slope * factor), factor)
        made = np.floor(values * whole / one + 0.5)
        wrong = float((np.round(exact).clip(*ends) != made.clip(*ends)).mean()) + abs(factor / wanted - 1) / len(values)
        if wrong < least:
            best, least = factor * scale_behind / one, wrong
    return best


def _accumulator_step(graph: GraphModule, node: Node) -> Tensor | None:
    """Input scale x weight scale per output channel, `(C,)` float64; None where the layer is not quantised."""
    values, weights = node.args[0], node.args[1]
    if not isinstance(values, Node) or not isinstance(weights, Node):
        return None
    if values.target is not DEQUANTIZE[0]:
        return None
    scale: Any = values.args[1]
    if weights.target is DEQUANTIZE[0]:
        step: Any = weights.args[1]
        return torch.tensor([scale * step], dtype=torch.float64) if math.isfinite(scale * step) else None
    if weights.target is not DEQUANTIZE[1]:
        return None
    steps = get_constant(graph, weights.args[1]).double().reshape(-1)  # type: ignore[arg-type]
    return steps * float(scale)
