"""Passes that rewrite a graph into the form that engines fuse: batch norms folded, global pools as means."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from edgecv.optimize.graph import (
    CONVOLUTIONS,
    LINEAR,
    TRANSPOSED,
    fake,
    finish,
    get_constant,
    groups_of,
    replace_argument,
    set_constant,
    shape_of,
)

__all__ = ["FOLDED", "FoldedNorm", "fold_batch_norms", "spell_batch_norms", "spell_global_pools"]

aten = torch.ops.aten

BATCH_NORM = aten._native_batch_norm_legit_no_training.default
FOLDED = "folded_norms"
"""Key of a graph's ``meta`` with the `FoldedNorm` of each layer that took one in, by the layer's name."""


@dataclass(frozen=True)
class FoldedNorm:
    """What a batch norm knew of the layer it went into, as if that layer had had its folded weight and no bias.

    ``mean``, ``variance`` and ``epsilon`` `(C,)` are of the layer's result; ``momentum`` (0..1) is the share of
    a new batch in the running statistics. With them the norm can be brought back for training.
    """

    mean: Tensor
    variance: Tensor
    epsilon: Tensor
    momentum: float


def fold_batch_norms(graph: GraphModule) -> int:
    """Put every batch norm in evaluation mode into the convolution or linear before it; returns how many.

    The graph's ``meta`` keeps under `FOLDED` what they knew.
    """
    folded = 0
    records: dict[str, FoldedNorm] = graph.meta.setdefault(FOLDED, {})
    for node in list(graph.graph.nodes):
        if node.target is not BATCH_NORM or not _only_first_result_used(node):
            continue
        producer = node.args[0]
        if not isinstance(producer, Node) or len(producer.users) != 1 or not _can_fold_into(producer):
            continue
        records[producer.name] = _record(graph, producer, node)
        _fold(graph, producer, node)
        for user in list(node.users):
            user.replace_all_uses_with(producer)
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
        folded += 1
    finish(graph)
    return folded


def spell_global_pools(graph: GraphModule) -> int:
    """Write average pools over the whole picture as means over height and width; returns how many.

    The same numbers, but engines let a mean change its scale, and a pool not.
    """
    spelled = 0
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not _is_global_pool(node):
            continue
        with graph.graph.inserting_before(node):
            mean = graph.graph.call_function(aten.mean.dim, (node.args[0], [2, 3], True))
        mean.meta = dict(node.meta)
        node.replace_all_uses_with(mean)
        graph.graph.erase_node(node)
        spelled += 1
    finish(graph)
    return spelled


def spell_batch_norms(graph: GraphModule) -> int:
    """Write the batch norms that no layer could take (on pictures) as 1x1 depthwise convolutions; returns how many.

    The same numbers. For int8: engines compute such a convolution in integers, and a batch norm in float.
    """
    spelled = 0
    for node in list(graph.graph.nodes):
        if node.target is not BATCH_NORM or not _only_first_result_used(node):
            continue
        shape, variance = shape_of(node.args[0]), node.args[4]
        if shape is None or len(shape) != 4 or not isinstance(variance, Node) or variance.op != "get_attr":
            continue
        gain, offset = _gain_and_offset(graph, node)
        stem = str(variance.target).rpartition(".")[0]
        names = [f"{stem}.gain", f"{stem}.offset"]
        set_constant(graph, names[0], gain.reshape(-1, 1, 1, 1))
        set_constant(graph, names[1], offset)
        with graph.graph.inserting_before(node):
            constants = [graph.graph.get_attr(name) for name in names]
            settings = ([1, 1], [0, 0], [1, 1], len(gain))
            layer = graph.graph.call_function(CONVOLUTIONS[1], (node.args[0], *constants, *settings))
        layer.meta = {**node.meta, "val": node.meta["val"][0]}
        for constant, value in zip(constants, (gain.reshape(-1, 1, 1, 1), offset), strict=True):
            constant.meta["val"] = fake(layer, value)
        for user in list(node.users):
            user.replace_all_uses_with(layer)
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
        spelled += 1
    finish(graph)
    return spelled


def _gain_and_offset(graph: GraphModule, norm: Node) -> tuple[Tensor, Tensor]:
    """A batch norm as ``x * gain + offset``, both `(C,)`."""
    _, gamma, beta, mean, variance, _, epsilon = norm.args
    center, spread = get_constant(graph, mean).double(), get_constant(graph, variance).double()  # type: ignore[arg-type]
    gain = torch.rsqrt(spread + float(epsilon))  # type: ignore[arg-type]
    if isinstance(gamma, Node):
        gain = gain * get_constant(graph, gamma)
    offset = -center * gain
    if isinstance(beta, Node):
        offset = offset + get_constant(graph, beta)
    return gain.float(), offset.float()


def _record(graph: GraphModule, producer: Node, norm: Node) -> FoldedNorm:
    _, gamma, _, mean, variance, momentum, epsilon = norm.args
    center, spread = get_constant(graph, mean).double(), get_constant(graph, variance).double()  # type: ignore[arg-type]
    factor = torch.rsqrt(spread + float(epsilon))  # type: ignore[arg-type]
    if isinstance(gamma, Node):
        factor = factor * get_constant(graph, gamma)
    if len(producer.args) > 2 and isinstance(producer.args[2], Node):
        center = center - get_constant(graph, producer.args[2])
    square = factor.square()
    return FoldedNorm(
        mean=(center * factor).detach().float(),
        variance=(spread * square).detach().float(),
        epsilon=(float(epsilon) * square).detach().float(),  # type: ignore[arg-type]
        momentum=float(momentum),  # type: ignore[arg-type]
    )


def _only_first_result_used(node: Node) -> bool:
    return all(user.target is operator.getitem and user.args[1] == 0 for user in node.users)


def _can_fold_into(node: Node) -> bool:
    weights = [*node.args[1:3]]
    if any(isinstance(item, Node) and item.op != "get_attr" for item in weights):
        return False
    if node.target is LINEAR:
        shape = shape_of(node.args[0])
        return shape is not None and len(shape) == 2
    return node.target in CONVOLUTIONS or (node.target in TRANSPOSED and groups_of(node) == 1)


def _fold(graph: GraphModule, producer: Node, norm: Node) -> None:
    _, gamma, beta, mean, variance, _, epsilon = norm.args
    weight = get_constant(graph, producer.args[1])  # type: ignore[arg-type]
    bias_node = producer.args[2] if len(producer.args) > 2 else None
    bias = None if bias_node is None else get_constant(graph, bias_node)  # type: ignore[arg-type]
    values = [None if item is None else get_constant(graph, item) for item in (gamma, beta, mean, variance)]  # type: ignore[arg-type]
    scale, shift, center, spread = values
    assert center is not None
    assert spread is not None
    fuse: Any = fuse_linear_bn_weights if producer.target is LINEAR else fuse_conv_bn_weights
    options = {} if producer.target is LINEAR else {"transpose": producer.target in TRANSPOSED}
    scale = torch.ones_like(spread) if scale is None else scale
    shift = torch.zeros_like(spread) if shift is None else shift
    with torch.no_grad():
        new_weight, new_bias = fuse(weight, bias, center, spread, epsilon, scale, shift, **options)
    replace_argument(graph, producer, 1, new_weight)
    replace_argument(graph, producer, 2, new_bias)
    producer.meta["val"] = norm.meta["val"][0]


def _is_global_pool(node: Node) -> bool:
    before, after = shape_of(node.args[0]) if node.args else None, shape_of(node)
    if before is None or after is None or len(before) != 4 or tuple(after[2:]) != (1, 1):
        return False
    if node.target is aten.adaptive_avg_pool2d.default:
        return True
    if node.target is not aten.avg_pool2d.default or len(node.args) > 3:  # more arguments: padding and its kin
        return False
    kernel: Any = node.args[1]
    height, width = kernel if len(kernel) == 2 else (kernel[0], kernel[0])
    return (height, width) == tuple(before[2:])
