"""Which channels of a graph must be scaled alike, found channel by channel.

Where only operators stand between the layers that make a channel and the layers that read it which give s times as
much for s times their input (ReLU, pooling, sums, parts of a split that are joined again, ...), the channel can be
multiplied by any s > 0 where it is made and divided where it is read. Channels that meet in a sum are one class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgecv.optimize.graph import (
    CONVOLUTIONS,
    LINEAR,
    TRANSPOSED,
    get_constant,
    groups_of,
    replace_argument,
    shape_of,
)
from edgecv.optimize.rules import KEEPERS, LAYERS, MOVES, PADS, SUMS

__all__ = ["Channels", "apply_factors", "find_channels", "is_depthwise", "scale_input", "scale_output", "weight_of"]

aten = torch.ops.aten

ELEMENTWISE = {aten.relu.default, aten.leaky_relu.default, aten.prelu.default, aten.neg.default, aten.abs.default}
SPATIAL = {
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool2d.default,
    aten.max_pool2d.default,
    aten.mean.dim,
    aten.upsample_bilinear2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest2d.default,
    aten.upsample_nearest2d.vec,
}
PLAIN_MOVES = MOVES - SPATIAL - PADS
"""What it does to values it does to their classes."""
FIXED = 0
"""The class of all channels that cannot be scaled."""
LARGEST = 2**24
"""Values of a tensor that is moved; of a larger one the channels are not followed."""


@dataclass(frozen=True)
class Channels:
    """The classes of a graph's channels, as numbers from 0 to ``count`` - 1.

    ``made`` and ``read`` have the classes `(C,)` of the outputs and inputs of each layer that can be scaled;
    ``tensors`` those of each tensor that is read by a layer or a sum, in a shape that broadcasts to the tensor's, and
    ``shared`` a number for each of them: tensors with the same one share a scale (`edgecv.optimize.rules`).
    ``free`` `(count,)` says which classes can be scaled: both ends are layers with constant weights.
    """

    made: Mapping[Node, Tensor]
    read: Mapping[Node, Tensor]
    tensors: Mapping[Node, Tensor]
    shared: Mapping[Node, int]
    free: Tensor

    @property
    def count(self) -> int:
        """How many classes there are."""
        return len(self.free)

    def largest(self, values: Tensor, node: Node) -> Tensor:
        """Largest absolute value of each class in ``values`` of the tensor ``node``, `(count,)` float64; else 0."""
        classes = self.tensors[node]
        axes = [axis for axis in range(values.ndim) if classes.shape[axis] == 1]
        found = values.abs().amax(dim=axes, keepdim=True) if axes else values.abs()
        return self.spread(found.double().reshape(-1), classes.reshape(-1))

    def spread(self, values: Tensor, classes: Tensor) -> Tensor:
        """The largest of the ``values`` of each class, `(count,)` float64."""
        empty = torch.zeros(self.count, dtype=torch.float64)
        return empty.scatter_reduce(0, classes, values.double(), "amax")


def find_channels(graph: GraphModule) -> Channels:
    """The classes of the channels of the float ``graph``."""
    search = _Search(graph)
    for node in graph.graph.nodes:
        search.visit(node)
    return search.found()


class _Search:
    """Follows the channels along the graph; classes are joined as they meet."""

    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        self._parent = [FIXED]
        self._classes: dict[Node, Any] = {}
        self._made: dict[Node, Tensor] = {}
        self._read: dict[Node, Tensor] = {}
        self._tensors: list[Node] = []
        self._scale: dict[Node, Node] = {}

    def visit(self, node: Node) -> None:
        """Give the results of ``node`` their classes; nodes come in the graph's order."""
        sources = [item for item in node.all_input_nodes if item.op != "get_attr"]
        classes: Any = None
        if node.op == "call_function" and all(item in self._classes for item in sources):
            classes = self._followed(node, sources)
        if classes is None:
            for source in sources:
                self._fix(source)
            shape = shape_of(node)
            classes = torch.zeros([1] * len(shape or ()), dtype=torch.int64) if shape is not None else None
        if classes is not None:
            self._classes[node] = classes
        if node.target in KEEPERS or node.target in SUMS:
            for source in sources:
                self._scale[self._owner(source)] = self._owner(node)

    def found(self) -> Channels:
        """Everything, with classes numbered without gaps."""
        roots = [self._root(item) for item in range(len(self._parent))]
        numbers = {root: number for number, root in enumerate(sorted({FIXED, *roots}))}
        table = torch.tensor([numbers[root] for root in roots])
        made = {node: table[item] for node, item in self._made.items()}
        read = {node: table[item] for node, item in self._read.items()}
        ends = [torch.zeros(len(numbers), dtype=torch.bool) for _ in range(2)]
        for end, layers in zip(ends, (made, read), strict=True):
            for item in layers.values():
                end[item] = True
        free = ends[0] & ends[1]
        free[FIXED] = False
        tensors = {node: table[self._classes[node]] for node in dict.fromkeys(self._tensors)}
        owners = {owner: number for number, owner in enumerate(dict.fromkeys(self._owner(node) for node in tensors))}
        return Channels(made, read, tensors, {node: owners[self._owner(node)] for node in tensors}, free)

    def _followed(self, node: Node, sources: list[Node]) -> Any:
        """The classes of what ``node`` gives; None where they end there."""
        if node.target in LAYERS:
            return self._layer(node, sources)
        if node.target in SUMS:
            return self._sum(node, sources)
        if node.target is aten.mul.Tensor:
            return self._product(node, sources)
        if node.target in ELEMENTWISE:
            return self._classes[sources[0]]
        if node.target in SPATIAL or (node.target in PADS and not any(bool(item) for item in node.args[2:])):
            return self._spatial(node, sources[0])
        return self._moved(node) if node.target in PLAIN_MOVES else None

    def _layer(self, node: Node, sources: list[Node]) -> Any:
        if sources != [node.args[0]] or not _can_be_scaled(node):
            return None
        axis = -1 if node.target is LINEAR else 1
        classes = self._alike(self._classes[sources[0]], sources[0], axis)
        if classes is None:
            return None
        weight, shape = weight_of(self._graph, node), shape_of(node)
        assert shape is not None
        outputs = int(weight.shape[1 if node.target in TRANSPOSED else 0])
        first = len(self._parent)
        self._parent.extend(range(first, first + outputs))
        self._read[node] = classes
        self._made[node] = torch.arange(first, first + outputs)
        self._tensors.append(sources[0])
        form = [1] * len(shape)
        form[axis] = outputs
        return self._made[node].reshape(form)

    def _sum(self, node: Node, sources: list[Node]) -> Any:
        if len(sources) != 2 or node.kwargs or any(not isinstance(item, Node) for item in node.args[:2]):
            return None
        one, other = torch.broadcast_tensors(*(self._classes[source] for source in sources))
        self._join(one, other)
        self._tensors += sources
        return one.contiguous()

    def _product(self, node: Node, sources: list[Node]) -> Any:
        """The larger factor carries its channels on, the other (a gate) is fixed."""
        if len(sources) == 1 and all(item is not sources[0] for item in node.args[1:]):
            return self._classes[sources[0]] if shape_of(sources[0]) == shape_of(node) else None
        if len(sources) != 2:
            return None
        gate, carrier = sorted(sources, key=lambda item: math.prod(shape_of(item) or ()))
        if shape_of(carrier) != shape_of(node):
            return None
        self._fix(gate)
        return self._classes[carrier]

    def _spatial(self, node: Node, source: Node) -> Any:
        """Pools, resizes and pads mix the places of a channel, so these have one class."""
        before, after = shape_of(source), shape_of(node)
        if before is None or after is None or len(before) < 3:
            return None
        if node.target is aten.mean.dim:
            axes: Any = node.args[1]
            if any(axis % len(before) < 2 for axis in axes):
                return None
        elif before[:2] != after[:2]:
            return None
        classes = self._alike(self._classes[source], source, 1)
        return None if classes is None else classes.reshape([1, -1, *[1] * (len(after) - 2)])

    def _moved(self, node: Node) -> Any:
        """What the operator does to the values it does to their classes."""

        def classes_of(item: Node) -> Any:
            known, shape = self._classes[item], shape_of(item)
            return known if shape is None else known.expand(shape)

        shapes = [shape_of(item) for item in node.all_input_nodes]
        if any(shape is not None and math.prod(shape) > LARGEST for shape in shapes):
            return None
        if any(item.op == "get_attr" for item in node.all_input_nodes) or not callable(node.target):
            return None
        arguments, named = map_arg((node.args, node.kwargs), classes_of)
        made = node.target(*arguments, **named)
        return _narrowed(made) if isinstance(made, Tensor) else [_narrowed(item) for item in made]

    def _alike(self, classes: Tensor, source: Node, axis: int) -> Tensor | None:
        """One class for each index along ``axis`` of the tensor ``source``: those of its other places are joined."""
        shape = shape_of(source)
        if shape is None:
            return None
        rows = classes.movedim(axis, 0).reshape(classes.shape[axis], -1)
        self._join(rows, rows[:, :1].expand_as(rows))
        return rows[:, 0].expand(shape[axis]).clone() if rows.shape[0] == 1 else rows[:, 0].clone()

    def _fix(self, node: Node) -> None:
        classes = self._classes.get(node)
        for item in classes if isinstance(classes, list) else [classes]:
            if item is not None:
                self._join(item, torch.zeros_like(item))

    def _join(self, one: Tensor, other: Tensor) -> None:
        pairs = np.unique(torch.stack([one.reshape(-1), other.reshape(-1)]).numpy(), axis=1)
        for left, right in pairs.T.tolist():
            first, second = sorted((self._root(left), self._root(right)))
            self._parent[second] = first

    def _owner(self, node: Node) -> Node:
        """The node that stands for all that share a scale with ``node``."""
        while self._scale.get(node, node) is not node:
            node = self._scale[node]
        return node

    def _root(self, item: int) -> int:
        while self._parent[item] != item:
            self._parent[item] = item = self._parent[self._parent[item]]
        return item


