"""Adaptive average pools whose windows are not all of one size, written as pools that every engine has."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgecv.optimize.graph import finish, shape_of

__all__ = ["spell_uneven_pools", "windows"]

aten = torch.ops.aten


def windows(length: int, count: int) -> list[tuple[int, int]]:
    """Where each of ``count`` windows over ``length`` places starts and ends, as torch's adaptive pools have them.

    They overlap by one place where ``count`` does not divide ``length``, and repeat places where there are more of
    them than places.
    """
    return [(part * length // count, -(-(part + 1) * length // count)) for part in range(count)]


def spell_uneven_pools(graph: GraphModule) -> int:
    """Write adaptive average pools (2-D) over sides that their windows do not divide as slices and plain pools.

    Returns how many. The same numbers: rows first, then columns, each window a slice and a mean over it. Engines have
    no such pool: exporters gather single pixels instead, or give up. The pyramid of PSPNet (arXiv:1612.01105) needs
    them at nearly every size.
    """
    spelled = 0
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target is not aten.adaptive_avg_pool2d.default:
            continue
        before, after = shape_of(node.args[0]), shape_of(node)
        if before is None or after is None or len(before) != 4:
            continue
        if all(int(long) % int(short) == 0 for long, short in zip(before[2:], after[2:], strict=True)):
            continue
        made: Any = node.args[0]
        for axis in (2, 3):
            made = _pool_axis(graph, node, made, axis, int(after[axis]))
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)
        spelled += 1
    finish(graph)
    return spelled


def _pool_axis(graph: GraphModule, pool: Node, source: Node, axis: int, count: int) -> Node:
    """``source`` with ``count`` means along ``axis``: one pool where the windows are even, else one for each."""
    shape = shape_of(source)
    assert shape is not None
    length = int(shape[axis])
    if length == count:
        return source
    if length % count == 0:
        return _mean(graph, pool, source, axis, length // count)
    parts = []
    for start, end in windows(length, count):
        part = _call(graph, pool, aten.slice.Tensor, (source, axis, start, end))
        parts.append(_mean(graph, pool, part, axis, end - start) if end - start > 1 else part)
    return _call(graph, pool, aten.cat.default, (parts, axis))


def _mean(graph: GraphModule, pool: Node, source: Node, axis: int, size: int) -> Node:
    kernel = [size, 1] if axis == 2 else [1, size]
    return _call(graph, pool, aten.avg_pool2d.default, (source, kernel, kernel))


def _call(graph: GraphModule, pool: Node, target: Any, arguments: tuple[Any, ...]) -> Node:
    """A node before ``pool`` that counts as the same part of the network."""
    with graph.graph.inserting_before(pool):
        node = graph.graph.call_function(target, arguments)
    node.meta = {key: value for key, value in pool.meta.items() if key != "val"}
    values = torch.fx.node.map_arg(arguments, lambda item: item.meta["val"])
    with torch.no_grad():
        node.meta["val"] = target(*values)
    return node
