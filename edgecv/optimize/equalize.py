"""Cross-layer equalisation: channels of very different size are made alike, and the network stays the same.

Where only scale-keeping operators (ReLU, pooling, sums, ...) stand between the layers that make a tensor
and the layers that read it, channel i can be divided by any s > 0 where it is made and multiplied where it
is read. With one scale per tensor, a channel 100 times smaller than its neighbour has no int8 steps left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgecv.optimize.graph import (
    CONVOLUTIONS,
    LINEAR,
    TRANSPOSED,
    get_constant,
    groups_of,
    replace_argument,
    shape_of,
)

__all__ = ["Group", "equalize", "groups_of_channels", "scale_input", "scale_output"]

aten = torch.ops.aten

ROUNDS = 20
SETTLED = 0.02
"""Largest change of a channel's scale in a round that counts as none."""
LARGEST = 2.0**20

EVEN = {
    aten.adaptive_avg_pool2d.default,
    aten.add.Tensor,
    aten.avg_pool2d.default,
    aten.constant_pad_nd.default,
    aten.leaky_relu.default,
    aten.max_pool2d.default,
    aten.mean.dim,
    aten.pad.default,
    aten.relu.default,
    aten.slice.Tensor,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest2d.vec,
}
FLATTEN = {aten.flatten.using_ints, aten.reshape.default, aten.view.default, aten.squeeze.dims}


@dataclass
class Group:
    """Tensors whose channels must be scaled alike: who makes them, who reads and sums them, and what forbids it."""

    makers: list[Node] = field(default_factory=list)
    readers: list[Node] = field(default_factory=list)
    sums: list[Node] = field(default_factory=list)
    blocked: bool = False


def equalize(graph: GraphModule) -> int:
    """Equalise every group of channels that allows it, in the float ``graph``; returns how many groups.

    The scale of a channel is `sqrt(largest weight that makes it / largest weight that reads it)`, round after
    round until nothing changes: Nagel et al., arXiv:1906.04721, section 4.1, here also across residual sums.
    """
    groups = [group for group in groups_of_channels(graph) if not group.blocked and group.makers and group.readers]
    for _ in range(ROUNDS):
        changes = [_even_out(graph, group) for group in groups]
        if not changes or max(changes) < SETTLED:
            break
    graph.recompile()
    return len(groups)


def groups_of_channels(graph: GraphModule) -> list[Group]:
    """The sets of tensors that share their channels, found along the graph."""
    parent: dict[Node, Node] = {}
    blocked: set[Node] = set()
    nodes = [node for node in graph.graph.nodes if node.op != "get_attr"]
    for node in nodes:
        sources = [item for item in node.all_input_nodes if item.op != "get_attr"]
        if node.op == "call_function" and _is_layer(node):
            if sources != [node.args[0]]:
                blocked.update((node, *sources))
        elif node.op == "call_function" and _keeps_channels(node):
            for source in sources:
                parent[_root(parent, source)] = _root(parent, node)
        else:
            blocked.update((node, *sources))
    found: dict[Node, Group] = {}
    for node in nodes:
        group = found.setdefault(_root(parent, node), Group())
        group.blocked |= node in blocked
        if node.op == "call_function" and _is_layer(node):
            group.makers.append(node)
            found.setdefault(_root(parent, node.args[0]), Group()).readers.append(node)
        elif node.target is aten.add.Tensor:
            group.sums.append(node)
    return list(found.values())


def _root(parent: dict[Node, Node], node: Node) -> Node:
    while parent.setdefault(node, node) is not node:
        node = parent[node]
    return node


def _is_layer(node: Node) -> bool:
    if node.target not in (*CONVOLUTIONS, LINEAR) and not (node.target in TRANSPOSED and groups_of(node) == 1):
        return False
    constants = [item for item in node.args[1:3] if item is not None]
    if not all(isinstance(item, Node) and item.op == "get_attr" and len(item.users) == 1 for item in constants):
        return False
    shape = shape_of(node)
    return node.target is not LINEAR or (shape is not None and len(shape) == 2)


