"""The float graph that quantisation and export work on: functional, no-ops gone, batch norm folded.

A graph here is a ``torch.fx.GraphModule`` of ATen operators with its weights as attributes, as
``torch.export`` gives it. All passes change the graph in place.
"""

from __future__ import annotations

import math
import operator
import warnings
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers the quantized_decomposed operators
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from edgecv.errors import ModelError

__all__ = [
    "capture",
    "fold_batch_norms",
    "get_constant",
    "groups_of",
    "module_path",
    "remove_no_ops",
    "set_constant",
    "snap_biases",
    "snap_weights",
    "spell_global_pools",
]

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

MAX_BATCH = 65536
BATCH_NORM = aten._native_batch_norm_legit_no_training.default
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


def capture(module: torch.nn.Module, example: Tensor, *, dynamic_batch: bool = False) -> GraphModule:
    """Trace ``module`` in evaluation mode into a functional graph without no-ops and batch norms.

    ``example`` is `(N, C, H, W)` float32; its shape becomes the graph's own, but for the batch axis
    where ``dynamic_batch`` is set (training; ``N`` must then be 2 or more). ``module`` is not changed;
    the graph has copies of its weights.

    Raises:
        ModelError: `torch.export` cannot trace the module; the message holds its reason.
    """
    shapes: Any = ({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)},) if dynamic_batch else None
    was_training = [name for name, part in module.named_modules() if part.training]
    module.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            program = torch.export.export(module, (example,), dynamic_shapes=shapes)
            graph = program.run_decompositions({}).module(check_guards=False)
    except Exception as error:  # noqa: BLE001 - tracing runs the model's code, which can raise anything
        raise ModelError(
            f"torch.export cannot trace {type(module).__name__} on an input of shape {tuple(example.shape)}: {error}. "
            "Data-dependent control flow and shapes must leave the forward method (move post-processing out of it)."
        ) from error
    finally:
        for name in was_training:
            module.get_submodule(name).training = True
    assert isinstance(graph, GraphModule)
    _own_constants(graph)
    remove_no_ops(graph)
    fold_batch_norms(graph)
    spell_global_pools(graph)
    return graph


def remove_no_ops(graph: GraphModule) -> int:
    """Take out nodes that only pass their input on (alias, clone, dropout, full slices, ...); returns how many."""
    removed = 0
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and _is_no_op(node):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            removed += 1
    _finish(graph)
    return removed


def fold_batch_norms(graph: GraphModule) -> int:
    """Put every batch norm in evaluation mode into the convolution or linear before it; returns how many."""
    folded = 0
    for node in list(graph.graph.nodes):
        if node.target is not BATCH_NORM or not _only_first_result_used(node):
            continue
        producer = node.args[0]
        if not isinstance(producer, Node) or len(producer.users) != 1 or not _can_fold_into(producer):
            continue
        _fold(graph, producer, node)
        for user in list(node.users):
            user.replace_all_uses_with(producer)
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
        folded += 1
    _finish(graph)
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
    _finish(graph)
    return spelled


def snap_biases(graph: GraphModule) -> int:
    """Round every bias of a quantised layer to a multiple of input scale x weight scale; returns how many.

    Integer engines hold the bias as int32 in exactly these steps, others keep it in float. Rounded here,
    both add the same number. The change is at most half an accumulator step.
    """
    snapped = 0
    for node in list(graph.graph.nodes):
        if node.target not in (*CONVOLUTIONS, *TRANSPOSED, LINEAR) or len(node.args) < 3 or node.args[2] is None:
            continue
        steps = _accumulator_step(graph, node)
        bias_node = node.args[2]
        if steps is None or bias_node.op != "get_attr":
            continue
        bias = get_constant(graph, bias_node).double()
        limit = float(2**31 - 1)
        snapped_bias = torch.clamp(torch.round(bias / steps), -limit, limit) * steps
        _replace_argument(graph, node, 2, snapped_bias.float())
        snapped += 1
    _finish(graph)
    return snapped


def snap_weights(graph: GraphModule) -> int:
    """Round every weight to the int8 grid that it is quantised to; returns how many tensors.

    The graph computes the same as before. Converters that quantise the weights once more do not all round
    as torch does; from values on the grid they all get the same integers.
    """
    snapped = 0
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.target in QUANTIZE else None
        if not isinstance(source, Node) or source.op != "get_attr":
            continue
        arguments = [get_constant(graph, item) if isinstance(item, Node) else item for item in node.args]
        with torch.no_grad():
            dequantize = DEQUANTIZE[QUANTIZE.index(node.target)]
            set_constant(graph, str(source.target), dequantize(node.target(*arguments), *arguments[1:]))
        snapped += 1
    return snapped


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


def module_path(node: Node) -> tuple[str, ...]:
    """Names of the modules of the original network that the node came from, outermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    return tuple(path for path, _ in stack.values() if path)


def _own_constants(graph: GraphModule) -> None:
    """Give the graph copies of all parameters and buffers, so that passes leave the user's module alone."""
    with torch.no_grad():
        for part in graph.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                part.register_parameter(name, torch.nn.Parameter(parameter.detach().clone(), parameter.requires_grad))
            for name, buffer in list(part.named_buffers(recurse=False)):
                part.register_buffer(name, buffer.detach().clone())


