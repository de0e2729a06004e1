"""Ranges where an activation function is flat need no int8 steps.

A convolution before SiLU may reach -200, and SiLU makes 0 of all that is below -8. If the scale of the convolution's
result had to reach there too, few steps would be left for what counts. So a clamp stands behind such a layer while
ranges are measured; afterwards it goes, because the int8 number saturates where the clamp cut.
"""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule, Node

from edgecv.optimize.graph import CONVOLUTIONS, LINEAR, TRANSPOSED, finish

__all__ = ["FLAT", "guard_flat_ranges", "remove_guards"]

aten = torch.ops.aten
_GUARD = "flat_guard"

FLAT: dict[object, tuple[float, float]] = {
    aten.silu.default: (-8.0, math.inf),  # silu(-8) = -0.003
    aten.hardswish.default: (-3.0, math.inf),
    aten.hardsigmoid.default: (-3.0, 3.0),
    aten.gelu.default: (-5.0, math.inf),
    aten.sigmoid.default: (-8.0, 8.0),  # 1 - sigmoid(8) = 0.0003
    aten.tanh.default: (-4.0, 4.0),
}
"""Outside of these an activation function gives (nearly) the same for all values."""


def guard_flat_ranges(graph: GraphModule) -> int:
    """Put a clamp behind every layer of a captured graph whose result is only read by functions of `FLAT`; how many."""
    guarded = 0
    for node in list(graph.graph.nodes):
        if node.target not in (*CONVOLUTIONS, *TRANSPOSED, LINEAR) or not node.users:
            continue
        if any(user.target not in FLAT for user in node.users):
            continue
        low = min(FLAT[user.target][0] for user in node.users)
        high = max(FLAT[user.target][1] for user in node.users)
        bounds = (low,) if math.isinf(high) else (low, high)
        users = list(node.users)
        with graph.graph.inserting_after(node):
            guard = graph.graph.create_node(
                "call_function", aten.clamp.default, (node, *bounds), name=f"{_GUARD}_{guarded}"
            )
        guard.meta = dict(node.meta)
        for user in users:
            user.replace_input_with(node, guard)
        guarded += 1
    finish(graph)
    return guarded


def remove_guards(graph: GraphModule) -> dict[str, str]:
    """Take the clamps of `guard_flat_ranges` out again; the name of each one's layer by the guard's."""
    removed: dict[str, str] = {}
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.name.startswith(_GUARD) and node.target is aten.clamp.default:
            layer = node.args[0]
            assert isinstance(layer, Node)
            removed[node.name] = layer.name
            node.replace_all_uses_with(layer)
            graph.graph.erase_node(node)
    graph.recompile()
    return removed
