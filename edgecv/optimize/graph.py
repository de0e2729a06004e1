"""Graphs of ATen operators: their constants, where nodes come from, and the removal of no-ops.

A graph is a ``torch.fx.GraphModule`` with its weights as attributes, as ``torch.export`` gives it.
All passes over graphs change them in place.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # defines the quantized_decomposed operators
from torch import Tensor
from torch.fx import GraphModule, Node

__all__ = [
    "CONVOLUTIONS",
    "DEQUANTIZE",
    "LINEAR",
    "QUANTIZE",
    "TRANSPOSED",
    "fake",
    "finish",
    "get_constant",
    "groups_of",
    "module_path",
    "remove_no_ops",
    "replace_argument",
    "set_constant",
    "shape_of",
]

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

QUANTIZE = (quantized.quantize_per_tensor.default, quantized.quantize_per_channel.default)
DEQUANTIZE = (quantized.dequantize_per_tensor.default, quantized.dequantize_per_channel.default)
CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
LINEAR = aten.linear.default

# Operators that give their first input back as it is: always, or where the shape stays the same.
ALWAYS_NO_OP = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
}
CHECK = aten._assert_tensor_metadata.default
VIEWS = {aten.view.default, aten._unsafe_view.default}
NO_OP_OF_SAME_SHAPE = {
    aten._unsafe_view.default,
    aten.expand.default,
    aten.flatten.using_ints,
    aten.reshape.default,
    aten.slice.Tensor,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.view.default,
}
CASTS = {aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.type_as.default}


def remove_no_ops(graph: GraphModule) -> int:
    """Take out nodes that only pass their input on (alias, clone, dropout, full slices, ...); returns how many."""
    removed = 0
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is CHECK:
            graph.graph.erase_node(node)
        elif _is_no_op(node):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            removed += 1
        elif node.target in VIEWS:  # the copy that made the tensor contiguous for it may be gone
            node.target = aten.reshape.default
    finish(graph)
    return removed


def get_constant(graph: GraphModule, node: Node) -> Tensor:
    """The tensor that a ``get_attr`` node stands for."""
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value


def set_constant(graph: GraphModule, name: str, value: Tensor) -> str:
    """Store ``value`` under the dotted ``name`` (replacing a tensor there); returns the name."""
    *path, leaf = name.split(".")
    owner: torch.nn.Module = graph
    for part in path:
        if not hasattr(owner, part):
            owner.add_module(part, torch.nn.Module())
        owner = getattr(owner, part)
    if hasattr(owner, leaf):
        delattr(owner, leaf)
    if value.is_floating_point():
        owner.register_parameter(leaf, torch.nn.Parameter(value.detach().clone()))
    else:
        owner.register_buffer(leaf, value.detach().clone())
    return name


def replace_argument(graph: GraphModule, node: Node, position: int, value: Tensor) -> None:
    """Give ``node`` its own constant at ``position`` (1 weight, 2 bias), named after the layer."""
    weight_node = node.args[1]
    assert isinstance(weight_node, Node)
    old = node.args[position] if len(node.args) > position else None
    if isinstance(old, Node) and old.op == "get_attr" and len(old.users) == 1:
        set_constant(graph, str(old.target), value)
        old.meta["val"] = fake(node, value)
        return
    stem = str(weight_node.target).rpartition(".")[0] if weight_node.op == "get_attr" else ""
    leaf = ("input", "weight", "bias")[position]
    name = f"{stem}.{leaf}" if stem else f"{node.name}_{leaf}"
    taken = {str(other.target) for other in graph.graph.nodes if other.op == "get_attr"}
    while name in taken:
        name += "_"
    set_constant(graph, name, value)
    with graph.graph.inserting_before(node):
        constant = graph.graph.get_attr(name)
    constant.meta["val"] = fake(node, value)
    arguments = [*node.args, *[None] * (position + 1 - len(node.args))]
    arguments[position] = constant
    node.args = tuple(arguments)


def module_path(node: Node) -> tuple[str, ...]:
    """Names of the modules of the original network that the node came from, outermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    return tuple(path for path, _ in stack.values() if path)


def groups_of(node: Node) -> int:
    """Groups of a convolution node (1 where the node does not say)."""
    position = 6  # both kinds: input, weight, bias, stride, padding, then one more, then groups
    value = node.args[position] if len(node.args) > position else node.kwargs.get("groups", 1)
    return int(value)  # type: ignore[arg-type]


def shape_of(node: Any) -> tuple[Any, ...] | None:
    """Shape of a node's result (lengths can be symbols); None where it is no tensor."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None


def finish(graph: GraphModule) -> None:
    """Drop what nothing reads and make the graph runnable again; the last line of every pass."""
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()


def _is_no_op(node: Node) -> bool:
    source: Any = node.args[0] if node.args else None
    before, after = shape_of(source), shape_of(node)
    if before is None or after is None:
        return False
    if node.target in ALWAYS_NO_OP:
        return True
    same_shape = len(before) == len(after) and all(a is b or bool(a == b) for a, b in zip(before, after, strict=True))
    if node.target in CASTS:
        return same_shape and bool(source.meta["val"].dtype == node.meta["val"].dtype)
    if node.target is aten.dropout.default:
        return not node.args[2] or not node.args[1]
    if node.target in (aten.permute.default, aten.transpose.int):
        return _keeps_order(node, len(before))
    return node.target in NO_OP_OF_SAME_SHAPE and same_shape and _is_whole(node)


def _is_whole(node: Node) -> bool:
    """A slice of full length starts at 0 with step 1; the others on the list need no more checks."""
    return node.target is not aten.slice.Tensor or [*node.args[4:]] in ([], [1])


def _keeps_order(node: Node, rank: int) -> bool:
    if node.target is aten.transpose.int:
        one, other = (int(axis) for axis in node.args[1:3])  # type: ignore[arg-type]
        return (one - other) % rank == 0
    order: Any = node.args[1]
    return [axis % rank for axis in order] == list(range(rank))


def fake(like: Node, value: Tensor) -> Tensor:
    """``value`` without its data, as the tracer keeps tensors in the metadata of nodes."""
    known = like.meta["val"]
    return known.fake_mode.from_tensor(value.detach()) if hasattr(known, "fake_mode") else value.detach()
