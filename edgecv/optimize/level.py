"""Levelling: the channels of a tensor are brought to one size, so that none is lost to the one scale of all.

A depthwise convolution has one weight scale for every channel that it reads, and the layer before it one for every
channel that it makes: there each channel is made as large as the largest at no cost. A layer that mixes channels has
one scale for the weights of all that it reads, so small channels are enlarged at the cost of small weights: how far
is the ``strength``, from 0 (not at all) to 1 (all of one size).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgecv.optimize.channels import Channels, apply_factors, find_channels, is_depthwise, weight_of
from edgecv.optimize.examples import Example, all_inputs
from edgecv.optimize.graph import get_constant

__all__ = ["Level", "level_channels", "measure_channels", "run_through"]

MOST = 1024.0
"""No channel is enlarged more: what is so small is noise."""
LARGEST_BIAS = 2.0**24
"""In steps of the accumulator, which has 32 bits; a float32 holds whole numbers up to this."""
INT8 = 127.0
PICTURES = 64


class Level:
    """How large the channels of a float graph are, and which of them can be made larger.

    ``channels`` are the classes; ``sizes`` the largest absolute value `(classes,)` of each tensor's channels.
    """

    def __init__(self, graph: GraphModule, channels: Channels, sizes: Mapping[Node, Tensor]) -> None:
        self._graph, self.channels, self.sizes = graph, channels, sizes
        mixing = torch.zeros(channels.count, dtype=torch.bool)
        for node, classes in channels.read.items():
            if not is_depthwise(graph, node):
                mixing[classes] = True
        self._mixing = mixing

    @property
    def mixes(self) -> bool:
        """Whether ``strength`` matters: some channel is read by a layer that mixes it with others."""
        return bool((self._factors(1.0, self._mixing) > 1).any())

    def apply(self, strength: float) -> tuple[str, ...]:
        """Level the graph; the names of the tensors that changed. ``strength`` (0..1) is for layers that mix channels.

        The network computes the same as before.
        """
        free = self._factors(1.0, ~self._mixing)
        factors = torch.where(self._mixing, self._factors(strength, self._mixing), free)
        factors = torch.minimum(factors, self._room()).clamp_min(1.0)
        apply_factors(self._graph, self.channels, factors)
        changed = factors > 1
        return tuple(node.name for node, item in self.channels.tensors.items() if bool(changed[item].any()))

    def _factors(self, strength: float, which: Tensor) -> Tensor:
        """By how much each class may grow without the range of any scale growing, to the power of ``strength``."""
        room = torch.full((self.channels.count,), MOST, dtype=torch.float64)
        together: dict[int, Tensor] = {}
        for node, sizes in self.sizes.items():
            known = together.get(self.channels.shared[node])
            together[self.channels.shared[node]] = sizes if known is None else torch.maximum(known, sizes)
        for sizes in together.values():
            here = sizes > 0
            room = torch.where(here, torch.minimum(room, sizes.max() / sizes.clamp_min(1e-300)), room)
        seen = torch.stack([sizes > 0 for sizes in self.sizes.values()]).any(dim=0)
        allowed = self.channels.free & which & seen
        return torch.where(allowed, room.clamp_min(1.0) ** strength, torch.ones_like(room))

    def _room(self) -> Tensor:
        """By how much each class may grow before a bias of its readers leaves the accumulator, `(classes,)`."""
        room = torch.full((self.channels.count,), MOST, dtype=torch.float64)
        for node, classes in self.channels.read.items():
            bias_node: Any = node.args[2] if len(node.args) > 2 else None
            source: Any = node.args[0]
            if not isinstance(bias_node, Node) or source not in self.sizes:
                continue
            step = (
                weight_of(self._graph, node).abs().flatten(1).amax(dim=1)
                / INT8
                * float(self.sizes[source].max())
                / INT8
            )
            bias = get_constant(self._graph, bias_node).detach().double().abs()
            if step.shape != bias.shape:  # a transposed convolution: its outputs are another axis
                step = step.min().expand_as(bias)
            limits = (LARGEST_BIAS * step / bias.clamp_min(1e-30)).clamp(1.0, MOST)
            own = (
                limits.reshape(len(classes), -1).amin(dim=1)
                if is_depthwise(self._graph, node)
                else limits.min().expand(len(classes))
            )
            room = room.scatter_reduce(0, classes, own, "amin")
        return room


def measure_channels(graph: GraphModule, pictures: Iterable[Example]) -> Level | None:
    """The sizes of the channels of the float ``graph`` on the first `PICTURES` pictures `(1, C, H, W)` float32.

    None where nothing can be levelled: no class of channels is free, or there is no picture.
    """
    channels = find_channels(graph)
    if not bool(channels.free.any()):
        return None
    probe = _Probe(graph, channels)
    run_through(probe, pictures)
    return Level(graph, channels, probe.sizes) if probe.sizes else None


def run_through(probe: Interpreter, pictures: Iterable[Example]) -> None:
    """Run the graph of ``probe`` on the first `PICTURES` of ``pictures`` `(1, C, H, W)` float32."""
    with torch.no_grad():
        for picture in islice(pictures, PICTURES):
            probe.run(*all_inputs(picture))


def level_channels(graph: GraphModule, pictures: Iterable[Example], *, strength: float = 0.0) -> tuple[str, ...]:
    """Level the float ``graph`` by its channels' sizes on ``pictures``; the names of the tensors that changed.

    The scale by ranges of activations is that of section 4.1 of Nagel et al., arXiv:1906.04721, with per-channel
    weights; ``strength`` is the exponent alpha of Xiao et al., arXiv:2211.10438, towards the weights.
    """
    found = measure_channels(graph, pictures)
    return () if found is None else found.apply(strength)


class _Probe(Interpreter):
    """Runs the graph and keeps the largest value of each class in each tensor; values are dropped once used."""

    def __init__(self, graph: GraphModule, channels: Channels) -> None:
        super().__init__(graph)
        self._channels = channels
        self.sizes: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        values = super().run_node(n)
        if n in self._channels.tensors:
            found, known = self._channels.largest(values, n), self.sizes.get(n)
            self.sizes[n] = found if known is None else torch.maximum(known, found)
        return values
