"""Which tensors of a graph become int8, and which of them share one scale: the targets' rules.

A tensor is quantised where it is made, so that all who read it read the same int8 numbers:

- Convolutions and linear layers read int8 inputs and int8 weights and give int8 outputs; with a float output
  LiteRT would compute the whole layer in float and store its weights four times larger. The output is
  taken behind a ReLU, ReLU6 or clamp, because all engines fuse those into the layer.
- Sums of two int8 tensors have one scale for both inputs and the result. Rounding then commutes with the
  sum, so an engine that rounds the convolution before the addition and one that fuses both (OpenVINO,
  TensorRT) give the same numbers, and integer engines add without rounding at all. With ``own_sums`` each of the
  three has its own scale: a small tensor that others read too does not get the large scale of a sum.
  A sum that only layer norms read stays float, as they are: int8 would save nothing there, and the widest channel
  would set the steps of all others.
- Products of two int8 tensors, pooling, resizing and pointwise activations stay int8. The square of a tensor
  (``x * x``, of a norm) does not: squares have twice the bits, and their mean needs them.
- Operators that only move values (reshape, slice, concat, max pooling, ...) keep one scale for all that
  goes in and comes out, as LiteRT demands, and engines then move bytes.
- What is only joined to float values (concat) stays float itself.
- Sigmoid and tanh stay float: LiteRT's int8 kernels accept one fixed scale and zero point only, which the
  portable scheme cannot have. So does everything else (softmax, layer norm, GELU, attention products),
  and what ``keep_float`` names.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgecv.optimize.graph import CONVOLUTIONS, LINEAR, TRANSPOSED, groups_of, module_path

__all__ = ["Plan", "plan_graph"]

aten = torch.ops.aten

LAYERS = {*CONVOLUTIONS, *TRANSPOSED, LINEAR}
CLAMPS = {aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default}
SUMS = {aten.add.Tensor, aten.sub.Tensor}
PAIRS = {*SUMS, aten.mul.Tensor}
POINTWISE = {
    *CLAMPS,
    aten.elu.default,
    aten.hardsigmoid.default,
    aten.hardswish.default,
    aten.leaky_relu.default,
    aten.mean.dim,
    aten.silu.default,
}
# Local means of their input: the result lies within the input's range, and LiteRT wants one scale. A mean
# over the whole picture (aten.mean) is far smaller than its input and has a scale of its own.
MEANS = {
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bilinear2d.default,
}
MOVES = {
    aten._unsafe_view.default,
    aten.cat.default,
    aten.channel_shuffle.default,
    aten.chunk.default,
    aten.expand.default,
    aten.flatten.using_ints,
    aten.flip.default,
    aten.max_pool2d.default,
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.permute.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
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
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
    aten.view.default,
    operator.getitem,
}
NORMS = {aten.layer_norm.default}
KEEPERS = MOVES | MEANS
PADS = {aten.pad.default, aten.constant_pad_nd.default}


@dataclass
class Plan:
    """What is quantised. Nodes of the graph that was planned.

    ``outputs`` maps each node whose result is int8 to the node whose scale it uses (itself, or the
    first of its group). ``edges`` are float results that a layer reads as int8. ``weights`` are
    `(layer, weight, output channel axis)`, axis None for one scale per tensor. ``why`` gives the rule
    per node name; ``floats`` the layers that stay float and the reason.
    """

    outputs: dict[Node, Node] = field(default_factory=dict)
    edges: list[tuple[Node, Node]] = field(default_factory=list)
    weights: list[tuple[Node, Node, int | None]] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    floats: dict[str, str] = field(default_factory=dict)


def plan_graph(graph: GraphModule, *, keep_float: Iterable[str] = (), own_sums: bool = False) -> Plan:
    """Apply the rules to a graph of `edgecv.optimize.capture.capture`.

    ``keep_float`` holds globs over module names as ``named_modules`` gives them (``layer4.*``,
    ``classifier``), over operators (``op:add``, ``op:conv*``) or over nodes (``node:conv2d_3``); what such
    a module, operator or node computes stays float. ``own_sums`` gives the inputs of a sum scales of their own.
    """
    patterns = tuple(keep_float)
    joined = set() if own_sums else SUMS
    plan = Plan()
    groups: dict[Node, Node] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            if _is_float(node):
                _mark(plan, groups, node, f"input {node.name}")
        elif node.op == "call_function":
            pattern = _kept(node, patterns)
            if pattern is None:
                _visit(plan, groups, node, patterns, joined)
            elif node.target in LAYERS:
                plan.floats[node.name] = f"kept float by {pattern!r}"
    _drop_unread(plan, groups, graph)
    _drop_mixed(plan, groups, graph)
    plan.outputs = {node: _root(groups, node) for node in groups if isinstance(node.meta.get("val"), Tensor)}
    plan.outputs = _representatives(plan.outputs)
    return plan


def _visit(plan: Plan, groups: dict[Node, Node], node: Node, patterns: tuple[str, ...], joined: set[Any]) -> None:
    name = _name(node)
    sources = [source for source in node.all_input_nodes if source.op != "get_attr" and not _is_size(source)]
    if node.target in LAYERS:
        _visit_layer(plan, groups, node, patterns)
    elif not sources or any(source not in groups for source in sources) or _reads_constants(node):
        return  # a float neighbour: the result stays float
    elif node.target is aten.mul.Tensor and node.args[0] is node.args[1]:
        plan.why[node.name] = "float, as squares need more bits"
    elif node.target in SUMS and node.users and all(user.target in NORMS for user in node.users):
        plan.why[node.name] = "float, as the norm is that reads it"
    elif node.target in PAIRS and all(isinstance(item, Node) for item in node.args[:2]):
        tail = _mark_tail(plan, groups, node, name, patterns)
        for source in sources if node.target in joined else ():
            _join(groups, source, tail)
    elif node.target in POINTWISE:
        _mark(plan, groups, node, f"output of {name}")
    elif node.target in KEEPERS and (node.target not in PADS or _pads_zero(node)):
        _mark(plan, groups, node, f"{name} keeps the scale of its input")
        for source in sources:
            _join(groups, source, node)


def _visit_layer(plan: Plan, groups: dict[Node, Node], node: Node, patterns: tuple[str, ...]) -> None:
    name, source, weight = _name(node), node.args[0], node.args[1]
    assert isinstance(source, Node)
    if not isinstance(weight, Node) or weight.op != "get_attr":
        plan.floats[node.name] = "its weight is not a constant"
        return
    plan.weights.append((node, weight, _channel_axis(node)))
    if source not in groups:
        plan.edges.append((source, node))
        plan.why.setdefault(source.name, f"float, quantised for {name}")
    _mark_tail(plan, groups, node, name, patterns)


def _mark_tail(plan: Plan, groups: dict[Node, Node], node: Node, name: str, patterns: tuple[str, ...]) -> Node:
    """Quantise behind the clamp that follows ``node`` alone; engines compute both in one step."""
    users = list(node.users)
    if len(users) == 1 and users[0].target in CLAMPS and _kept(users[0], patterns) is None:
        _mark(plan, groups, users[0], f"output of {name} + {_name(users[0])}")
        return users[0]
    _mark(plan, groups, node, f"output of {name}")
    return node


def _mark(plan: Plan, groups: dict[Node, Node], node: Node, why: str) -> None:
    if node not in groups and (_is_float(node) or isinstance(node.meta.get("val"), (tuple, list))):
        groups[node] = node
        plan.why[node.name] = why


def _root(groups: dict[Node, Node], node: Node) -> Node:
    while groups[node] is not node:
        node = groups[node]
    return node


def _join(groups: dict[Node, Node], one: Node, other: Node) -> None:
    first, second = _root(groups, one), _root(groups, other)
    if first is not second:
        groups[second] = first


def _drop_unread(plan: Plan, groups: dict[Node, Node], graph: GraphModule) -> None:
    """Leave the results of moves and inputs float where nobody reads them as int8."""
    layers = {layer for layer, _, _ in plan.weights}
    for node in reversed(list(graph.graph.nodes)):
        if node not in groups or not (node.op == "placeholder" or node.target in MOVES):
            continue
        read = any(user in layers or user in groups or user.op == "output" for user in node.users)
        if not read and not any(_joined_to_int8(user, groups) for user in node.users):
            _remove(groups, node)
            plan.why.pop(node.name, None)


def _drop_mixed(plan: Plan, groups: dict[Node, Node], graph: GraphModule) -> None:
    """Leave what only goes into a float concatenation float: the boxes of a detector beside its scores.

    LiteRT's converter gives all parts of a concatenation the scale of the one that is int8, also the scores, which
    then round to nothing or (a sigmoid has one fixed scale there) make a file that does not load.
    """
    for node in reversed(list(graph.graph.nodes)):
        if node not in groups or node.op == "placeholder" or not node.users:
            continue
        if all(_ends_in_float_join(user, groups) for user in node.users):
            _remove(groups, node)
            plan.why[node.name] = "float, as it is joined to float values"


def _ends_in_float_join(node: Node, groups: dict[Node, Node]) -> bool:
    """Whether ``node`` is a float concatenation, or moves values only to such."""
    if node.target not in MOVES or node in groups:
        return False
    if node.target is aten.cat.default:
        return True
    return bool(node.users) and all(_ends_in_float_join(user, groups) for user in node.users)


def _joined_to_int8(user: Node, groups: dict[Node, Node]) -> bool:
    """A pair's or layer's result may be quantised one step later, behind its clamp."""
    return user.target in PAIRS and any(after in groups and after.target in CLAMPS for after in user.users)


def _remove(groups: dict[Node, Node], node: Node) -> None:
    members = [other for other in groups if other is not node and _root(groups, other) is _root(groups, node)]
    del groups[node]
    for other in members:
        groups[other] = members[0]


def _representatives(outputs: dict[Node, Node]) -> dict[Node, Node]:
    """Let the first tensor of each group (in graph order) own the scale."""
    first: dict[Node, Node] = {}
    for node, root in outputs.items():
        first.setdefault(root, node)
    return {node: first[root] for node, root in outputs.items()}


def _kept(node: Node, patterns: tuple[str, ...]) -> str | None:
    for pattern in patterns:
        kind, colon, name = pattern.partition(":")
        if colon and kind == "op":
            names: tuple[str, ...] = (_op(node),)
        elif colon and kind == "node":
            names = (node.name,)
        else:
            names, name = module_path(node), pattern
        if any(fnmatchcase(item, name) for item in names):
            return pattern
    return None


def _op(node: Node) -> str:
    """The operator as users know it: conv2d, add, softmax (without torch's underscores)."""
    return getattr(node.target, "__name__", str(node.target)).split(".")[0].strip("_")


def _name(node: Node) -> str:
    kind = getattr(node.target, "__name__", str(node.target)).split(".")[0]
    path = module_path(node)
    return f"{kind} {path[-1]}" if path else kind


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.float32


def _is_size(node: Node) -> bool:
    """The length of an axis, such as that of the batch where it is open: a number, and no values."""
    return isinstance(node.meta.get("val"), torch.SymInt)


def _reads_constants(node: Node) -> bool:
    return any(source.op == "get_attr" for source in node.all_input_nodes)


def _pads_zero(node: Node) -> bool:
    if node.target is aten.constant_pad_nd.default:
        return len(node.args) < 3 or not node.args[2]
    mode: Any = node.args[2] if len(node.args) > 2 else "constant"
    value = node.args[3] if len(node.args) > 3 else None
    return bool(mode != "constant" or value in (None, 0, 0.0))


def _channel_axis(node: Node) -> int | None:
    if node.target not in TRANSPOSED:
        return 0
    return 1 if groups_of(node) == 1 else None
