"""What depends on no input is computed once: before quantisation and export, and behind training in int8.

The queries of a DETR pass a whole layer of attention before they meet the picture, and relative positions are looked up
anew for every picture. Rounded to int8 they are noise and no speed; and OpenVINO 2026.4, where some of it is int8 and
some float, computes it right once and wrong from the second picture on.
"""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgecv.optimize.examples import Example, all_inputs
from edgecv.optimize.graph import DEQUANTIZE, QUANTIZE, finish, get_constant, set_constant

__all__ = ["fix_batch", "fold_constants"]

aten = torch.ops.aten

ATTENTION = aten.scaled_dot_product_attention.default
ROUNDINGS = {*QUANTIZE, *DEQUANTIZE}
LEFT = {aten.expand.default, aten.repeat.default, *ROUNDINGS}
"""They stay: repeats give more than they read, and rounding (of weights, too) is for the compilers to see."""
NUMBERS = (int, float, torch.SymInt, torch.SymFloat)


def fold_constants(graph: GraphModule) -> int:
    """Replace what is computed from constants alone by its result; returns how many results there are.

    A tensor that nodes make without reading anything (zeros, a range), and one that is only repeated or rounded, stays
    as it is.
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


def fix_batch(graph: GraphModule, example: Example) -> None:
    """Let a graph that was traced with an open batch axis know the size of ``example``'s, so that more is constant."""
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    sizes: dict[Any, int] = {}
    for node, item in zip(placeholders, all_inputs(example), strict=True):
        known = zip(node.meta["val"].shape, item.shape, strict=True)
        sizes |= {axis.node.expr: size for axis, size in known if isinstance(axis, torch.SymInt)}
    for node in list(graph.graph.nodes):
        length = node.meta.get("val")
        if node.target is not aten.sym_size.int or not isinstance(length, torch.SymInt):
            continue
        size = sizes.get(length.node.expr)
        if size is not None:
            for user in list(node.users):
                user.args, user.kwargs = map_arg((user.args, user.kwargs), partial(_replaced, node, size))
            graph.graph.erase_node(node)
    finish(graph)


def _replaced(node: Node, value: int, found: Node) -> Any:
    return value if found is node else found


def _is_fixed(node: Node) -> bool:
    """Whether the node gives the same for the same arguments, as a tensor, a row of tensors or a number."""
    if node.target in ROUNDINGS:  # torchao gives them no shape
        return True
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(value, (Tensor, tuple, list, *NUMBERS)):
        return False
    if node.target is operator.getitem or isinstance(value, NUMBERS):
        return True
    if node.target is ATTENTION:  # as random as its dropout, the fifth of its arguments
        return not (node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0))
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded not in node.target.tags


def _computed(node: Node) -> tuple[Node, ...]:
    """``node``, if it is worth storing, or those behind it that are."""
    if node.op == "get_attr" or not node.all_input_nodes or isinstance(node.meta.get("val"), NUMBERS):
        return ()
    if node.target in LEFT:
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
