"""SmoothQuant where engines can compute it: behind float values, not behind int8 ones.

G. Xiao et al., arXiv:2211.10438, bring the channels that a linear layer reads to one size and scale its weights the
other way. Behind a layer norm or an attention, which stay float here, that is a float product, which engines take. NNCF
does it behind int8 values too (linear, ReLU, linear), where the product becomes one of int8 values: LiteRT rounds its
factors in one scale, and a channel that no picture wakes has a factor of 50,000, beside which all others become 0.
"""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from edgecv.optimize.graph import DEQUANTIZE, LINEAR, QUANTIZE, finish, get_constant, set_constant
from edgecv.optimize.rules import Plan

__all__ = ["unsmooth_int8"]

_MODULE = "nncf_smooth_quant"


def unsmooth_int8(graph: GraphModule, plan: Plan) -> int:
    """Take SmoothQuant's products behind int8 values out of a Q/DQ ``graph`` and its ``plan``; returns how many.

    The layers read the int8 values as they are, and their weights are what they were.
    """
    count = 0
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not str(node.target).endswith(_MODULE):
            continue
        source: Any = node.args[0]
        layers = _layers(node)
        if source.target is not DEQUANTIZE[0] or layers is None:
            continue
        factors = graph.get_submodule(str(node.target)).get_buffer("_scale_value").flatten()
        for layer in layers:
            weight = _stored(layer.args[1])
            set_constant(graph, str(weight.target), get_constant(graph, weight).detach() * factors)
            layer.update_arg(0, source)
        plan.why.pop(node.name, None)
        plan.edges = [(edge, layer) for edge, layer in plan.edges if edge.name != node.name]
        count += 1
    finish(graph)
    return count


def _layers(node: Node) -> list[Node] | None:
    """The linear layers that read the product through its Q/DQ pair; None where others read it."""
    quantised = list(node.users)
    read = [step for store in quantised for step in store.users]
    layers = [layer for step in read for layer in step.users]
    known = all(store.target is QUANTIZE[0] for store in quantised) and all(
        layer.target is LINEAR and layer.args[0] in read for layer in layers
    )
    return layers if known else None


def _stored(weight: Any) -> Node:
    """The constant behind a weight's Q/DQ pair."""
    while weight.op != "get_attr":
        weight = weight.args[0]
    assert isinstance(weight, Node)
    return weight
