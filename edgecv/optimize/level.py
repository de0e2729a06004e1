"""Levelling: the channels that a depthwise convolution reads are brought to one size, at no cost.

A depthwise convolution has one weight scale for every channel that it reads, and the layer before it one for every
channel that it makes. So where only scale-keeping operators stand between, each channel can be made as large as the
largest: both layers' int8 weights stay what they were, and the tensor between loses no channel to one scale.
For layers that mix channels this is a trade (`edgecv.optimize.equalize`); here it is not.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen

from edgecv.optimize.equalize import Group, groups_of_channels, scale_input, scale_output
from edgecv.optimize.graph import CONVOLUTIONS, get_constant, groups_of

__all__ = ["level_channels"]

MOST = 1024.0
"""No channel is enlarged more: what is so small is noise."""
LARGEST_BIAS = 2.0**24
"""In steps of the accumulator, which has 32 bits; a float32 holds whole numbers up to this."""
INT8 = 127.0
PICTURES = 64


def level_channels(graph: GraphModule, pictures: Iterable[Tensor]) -> tuple[str, ...]:
    """Level every group of channels in the float ``graph`` that only depthwise convolutions read.

    The sizes are the largest values on the first `PICTURES` of ``pictures``, `(1, C, H, W)` float32. The network
    computes the same as before. Returns the names of the tensors (nodes) whose channels now have one size. The scale by
    ranges of activations is that of section 4.1 of Nagel et al., arXiv:1906.04721, with per-channel weights.
    """
    groups = [
        group
        for group in groups_of_channels(graph)
        if not group.blocked and group.makers and _only_depthwise(graph, group)
    ]
    if not groups:
        return ()
    sizes = _sizes(graph, groups, pictures)
    if sizes is None:
        return ()
    for group, size in zip(groups, sizes, strict=True):
        factors = (size.max() / size.clamp_min(1e-30)).clamp(1.0, MOST)
        factors = torch.where(size > 0, factors, torch.ones_like(factors))
        for node in group.readers:
            factors = torch.minimum(factors, _room_of_bias(graph, node, float(size.max())))
        for node in group.makers:
            scale_output(graph, node, factors)
        for node in group.readers:
            scale_input(graph, node, 1 / factors)
    graph.recompile()
    return tuple(dict.fromkeys(_read(node).name for group in groups for node in group.readers))


def _only_depthwise(graph: GraphModule, group: Group) -> bool:
    return bool(group.readers) and all(
        node.target in CONVOLUTIONS and get_constant(graph, node.args[1]).shape[1] == 1 and groups_of(node) > 1  # type: ignore[arg-type]
        for node in group.readers
    )


def _sizes(graph: GraphModule, groups: list[Group], pictures: Iterable[Tensor]) -> list[Tensor] | None:
    """Largest absolute value per channel of what each group's tensors hold, `(C,)` float64."""
    nodes = [(index, node) for index, group in enumerate(groups) for node in _tensors(group)]
    copied = torch.fx.Graph()
    mapping: dict[Node, Node] = {}
    copied.graph_copy(graph.graph, mapping)
    copied.set_codegen(CodeGen())
    copied.output(tuple(mapping[node] for _, node in nodes))
    probe = GraphModule(graph, copied)
    probe.graph.eliminate_dead_code()
    probe.recompile()
    sizes: list[Tensor | None] = [None] * len(groups)
    with torch.no_grad():
        for number, picture in enumerate(pictures):
            if number == PICTURES:
                break
            for (index, _), values in zip(nodes, probe(picture), strict=True):
                found = values.abs().transpose(0, 1).flatten(1).amax(dim=1).double()
                known = sizes[index]
                sizes[index] = found if known is None else torch.maximum(known, found)
    return None if any(item is None for item in sizes) else sizes  # type: ignore[return-value]


def _tensors(group: Group) -> list[Node]:
    """What is stored as int8 of a group: what is read, and the parts of its sums."""
    parts = [source for node in group.sums for source in node.all_input_nodes]
    return list(dict.fromkeys([_read(node) for node in group.readers] + parts))


def _read(node: Node) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    return source


def _room_of_bias(graph: GraphModule, node: Node, size: float) -> Tensor:
    """By how much each channel that ``node`` reads may grow before its bias leaves the accumulator, `(C,)`."""
    weight = get_constant(graph, node.args[1]).detach().double()  # type: ignore[arg-type]
    bias_node = node.args[2] if len(node.args) > 2 else None
    groups = groups_of(node)
    if not isinstance(bias_node, Node):
        return torch.full((groups,), MOST, dtype=torch.float64)
    step = weight.abs().flatten(1).amax(dim=1) / INT8 * (size / INT8)
    bias = get_constant(graph, bias_node).detach().double().abs()
    room = LARGEST_BIAS * step / bias.clamp_min(1e-30)
    return room.reshape(groups, -1).amin(dim=1).clamp(1.0, MOST)
