"""What depends on no input is computed once, before anything is quantised or compiled.

The queries of a DETR pass a whole layer of attention before they meet the picture, and relative positions are looked up
anew for every picture. Rounded to int8 they are noise and no speed; and OpenVINO 2026.4, where some of it is int8 and
some float, computes it right once and wrong from the second picture on.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgecv.optimize.graph import finish, get_constant, set_constant

__all__ = ["fold_constants"]

aten = torch.ops.aten

ATTENTION = aten.scaled_dot_product_attention.default
REPEATS = {aten.expand.default, aten.repeat.default}
"""What they give is larger than what they read, and no work: they stay."""


def fold_constants(graph: GraphModule) -> int:
    """Replace what is computed from constants alone by its result; returns how many results there are.

    A tensor that nodes make without reading anything (zeros, a range), and one that is only repeated, stays as it is.
    """
    constant: set[Node] = set()
    for node in graph.graph.nodes:
        if node.op == "get_attr" or (_is_fixed(node) and all(source in constant for source in node.all_input_nodes)):
            constant.add(node)
    ends = [node for node in graph.graph.nodes if node in constant and any(user not in constant for user in node.users)]
    results = dict.fromkeys(source for node in ends for source in _computed(node))
    known: dict[Node, Any] = {}
    for node in results:
        value = _value(graph, node, known)
        name = set_constant(graph, f"constant_{node.name}", value)
        with graph.graph.inserting_before(node):
            made = graph.graph.get_attr(name)
        made.meta = {"val": node.meta["val"]}
        node.replace_all_uses_with(made)
    for node in reversed(list(graph.graph.nodes)):  # torch would keep attention, as it might be random
        if node in constant and not node.users:
            graph.graph.erase_node(node)
    finish(graph)
    return len(results)


def _is_fixed(node: Node) -> bool:
    """Whether the node gives the same for the same arguments, as a tensor or a row of tensors."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), (Tensor, tuple, list)):
        return False
    if node.target is operator.getitem:
        return True
    if node.target is ATTENTION:  # as random as its dropout, the fifth of its arguments
        return not (node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0))
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded not in node.target.tags


def _computed(node: Node) -> tuple[Node, ...]:
    """``node``, if it is worth storing, or those behind it that are."""
    if node.op == "get_attr" or not node.all_input_nodes:
        return ()
    if node.target in REPEATS:
        return tuple(found for source in node.all_input_nodes for found in _computed(source))
    return (node,)


def _value(graph: GraphModule, node: Node, known: dict[Node, Any]) -> Any:
    """What ``node`` gives; all that it reads is constant."""
    pending = [node]
    while pending:
        last = pending[-1]
        missing = [source for source in last.all_input_nodes if source not in known]
        if missing:
            pending += missing
            continue
        pending.pop()
        if last.op == "get_attr":
            known[last] = get_constant(graph, last).detach()
            continue
        arguments = map_arg(last.args, known.__getitem__)
        options = map_arg(last.kwargs, known.__getitem__)
        with torch.no_grad():
            known[last] = last.target(*arguments, **options)  # type: ignore[operator]
    return known[node]
