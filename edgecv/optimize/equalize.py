"""Cross-layer equalisation: channels whose weights are of very different size are made alike; the network stays.

Where only scale-keeping operators (ReLU, pooling, sums, ...) stand between the layers that make a channel and the
layers that read it, it can be divided by any s > 0 where it is made and multiplied where it is read
(`edgecv.optimize.channels`). With one scale per tensor, a channel 100 times smaller than its neighbour has no int8
steps left.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgecv.optimize.channels import Channels, apply_factors, find_channels, weight_of
from edgecv.optimize.graph import LINEAR, TRANSPOSED, groups_of

__all__ = ["equalize"]

ROUNDS = 20
SETTLED = 0.02
"""Largest change of a channel's scale in a round that counts as none, as |log2|."""
LARGEST = 2.0**20


def equalize(graph: GraphModule) -> int:
    """Equalise every class of channels that allows it, in the float ``graph``; returns how many classes.

    The scale of a channel is `sqrt(largest weight that makes it / largest weight that reads it)`, round after
    round until nothing changes: Nagel et al., arXiv:1906.04721, section 4.1, here also across residual sums and the
    parts of concatenations.
    """
    channels = find_channels(graph)
    if not bool(channels.free.any()):
        return 0
    for _ in range(ROUNDS):
        if _even_out(graph, channels) < SETTLED:
            break
    return int(channels.free.sum())


def _even_out(graph: GraphModule, channels: Channels) -> float:
    """One round; returns the largest change of a scale, as |log2|."""
    empty = torch.zeros(channels.count, dtype=torch.float64)
    made, read = empty, empty
    for node, classes in channels.made.items():
        made = torch.maximum(made, channels.spread(_output_sizes(graph, node), classes))
    for node, classes in channels.read.items():
        read = torch.maximum(read, channels.spread(_input_sizes(graph, node), classes))
    fit = channels.free & (made > 0) & (read > 0)
    scales = torch.where(fit, (made / read.clamp_min(1e-300)).sqrt(), torch.ones_like(made))
    scales = scales.clamp(1 / LARGEST, LARGEST)
    apply_factors(graph, channels, 1 / scales)
    return float(scales.log2().abs().max())


def _output_sizes(graph: GraphModule, node: Node) -> Tensor:
    """Largest weight that makes each output channel, `(C,)`."""
    axis = 1 if node.target in TRANSPOSED else 0
    return weight_of(graph, node).abs().movedim(axis, 0).flatten(1).amax(dim=1)


def _input_sizes(graph: GraphModule, node: Node) -> Tensor:
    """Largest weight that reads each input channel, `(C,)`."""
    weight, groups = weight_of(graph, node).abs(), 1 if node.target is LINEAR else groups_of(node)
    if node.target in TRANSPOSED:
        return weight.flatten(1).amax(dim=1)
    parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return parts.amax(dim=(1, 3)).reshape(-1)