def _narrowed(classes: Tensor) -> Tensor:
    """The same with one place along every axis that tells nothing apart."""
    for axis in range(classes.ndim):
        first = classes.narrow(axis, 0, 1)
        if classes.shape[axis] > 1 and bool((classes == first).all()):
            classes = first
    return classes.contiguous()


def _can_be_scaled(node: Node) -> bool:
    """Whether weight and bias are constants that nobody else reads."""
    if node.target in TRANSPOSED and groups_of(node) != 1:
        return False
    constants = [item for item in node.args[1:3] if item is not None]
    return all(isinstance(item, Node) and item.op == "get_attr" and len(item.users) == 1 for item in constants)


def is_depthwise(graph: GraphModule, node: Node) -> bool:
    """Whether each output of the layer is made of one channel."""
    return node.target in CONVOLUTIONS and weight_of(graph, node).shape[1] == 1 and groups_of(node) > 1


def weight_of(graph: GraphModule, node: Node) -> Tensor:
    """The weight of a layer, float64."""
    return get_constant(graph, node.args[1]).detach().double()  # type: ignore[arg-type]


def scale_output(graph: GraphModule, node: Node, factors: Tensor) -> None:
    """Multiply every output channel of the layer ``node`` by its factor, `(C,)` float64, bias and all."""
    weight = weight_of(graph, node)
    shape = [1] * weight.ndim
    shape[1 if node.target in TRANSPOSED else 0] = -1
    replace_argument(graph, node, 1, (weight * factors.reshape(shape)).float())
    bias = node.args[2] if len(node.args) > 2 else None
    if isinstance(bias, Node):
        replace_argument(graph, node, 2, (get_constant(graph, bias).double() * factors).float())


def scale_input(graph: GraphModule, node: Node, factors: Tensor) -> None:
    """Multiply what the layer ``node`` makes of each input channel by the channel's factor, `(C,)` float64."""
    weight, groups = weight_of(graph, node), 1 if node.target is LINEAR else groups_of(node)
    if node.target in TRANSPOSED:
        scaled = weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
    else:
        parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        scaled = (parts * factors.reshape(groups, 1, -1, 1)).reshape(weight.shape)
    replace_argument(graph, node, 1, scaled.float())


def apply_factors(graph: GraphModule, channels: Channels, factors: Tensor) -> None:
    """Multiply every class of channels by its factor `(count,)`, float64, where it is made; divide where it is read.

    The network computes what it did. Layers whose factors are all 1 are not touched.
    """
    for layers, scale, values in (
        (channels.made, scale_output, factors),
        (channels.read, scale_input, 1 / factors),
    ):
        for node, classes in layers.items():
            if bool((values[classes] != 1).any()):
                scale(graph, node, values[classes])
    graph.recompile()