def _shape(node: Any) -> tuple[Any, ...] | None:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _is_no_op(node: Node) -> bool:
    source = node.args[0] if node.args else None
    before, after = _shape(source), _shape(node)
    if before is None or after is None:
        return False
    if node.target in ALWAYS_NO_OP:
        return True
    same_shape = len(before) == len(after) and all(a is b or bool(a == b) for a, b in zip(before, after, strict=True))
    if node.target in CASTS:
        return same_shape and source.meta["val"].dtype == node.meta["val"].dtype  # type: ignore[union-attr]
    if node.target is aten.dropout.default:
        return not node.args[2] or node.args[1] == 0
    if node.target in (aten.permute.default, aten.transpose.int):
        return _keeps_order(node, len(before))
    return node.target in NO_OP_OF_SAME_SHAPE and same_shape and _is_whole(node)


def _is_whole(node: Node) -> bool:
    """A slice of full length starts at 0 with step 1; the others on the list need no more checks."""
    return node.target is not aten.slice.Tensor or len(node.args) < 5 or node.args[4] == 1


def _keeps_order(node: Node, rank: int) -> bool:
    if node.target is aten.transpose.int:
        one, other = node.args[1:3]
        return (one - other) % rank == 0  # type: ignore[operator]
    order: Any = node.args[1]
    return [axis % rank for axis in order] == list(range(rank))


def _only_first_result_used(node: Node) -> bool:
    return all(user.target is operator.getitem and user.args[1] == 0 for user in node.users)


def _can_fold_into(node: Node) -> bool:
    weights = [*node.args[1:3]]
    if any(isinstance(item, Node) and item.op != "get_attr" for item in weights):
        return False
    if node.target is LINEAR:
        shape = _shape(node.args[0])
        return shape is not None and len(shape) == 2
    return node.target in CONVOLUTIONS or (node.target in TRANSPOSED and groups_of(node) == 1)


def groups_of(node: Node) -> int:
    """Groups of a convolution node (1 where the node does not say)."""
    position = 6  # both kinds: input, weight, bias, stride, padding, then one more, then groups
    value = node.args[position] if len(node.args) > position else node.kwargs.get("groups", 1)
    return int(value)  # type: ignore[arg-type]


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
    _replace_argument(graph, producer, 1, new_weight)
    _replace_argument(graph, producer, 2, new_bias)
    producer.meta["val"] = norm.meta["val"][0]


def _replace_argument(graph: GraphModule, node: Node, position: int, value: Tensor) -> None:
    """Give ``node`` its own constant at ``position`` (1 weight, 2 bias), named after the layer."""
    weight_node = node.args[1]
    assert isinstance(weight_node, Node)
    old = node.args[position] if len(node.args) > position else None
    if isinstance(old, Node) and old.op == "get_attr" and len(old.users) == 1:
        set_constant(graph, str(old.target), value)
        old.meta["val"] = _fake(node, value)
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
    constant.meta["val"] = _fake(node, value)
    arguments = [*node.args, *[None] * (position + 1 - len(node.args))]
    arguments[position] = constant
    node.args = tuple(arguments)


def _fake(like: Node, value: Tensor) -> Tensor:
    """``value`` without its data, as the tracer keeps tensors in the metadata of nodes."""
    known = like.meta["val"]
    return known.fake_mode.from_tensor(value.detach()) if hasattr(known, "fake_mode") else value.detach()


def _is_global_pool(node: Node) -> bool:
    before, after = _shape(node.args[0]) if node.args else None, _shape(node)
    if before is None or after is None or len(before) != 4 or tuple(after[2:]) != (1, 1):
        return False
    if node.target is aten.adaptive_avg_pool2d.default:
        return True
    if node.target is not aten.avg_pool2d.default or len(node.args) > 3:  # more arguments: padding and its kin
        return False
    kernel: Any = node.args[1]
    height, width = kernel if len(kernel) == 2 else (kernel[0], kernel[0])
    return (height, width) == tuple(before[2:])


def _accumulator_step(graph: GraphModule, node: Node) -> Tensor | None:
    """Input scale x weight scale per output channel, `(C,)` float64; None where the layer is not quantised."""
    values, weights = node.args[0], node.args[1]
    if not isinstance(values, Node) or not isinstance(weights, Node):
        return None
    if values.target is not quantized.dequantize_per_tensor.default:
        return None
    scale: Any = values.args[1]
    if weights.target is quantized.dequantize_per_tensor.default:
        step: Any = weights.args[1]
        return torch.tensor([scale * step], dtype=torch.float64) if math.isfinite(scale * step) else None
    if weights.target is not quantized.dequantize_per_channel.default:
        return None
    steps = get_constant(graph, weights.args[1]).double().reshape(-1)  # type: ignore[arg-type]
    return steps * float(scale)


def _finish(graph: GraphModule) -> None:
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
