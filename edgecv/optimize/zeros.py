"""Zeros of sparse weights stay zeros while a graph trains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgecv.optimize.graph import CONVOLUTIONS, LINEAR, TRANSPOSED, get_constant

__all__ = ["hold_zeros"]

SPARSE_SHARE = 0.1
"""Dense weights have next to no zeros; from this share on they are there on purpose (2:4, unstructured pruning)."""


def hold_zeros(graph: GraphModule) -> int:
    """From now on no gradient reaches the zeros of sparse weights of layers; returns how many tensors.

    ``graph`` is a captured one whose weights are parameters. A weight that is 0 and has no gradient stays exactly 0
    under SGD and AdamW (decay shrinks 0 to 0), and 0 is a level of every int8 scale.
    """
    held = 0
    for node in graph.graph.nodes:
        if node.target not in (*CONVOLUTIONS, *TRANSPOSED, LINEAR):
            continue
        source = node.args[1]
        if getattr(source, "op", "") != "get_attr":
            continue
        weight = get_constant(graph, source)
        mask = weight.detach() != 0
        if weight.requires_grad and float(mask.float().mean()) <= 1.0 - SPARSE_SHARE:
            weight.register_hook(_masking(mask))
            held += 1
    return held


def _masking(mask: Tensor) -> Callable[[Tensor], Tensor]:
    def mask_gradient(gradient: Tensor) -> Tensor:
        return torch.where(mask.to(gradient.device), gradient, torch.zeros_like(gradient))

    return mask_gradient
