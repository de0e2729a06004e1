"""Keeps float what is float in a Q/DQ graph, against LiteRT's converter.

The converter gives the scale of a quantised tensor to the float operators in front of it as well: through ReLU,
pooling and all that moves values, to the layer before them, whose weights it then quantises by rules of its own (one
scale per tensor), and to all others that read these tensors. So layers that a recipe keeps float would be int8 on
LiteRT alone. A leaky ReLU in front of the quantiser stops it; its slope is as near to 1 as a float32 can be below it,
for the converter takes one of slope 1 out.

It also makes a concatenation int8 if a part of it is, and gives the other parts, float as they are, the scale of the
first. There the parts that were int8 get a stop each.
"""

from __future__ import annotations

from typing import Any

__all__ = ["hold_floats"]

SLOPE = 1 - 2**-24


def hold_floats(graph: Any) -> int:
    """Put the stop before each quantiser that needs it, in place; ``graph`` is a ``torch.fx.GraphModule``.

    Returns:
        How many were put in.
    """
    import torch

    quantized, stop = torch.ops.quantized_decomposed, torch.ops.aten.leaky_relu.default
    held: dict[Any, Any] = {}
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.target == quantized.quantize_per_tensor.default else None
        if source is None or source.op != "call_function" or not _spreads(source):
            continue
        if source not in held:
            with graph.graph.inserting_after(source):
                held[source] = graph.graph.call_function(stop, (source, SLOPE))
            held[source].meta["val"] = source.meta.get("val")
        node.args = (held[source], *node.args[1:])
    parted = sum(
        _part(graph, node, stop) for node in list(graph.graph.nodes) if node.target is torch.ops.aten.cat.default
    )
    if held or parted:
        graph.recompile()
    return len(held) + parted


def _part(graph: Any, join: Any, stop: Any) -> int:
    """Put a stop behind each int8 part of the concatenation ``join`` where what it gives is float; returns how many."""
    import torch

    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    parts = list(join.args[0])
    stored = [part for part in parts if _is_stored(part)]
    if not stored or (len(stored) == len(parts) and all(user.target == quantize for user in join.users)):
        return 0
    held: dict[Any, Any] = {}
    for part in dict.fromkeys(stored):
        with graph.graph.inserting_before(join):
            held[part] = graph.graph.call_function(stop, (part, SLOPE))
        held[part].meta["val"] = part.meta.get("val")
    join.args = ([held.get(part, part) for part in parts], *join.args[1:])
    return len(held)


def _is_stored(node: Any) -> bool:
    """Whether ``node`` gives values of an int8 tensor, at most moved."""
    if node.target in _dequantizers():
        return True
    sources = [source for source in node.all_input_nodes if source.op != "get_attr"]
    return node.target in _carriers() and len(sources) == 1 and _is_stored(sources[0])


def _spreads(node: Any) -> bool:
    """Whether a scale behind ``node`` would make something int8 that is float in the graph."""
    import torch

    aten, dequantize = torch.ops.aten, _dequantizers()
    if node.target in _layers():
        return node.args[1].target not in dequantize  # a float weight: a layer that is kept float
    if node.target not in _carriers():
        return False  # computes in float as long as it reads float
    rounds = node.target in (
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool2d.default,
        aten.adaptive_avg_pool1d.default,
    )
    for source in node.all_input_nodes:
        if source.target in dequantize or source.op == "get_attr":
            continue
        parts = isinstance(source.meta.get("val"), (tuple, list))
        if parts and all(item.target in dequantize for item in source.all_input_nodes):
            continue  # one part of an int8 tensor
        if rounds or len(source.users) > 1 or _spreads(source):
            return True
    return False


def _dequantizers() -> tuple[Any, ...]:
    import torch

    quantized = torch.ops.quantized_decomposed
    return (quantized.dequantize_per_tensor.default, quantized.dequantize_per_channel.default)


def _layers() -> tuple[Any, ...]:
    import torch

    aten = torch.ops.aten
    return (
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv3d.default,
        aten.conv_transpose1d.default,
        aten.conv_transpose2d.input,
        aten.conv_transpose3d.input,
        aten.linear.default,
    )


def _carriers() -> tuple[Any, ...]:
    """Operators whose input and output have one scale in LiteRT."""
    import operator

    import torch

    aten = torch.ops.aten
    return (
        aten.adaptive_avg_pool1d.default,
        aten.adaptive_avg_pool2d.default,
        aten.avg_pool2d.default,
        aten.cat.default,
        aten.chunk.default,
        aten.clamp.default,
        aten.constant_pad_nd.default,
        aten.expand.default,
        aten.flatten.using_ints,
        aten.flip.default,
        aten.hardtanh.default,
        aten.max_pool2d.default,
        aten.pad.default,
        aten.permute.default,
        aten.pixel_shuffle.default,
        aten.pixel_unshuffle.default,
        aten.relu.default,
        aten.relu6.default,
        aten.reshape.default,
        aten.roll.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.transpose.int,
        aten.unbind.int,
        aten.unsqueeze.default,
        aten.upsample_bilinear2d.vec,
        aten.upsample_nearest2d.vec,
        aten.view.default,
        operator.getitem,
    )
