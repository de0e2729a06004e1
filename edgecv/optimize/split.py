"""Channels of very different size get scales of their own: a tensor in front of a depthwise convolution is split.

One scale serves all channels of a tensor, and a depthwise convolution enlarges each as it likes: a channel of -0.1..0.1
beside one of -20..20 has one or two int8 steps and is drawn out to full size. Where the channels come from a layer
without activation function or with ReLU they are scaled alike (`edgecv.optimize.level`); SiLU, hard swish and ReLU6
forbid that. So the layer that makes the channels, the activation and the depthwise convolution are each cut into two to
four, by the size of the channels, and joined behind it. Every part has its own scales. The arithmetic stays the same
and stays int8, and nothing is computed twice, unless others read the tensor as well.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgecv.errors import ModelError
from edgecv.optimize.channels import is_depthwise, weight_of
from edgecv.optimize.examples import Example
from edgecv.optimize.graph import (
    CONVOLUTIONS,
    fake,
    finish,
    get_constant,
    groups_of,
    replace_argument,
    set_constant,
    shape_of,
)
from edgecv.optimize.level import run_through
from edgecv.optimize.rules import CLAMPS, PADS
from edgecv.optimize.switches import layer_name

__all__ = ["Part", "find_splits", "split_channels"]

aten = torch.ops.aten

ALONG = {
    *CLAMPS,
    *PADS,
    aten.elu.default,
    aten.gelu.default,
    aten.hardsigmoid.default,
    aten.hardswish.default,
    aten.leaky_relu.default,
    aten.max_pool2d.default,
    aten.silu.default,
}
"""What takes every channel for itself, so that parts of a tensor give parts of the result."""
MOST = 4
WIDTH = 16
"""Parts have a multiple of so many channels, or of a quarter of them where they are fewer: engines are slow on narrow
layers. YOLOX-nano on ONNX Runtime, eight layers split: 0.82 times the speed of float, and 0.74 with any number."""
GAIN = 0.5
"""One part more must leave at most this share of the noise."""
GROUPS_AT = 5
"""Place of the groups among a convolution's arguments behind its input."""


@dataclass(frozen=True)
class Part:
    """A layer that makes some of the channels of another one: their `(C,)` numbers there.

    ``node``, ``tensor`` and ``whole`` are names of nodes: the layer, what leaves its activation function, and the layer
    that it is a part of.
    """

    node: str
    tensor: str
    whole: str
    channels: Tensor


@dataclass(frozen=True)
class _Place:
    """A tensor that can be split: the layer that makes it, the depthwise convolutions that read it and their chains.

    ``front`` are the nodes between, from the layer to the tensor; ``behind`` those that follow each convolution.
    """

    maker: Node
    front: tuple[Node, ...]
    readers: tuple[Node, ...]
    behind: tuple[tuple[Node, ...], ...]


def find_splits(graph: GraphModule, pictures: Iterable[Example], *, symmetric: bool) -> dict[str, float]:
    """The share of the noise of its input that a split takes from each depthwise layer, 0 to 1, by its module's name.

    ``graph`` is a float one. Layers that cannot be split, or gain too little by it, have no entry. ``symmetric`` is
    the scheme of the scales; ``pictures`` are `(1, C, H, W)`.
    """
    places = _places(graph, _depthwise(graph))
    sizes = _measure(graph, {place.readers[0].args[0] for place in places}, pictures)
    gains: dict[str, float] = {}
    for place in places:
        parts, share = _cut(graph, place, sizes, symmetric=symmetric)
        for reader in place.readers if len(parts) > 1 else ():
            gains[_layer(reader)] = max(gains.get(_layer(reader), 0.0), 1.0 - share)
    return gains


def split_channels(
    graph: GraphModule, pictures: Iterable[Example], *, layers: Iterable[str], symmetric: bool
) -> tuple[Part, ...]:
    """Split what the depthwise convolutions named by the globs ``layers`` read, in the float ``graph``.

    The network computes the same as before. Sizes of channels are those of the first
    `edgecv.optimize.level.PICTURES` of ``pictures``; the cuts are where they leave the least noise behind the
    convolutions. Layers that cannot be split, or would gain little, stay whole. Returns the layers' parts.

    Raises:
        ModelError: a glob of ``layers`` fits no depthwise convolution.
    """
    patterns = tuple(layers)
    places = _places(graph, _named(_depthwise(graph), patterns)) if patterns else ()
    sizes = _measure(graph, {place.readers[0].args[0] for place in places}, pictures) if places else {}
    made: list[Part] = []
    for place in places:
        parts, _ = _cut(graph, place, sizes, symmetric=symmetric)
        if len(parts) > 1:
            made += _Surgeon(graph, parts).split(place)
    finish(graph)
    return tuple(made)