def _keeps_channels(node: Node) -> bool:
    """Whether ``node`` treats each channel (axis 1) alone, and gives back s times as much for s times its input."""
    if node.target in FLATTEN:  # (N, C, 1, 1) to (N, C)
        before, after = shape_of(node.args[0]), shape_of(node)
        return before is not None and after is not None and before[:2] == after and set(before[2:]) == {1}
    if node.target not in EVEN or any(item.op == "get_attr" for item in node.all_input_nodes):
        return False
    shapes = [shape_of(item) for item in (*node.all_input_nodes, node)]
    if any(shape is None or len(shape) < 2 for shape in shapes) or len({shape[1] for shape in shapes if shape}) != 1:
        return False
    if node.target is aten.add.Tensor:
        return len(node.all_input_nodes) == 2 and len(set(shapes)) == 1
    if node.target is aten.mean.dim:
        axes: Any = node.args[1]
        return all(axis % len(shapes[0] or ()) >= 2 for axis in axes) and len(shapes[-1] or ()) >= 2
    if node.target in (aten.constant_pad_nd.default, aten.pad.default):
        return not any(bool(item) for item in node.args[2:])
    return True


def _even_out(graph: GraphModule, group: Group) -> float:
    """One round on one group; returns the largest change of a scale, as |log2|."""
    made = torch.stack([_output_sizes(graph, node) for node in group.makers]).amax(dim=0)
    read = torch.stack([_input_sizes(graph, node) for node in group.readers]).amax(dim=0)
    if made.shape != read.shape:
        return 0.0
    scales = torch.where((made > 0) & (read > 0), (made / read).sqrt(), torch.ones_like(made))
    scales = scales.clamp(1 / LARGEST, LARGEST)
    for node in group.makers:
        scale_output(graph, node, 1 / scales)
    for node in group.readers:
        scale_input(graph, node, scales)
    return float(scales.log2().abs().max())


def _weight(graph: GraphModule, node: Node) -> Tensor:
    return get_constant(graph, node.args[1]).detach().double()  # type: ignore[arg-type]


def _output_axis(node: Node) -> int:
    return 1 if node.target in TRANSPOSED else 0


def _output_sizes(graph: GraphModule, node: Node) -> Tensor:
    return _weight(graph, node).abs().movedim(_output_axis(node), 0).flatten(1).amax(dim=1)


def _input_sizes(graph: GraphModule, node: Node) -> Tensor:
    """Largest weight that reads each input channel, `(C,)`."""
    weight, groups = _weight(graph, node).abs(), 1 if node.target is LINEAR else groups_of(node)
    if node.target in TRANSPOSED:
        return weight.flatten(1).amax(dim=1)
    parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return parts.amax(dim=(1, 3)).reshape(-1)


def scale_output(graph: GraphModule, node: Node, factors: Tensor) -> None:
    """Multiply every output channel of the layer ``node`` by its factor, `(C,)` float64, bias and all."""
    weight = _weight(graph, node)
    shape = [1] * weight.ndim
    shape[_output_axis(node)] = -1
    replace_argument(graph, node, 1, (weight * factors.reshape(shape)).float())
    bias = node.args[2] if len(node.args) > 2 else None
    if isinstance(bias, Node):
        replace_argument(graph, node, 2, (get_constant(graph, bias).double() * factors).float())


def scale_input(graph: GraphModule, node: Node, factors: Tensor) -> None:
    """Multiply what the layer ``node`` makes of each input channel by the channel's factor, `(C,)` float64."""
    weight, groups = _weight(graph, node), 1 if node.target is LINEAR else groups_of(node)
    if node.target in TRANSPOSED:
        scaled = weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
    else:
        parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        scaled = (parts * factors.reshape(groups, 1, -1, 1)).reshape(weight.shape)
    replace_argument(graph, node, 1, scaled.float())
