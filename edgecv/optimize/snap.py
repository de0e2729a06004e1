"""Passes that put the numbers of a Q/DQ graph on the grids that integer engines use."""

from __future__ import annotations

import math
from typing import Any

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

__all__ = ["snap_biases", "snap_weights"]


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