def _depthwise(graph: GraphModule) -> list[Node]:
    """The convolutions that give as many channels as they read, each from one."""
    return [
        node
        for node in graph.graph.nodes
        if is_depthwise(graph, node) and weight_of(graph, node).shape[0] == groups_of(node)
    ]


def _named(layers: list[Node], patterns: tuple[str, ...]) -> list[Node]:
    """Those of ``layers`` that a glob fits."""
    names = [_layer(node) for node in layers]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = f"the first are {', '.join(names[:8])}" if names else "there is none"
            raise ModelError(f"split: {pattern!r} fits no depthwise layer; {known}")
    fitting = zip(names, layers, strict=True)
    return [node for name, node in fitting if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _places(graph: GraphModule, layers: Iterable[Node]) -> tuple[_Place, ...]:
    """Where what the depthwise ``layers`` read can be split, in their order."""
    found: dict[Node, list[Node]] = {}
    for node in layers:
        if _tail(node) is not None:
            found.setdefault(node.args[0], []).append(node)  # type: ignore[arg-type]
    places = []
    for tensor, readers in found.items():
        front: list[Node] = []
        maker: Any = tensor
        while _keeps_apart(maker):
            front.append(maker)
            maker = maker.args[0]
        if maker.target in CONVOLUTIONS and groups_of(maker) == 1 and _constant(maker):
            behind = tuple(_tail(reader) or () for reader in readers)
            places.append(_Place(maker, tuple(front[::-1]), tuple(readers), behind))
    return tuple(places)


def _keeps_apart(node: Node) -> bool:
    """Whether ``node`` takes each channel for itself and leaves their number (a pad may add some)."""
    if node.target not in ALONG:
        return False
    before, after = shape_of(node.args[0]), shape_of(node)
    return before is not None and after is not None and before[1] == after[1]


def _tail(layer: Node) -> tuple[Node, ...] | None:
    """The nodes behind ``layer`` that keep channels apart; None where not only mixing layers read what they give."""
    tail, last = [], layer
    while len(last.users) == 1 and _keeps_apart(next(iter(last.users))):
        last = next(iter(last.users))
        tail.append(last)
    mixing = all(
        user.target in CONVOLUTIONS and groups_of(user) == 1 and user.args[0] is last and _constant(user)
        for user in last.users
    )
    return tuple(tail) if mixing and last.users and _constant(layer) else None


def _constant(layer: Node) -> bool:
    weight: Any = layer.args[1]
    return isinstance(weight, Node) and weight.op == "get_attr" and not layer.kwargs


def _layer(node: Node) -> str:
    weight: Any = node.args[1]
    return layer_name(node, str(weight.target))


def _measure(graph: GraphModule, tensors: Collection[Any], pictures: Iterable[Example]) -> dict[Node, Tensor]:
    """The smallest and the largest value of each channel of ``tensors``, with 0 among them: `(2, C)` float64."""
    probe = _Probe(graph, tensors)
    run_through(probe, pictures)
    return probe.sizes


class _Probe(Interpreter):
    def __init__(self, graph: GraphModule, tensors: Collection[Any]) -> None:
        super().__init__(graph)
        self._tensors = set(tensors)
        self.sizes: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        values = super().run_node(n)
        if n in self._tensors:
            spots = values.detach().double().movedim(1, 0).flatten(1)
            low, high = spots.amin(dim=1).clamp_max(0), spots.amax(dim=1).clamp_min(0)
            known = self.sizes.get(n)
            if known is not None:
                low, high = torch.minimum(low, known[0]), torch.maximum(high, known[1])
            self.sizes[n] = torch.stack([low, high])
        return values


def _cut(
    graph: GraphModule, place: _Place, sizes: Mapping[Node, Tensor], *, symmetric: bool
) -> tuple[list[Tensor], float]:
    """The channels `(c,)` of each part, and the share of the noise that they leave.

    The noise of a part is the square of its range times what the convolutions make of it; the cuts are the best of
    all along the channels in the order of their size.
    """
    tensor: Any = place.readers[0].args[0]
    if tensor not in sizes:
        return [], 1.0
    low, high = sizes[tensor]
    span = torch.maximum(-low, high) if symmetric else high - low
    order = span.argsort(stable=True)
    energy = torch.stack([weight_of(graph, reader).square().flatten(1).sum(dim=1) for reader in place.readers])
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), energy.sum(dim=0)[order].cumsum(0)]).tolist()
    lows, highs, spans = low[order], high[order], span[order]
    width = max(1, min(WIDTH, len(order) // MOST))

    @functools.cache
    def noise(start: int, end: int) -> float:
        extent = float(spans[end - 1] if symmetric else highs[start:end].max() - lows[start:end].min())
        return float(sums[end] - sums[start]) * extent**2

    @functools.cache
    def best(start: int, parts: int) -> tuple[float, tuple[int, ...]]:
        if parts == 1:
            return noise(start, len(order)), (len(order),)
        tails = (
            (end, best(end, parts - 1)) for end in range(start + width, len(order) - width * (parts - 1) + 1, width)
        )
        return min((noise(start, end) + left, (end, *ends)) for end, (left, ends) in tails)

    whole = noise(0, len(order))
    found: tuple[int, ...] = (len(order),)
    left = whole
    for parts in range(2, min(MOST, len(order) // width) + 1):
        less, ends = best(0, parts)
        if less > GAIN * left:
            break
        found, left = ends, less
    starts = (0, *found[:-1])
    cut = [order[start:end].sort().values for start, end in zip(starts, found, strict=True)]
    return cut, left / whole if whole > 0 else 1.0


class _Surgeon:
    """Cuts the nodes of one place into parts with the given channels."""

    def __init__(self, graph: GraphModule, parts: list[Tensor]) -> None:
        self._graph, self._parts = graph, parts
        self._made: list[Part] = []

    def split(self, place: _Place) -> list[Part]:
        graph, numbers = self._graph.graph, range(len(self._parts))
        with graph.inserting_before(place.readers[0]):
            fronts = [self._chain(place.maker, place.front, number, place.maker.args[0]) for number in numbers]
        for reader, behind in zip(place.readers, place.behind, strict=True):
            last = behind[-1] if behind else reader
            with graph.inserting_before(reader):
                tails = [self._chain(reader, behind, number, front) for number, front in enumerate(fronts)]
                joined = graph.call_function(aten.cat.default, (tails, 1))
            joined.meta = dict(last.meta)
            order = torch.cat(self._parts)
            for user in list(last.users):
                weight = get_constant(self._graph, user.args[1])  # type: ignore[arg-type]
                replace_argument(self._graph, user, 1, weight.detach().index_select(1, order))
            last.replace_all_uses_with(joined)
        return self._made

    def _chain(self, layer: Node, behind: tuple[Node, ...], number: int, source: Any) -> Node:
        """The part of a layer, with constants of its own, and of what follows it."""
        channels, rest = self._parts[number], list(layer.args[1:])
        for position, value in enumerate(rest[:2]):
            if isinstance(value, Node):
                rest[position] = self._constant(layer, value, number)
        if groups_of(layer) > 1:
            rest[GROUPS_AT] = len(channels)
        node = made = self._copy(layer, number, (source, *rest))
        for item in behind:
            node = self._copy(item, number, (node, *item.args[1:]))
        self._made.append(Part(made.name, node.name, layer.name, channels))
        return node

    def _constant(self, layer: Node, whole: Node, number: int) -> Node:
        value = get_constant(self._graph, whole).detach().index_select(0, self._parts[number])
        owner, _, leaf = str(whole.target).rpartition(".")
        name = f"{owner}.part{number}.{leaf}" if owner else f"{layer.name}_part{number}_{leaf}"
        taken = {str(other.target) for other in self._graph.graph.nodes if other.op == "get_attr"}
        while name in taken:
            name += "_"
        set_constant(self._graph, name, value)
        node = self._graph.graph.get_attr(name)
        node.meta["val"] = fake(layer, value)
        return node

    def _copy(self, node: Node, number: int, arguments: tuple[Any, ...]) -> Node:
        made: Node = self._graph.graph.call_function(node.target, arguments, dict(node.kwargs))  # type: ignore[arg-type]
        made.meta = {**node.meta, "val": node.meta["val"][:, : len(self._parts[number])]}
        return made
