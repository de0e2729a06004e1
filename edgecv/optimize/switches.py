"""A Q/DQ graph whose rounding can be switched on and off tensor by tensor, and whose tensors can be watched.

Observers, bias correction, AdaRound and the sensitivity table all need the float network and the int8
network from one graph, or something in between.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen
from torch.fx.node import map_arg

from edgecv.optimize.examples import Example, all_inputs
from edgecv.optimize.graph import (
    CONVOLUTIONS,
    DEQUANTIZE,
    LINEAR,
    QUANTIZE,
    TRANSPOSED,
    get_constant,
    module_path,
)

__all__ = ["Board", "Layer", "Originals", "Switch", "float_biases", "float_weights", "make_board"]

LAYERS = (*CONVOLUTIONS, *TRANSPOSED, LINEAR)
Watch = Callable[[Tensor], None]


class Switch(nn.Module):
    """Rounds an activation to int8 while ``on``; shows ``watch`` what comes in and ``watch_out`` what goes out."""

    def __init__(self, scale: float, zero: int, low: int, high: int) -> None:
        super().__init__()
        self.scale, self.zero, self.low, self.high = scale, zero, low, high
        self.on = True
        self.watch: Watch | None = None
        self.watch_out: Watch | None = None

    def forward(self, values: Tensor) -> Tensor:
        """``values`` of any shape, float32."""
        if self.watch is not None:
            self.watch(values)
        if self.on:
            values = torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero, self.low, self.high)
        if self.watch_out is not None:
            self.watch_out(values)
        return values


class Constant(nn.Module):
    """A weight or bias in its int8 form while ``on``, else in float."""

    def __init__(self, quantized: Tensor | None, plain: Tensor | None) -> None:
        super().__init__()
        self.on = True
        self.quantized, self.plain = quantized, plain

    def forward(self) -> Tensor | None:
        """The tensor in use."""
        return self.quantized if self.on else self.plain


@dataclass(frozen=True)
class Originals:
    """Biases and weights of the float network by the weight's name: what layers use while they are switched off.

    Weights that are not named are those of the graph.
    """

    biases: Mapping[str, Tensor | None] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """A quantised layer: ``name`` (its module), its nodes, and the keys of its switches on the board.

    ``tail`` is the node whose output is int8: the layer itself, or the clamp that is fused into it.
    """

    name: str
    node: str
    weight: str
    input: str
    output: str | None
    target: Any
    clamped: bool


@dataclass(frozen=True)
class Board:
    """``module`` is the network with switches by key: a node's name for activations, a parameter's for weights."""

    module: GraphModule
    switches: Mapping[str, Switch]
    constants: Mapping[str, tuple[Constant, ...]]
    layers: tuple[Layer, ...]

    def turn(self, on: Collection[str] | None) -> None:
        """Switch exactly these tensors on (None: all of them)."""
        for key, switch in self.switches.items():
            switch.on = on is None or key in on
        for key, constants in self.constants.items():
            for constant in constants:
                constant.on = on is None or key in on

    def run(self, picture: Example) -> tuple[Tensor, ...]:
        """Outputs for one picture `(1, C, H, W)`, or all inputs, as a tuple."""
        with torch.no_grad():
            made = self.module(*all_inputs(picture))
        return (made,) if isinstance(made, Tensor) else tuple(made)


def float_biases(graph: GraphModule) -> dict[str, Tensor | None]:
    """Each layer's bias by its weight's name, None where it has none; taken before biases are corrected."""
    found: dict[str, Tensor | None] = {}
    for node in graph.graph.nodes:
        weight = node.args[1] if node.target in LAYERS else None
        while isinstance(weight, Node) and weight.target in (*QUANTIZE, *DEQUANTIZE):
            weight = weight.args[0]
        if _is_constant(weight):
            bias = node.args[2] if len(node.args) > 2 else None
            found[str(weight.target)] = get_constant(graph, bias).detach().clone() if _is_constant(bias) else None
    return found


def float_weights(graph: GraphModule) -> dict[str, Tensor]:
    """The float weights in front of the Q/DQ nodes of ``graph``, by name."""
    sources = [node.args[0] for node in graph.graph.nodes if node.target in QUANTIZE and _is_constant(node.args[0])]
    return {str(source.target): get_constant(graph, source).detach().clone() for source in sources}


def make_board(graph: GraphModule, originals: Originals | None = None) -> Board:
    """Switches in place of the Q/DQ nodes of ``graph``, which is not changed; all are on.

    A layer's weight and bias are switched together, between those of ``graph`` and ``originals``.
    """
    known = originals or Originals()
    copied = torch.fx.Graph()
    mapping: dict[Node, Node] = {}
    copied.graph_copy(graph.graph, mapping)
    copied.set_codegen(CodeGen())
    last = next(node for node in reversed(graph.graph.nodes) if node.op == "output")
    outputs = map_arg(last.args[0], lambda node: mapping[node])
    single = isinstance(outputs, (tuple, list)) and len(outputs) == 1
    copied.output(outputs[0] if single else outputs)
    root = nn.Module()
    for name, value in _constants(graph).items():
        _own(root, name, value)
    for node in graph.graph.nodes:
        if node.op == "call_module":  # what NNCF puts in for SmoothQuant
            root.add_module(str(node.target), copy.deepcopy(graph.get_submodule(str(node.target))))
    board = Board(GraphModule(root, copied), {}, {}, ())
    layers = _layers(graph)
    switches: dict[str, Switch] = {}
    constants: dict[str, tuple[Constant, ...]] = {}
    for number, node in enumerate([node for node in graph.graph.nodes if node.target in QUANTIZE]):
        source = node.args[0]
        key = str(source.target) if source.op == "get_attr" else source.name
        if source.op == "get_attr":
            plain = known.weights.get(key, get_constant(graph, source).detach())
            made: nn.Module = Constant(_rounded(graph, node), plain)
            constants[key] = (*constants.get(key, ()), made)  # type: ignore[arg-type]
        else:
            scale, zero, low, high = node.args[1:5]
            made = switches.setdefault(key, Switch(float(scale), int(zero), int(low), int(high)))
        _replace(board.module, mapping, node, made, f"switch_{number}", takes_input=source.op != "get_attr")
    for number, layer in enumerate(layers):
        bias = _bias_switch(graph, layer, known.biases)
        if bias is not None:
            constants[layer.weight] = (*constants.get(layer.weight, ()), bias)
            _set_bias(board.module, mapping[_node(graph, layer.node)], bias, f"bias_{number}")
    board.module.graph.eliminate_dead_code()
    board.module.recompile()
    return Board(board.module, switches, constants, layers)


def layer_name(node: Node, weight: str) -> str:
    """The module that a layer came from, as ``keep_float`` names it; its weight's owner where the trace lost it."""
    path = module_path(node)
    return path[-1] if path else weight.rpartition(".")[0] or weight


