"""Weights that several layers read, such as a head that works on every level of a pyramid."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch.fx import GraphModule, Node

from edgecv.optimize.graph import CONVOLUTIONS, DEQUANTIZE, LINEAR, TRANSPOSED, finish

__all__ = ["share_weights"]


def share_weights(graph: GraphModule, layers: Collection[str]) -> int:
    """Give int8 weights to every one of the ``layers`` (names of nodes) of a Q/DQ graph; returns how many lacked them.

    NNCF quantises a constant for one of the layers that read it and leaves the others float.
    """
    quantised: dict[str, Node] = {}
    for node in graph.graph.nodes:
        source = _parameter(node) if node.target in DEQUANTIZE else None
        if source is not None:
            quantised.setdefault(str(source.target), node)
    given = 0
    for node in graph.graph.nodes:
        weight: Any = node.args[1] if node.target in (*CONVOLUTIONS, *TRANSPOSED, LINEAR) else None
        if node.name not in layers or not isinstance(weight, Node) or weight.op != "get_attr":
            continue
        known = quantised.get(str(weight.target))
        if known is not None:
            _move_up(graph, known)
            node.args = (node.args[0], known, *node.args[2:])
            given += 1
    finish(graph)
    return given


def _parameter(dequantize: Node) -> Node | None:
    """The constant that the Q/DQ pair holds; None for an activation."""
    stored: Any = dequantize.args[0]
    source = stored.args[0] if stored.op == "call_function" else None
    return source if isinstance(source, Node) and source.op == "get_attr" else None


def _move_up(graph: GraphModule, node: Node) -> None:
    """Move ``node`` and the constants that it is made of to the front of the graph."""
    parts: list[Node] = []
    _collect(node, parts)
    place = [item for item in graph.graph.nodes if item.op == "placeholder"][-1]
    for part in parts:
        place.append(part)
        place = part


def _collect(node: Node, parts: list[Node]) -> None:
    for source in node.all_input_nodes:
        _collect(source, parts)
    if node not in parts:
        parts.append(node)