def _layers(graph: GraphModule) -> tuple[Layer, ...]:
    found = []
    for node in graph.graph.nodes:
        if node.target not in LAYERS:
            continue
        values, weights = node.args[0], node.args[1]
        if weights.target not in DEQUANTIZE or values.target is not DEQUANTIZE[0]:
            continue
        weight, source = str(weights.args[0].args[0].target), values.args[0].args[0]
        tail, clamped = node, False
        users = list(node.users)
        if len(users) == 1 and users[0].target not in QUANTIZE and _quantized(users[0]):
            tail, clamped = users[0], users[0].target is torch.ops.aten.relu.default
        output = tail.name if _quantized(tail) else None
        name = layer_name(node, weight)
        found.append(Layer(name, node.name, weight, source.name, output, node.target, clamped))
    return tuple(found)


def _quantized(node: Node) -> bool:
    return any(user.target in QUANTIZE for user in node.users)


def _is_constant(item: Any) -> TypeGuard[Node]:
    return isinstance(item, Node) and item.op == "get_attr"


def _node(graph: GraphModule, name: str) -> Node:
    return next(node for node in graph.graph.nodes if node.name == name)


def _constants(graph: GraphModule) -> dict[str, Tensor]:
    nodes = [node for node in graph.graph.nodes if node.op == "get_attr"]
    return {str(node.target): get_constant(graph, node).detach() for node in nodes}


def _own(root: nn.Module, name: str, value: Tensor) -> None:
    owner, leaf = _owner(root, name)
    owner.register_buffer(leaf, value)


def _adopt(root: nn.Module, name: str, module: nn.Module) -> None:
    owner, leaf = _owner(root, name)
    owner.add_module(leaf, module)


def _owner(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds the dotted ``name``, made where it is missing, and the last part of the name."""
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    return root, leaf


def _rounded(graph: GraphModule, node: Node) -> Tensor:
    arguments: list[Any] = [get_constant(graph, item) if isinstance(item, Node) else item for item in node.args]
    dequantize = DEQUANTIZE[QUANTIZE.index(node.target)]
    with torch.no_grad():
        made: Tensor = dequantize(node.target(*arguments), *arguments[1:])  # type: ignore[operator]
    return made


def _replace(
    module: GraphModule, mapping: Mapping[Node, Node], node: Node, made: nn.Module, name: str, *, takes_input: bool
) -> None:
    module.add_module(name, made)
    here = mapping[node]
    with module.graph.inserting_before(here):
        call = module.graph.call_module(name, (here.args[0],) if takes_input else ())
    for user in list(here.users):
        user.replace_all_uses_with(call)


def _bias_switch(graph: GraphModule, layer: Layer, biases: Mapping[str, Tensor | None]) -> Constant | None:
    node = _node(graph, layer.node)
    bias = node.args[2] if len(node.args) > 2 else None
    if not _is_constant(bias) or layer.weight not in biases:
        return None
    return Constant(get_constant(graph, bias).detach(), biases[layer.weight])


def _set_bias(module: GraphModule, here: Node, made: Constant, name: str) -> None:
    module.add_module(name, made)
    with module.graph.inserting_before(here):
        call = module.graph.call_module(name, ())
    here.args = (*here.args[:2], call, *here.args[3:])
