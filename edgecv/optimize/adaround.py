"""Rounding that is learned: each weight goes up or down, whichever keeps the layer's outputs.

Layer by layer, on sampled output positions of cached activations, so that memory stays small: a convolution
is a matrix product over the patches that it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional

from edgecv.optimize.examples import Example
from edgecv.optimize.graph import CONVOLUTIONS, LINEAR, QUANTIZE, get_constant, groups_of, set_constant
from edgecv.optimize.switches import Board, Layer, Originals, make_board

__all__ = ["Reconstruction", "adaround"]

PICTURES = 256
PATCHES = 16
"""Output positions of one picture that are kept."""
MAX_VALUES = 16_000_000
"""Cached input values of one layer, of each kind: 64 MB."""
STEPS = 400
BATCH = 512
RATE = 3e-2
ROUNDING_WEIGHT = 0.01
STRETCH = (-0.1, 1.1)
SHARPNESS = (20.0, 2.0)
"""The regulariser's exponent falls from the first to the second."""


@dataclass(frozen=True)
class Reconstruction:
    """Mean squared error of a layer's outputs against float, rounded to the nearest and as learned."""

    layer: str
    nearest: float
    learned: float


@dataclass(frozen=True)
class _Cache:
    """Patches `(N, groups, K)` that a layer reads in the int8 network, float outputs `(N, groups, O / groups)`."""

    patches: Tensor
    wanted: Tensor


def adaround(
    graph: GraphModule,
    pictures: Callable[[], Iterable[Example]],
    *,
    layers: Iterable[str],
    originals: Originals,
    seed: int = 0,
) -> tuple[Reconstruction, ...]:
    """Learn the rounding of the layers whose module name matches a glob of ``layers``, in graph order.

    AdaRound: Nagel et al., arXiv:2004.10568, with the asymmetric layer-wise reconstruction of its equation 25:
    inputs of the int8 network as far as it is done, outputs of the float one. ``pictures`` starts a pass of
    `(1, C, H, W)` float32; at most `PICTURES` are read, once a layer. ``graph`` has unfolded Q/DQ nodes, whose
    weights are replaced by values that round to what was learned. A layer for which it does not help keeps its
    weights. Same seed, same result.

    Transposed convolutions keep theirs.
    """
    patterns = tuple(layers)
    names = [layer for layer in make_board(graph, originals).layers if _matches(layer, patterns)]
    done = []
    for layer in names:
        board = make_board(graph, originals)
        cache = _collect(board, graph, layer, pictures(), seed=seed)
        if cache is not None:
            done.append(_learn(graph, layer, cache, seed=seed))
    return tuple(done)


def _matches(layer: Layer, patterns: tuple[str, ...]) -> bool:
    takes = layer.target is LINEAR or layer.target is CONVOLUTIONS[1]
    return takes and any(fnmatchcase(layer.name, pattern) for pattern in patterns)


def _collect(
    board: Board, graph: GraphModule, layer: Layer, pictures: Iterable[Example], *, seed: int
) -> _Cache | None:
    node = next(item for item in graph.graph.nodes if item.name == layer.node)
    switch, weight = board.switches[layer.input], board.constants[layer.weight][0]
    assert weight.plain is not None
    generator = torch.Generator().manual_seed(seed)
    float_input: list[Tensor] = []
    int8_input: list[Tensor] = []
    switch.watch, switch.watch_out = float_input.append, int8_input.append
    read, wanted = [], []
    values = 0
    flat = _flat_weight(node, weight.plain)
    for number, picture in enumerate(pictures):
        if number == PICTURES or values >= MAX_VALUES:
            break
        board.turn(())
        board.run(picture)
        plain = _patches(node, float_input[0], weight.plain.shape)
        board.turn(None)
        board.run(picture)
        rounded = _patches(node, int8_input[-1], weight.plain.shape)
        float_input.clear()
        int8_input.clear()
        chosen = torch.randperm(len(plain), generator=generator)[:PATCHES]
        read.append(rounded[chosen])
        wanted.append(torch.einsum("ngk,gok->ngo", plain[chosen], flat))
        values += read[-1].numel()
    if not read:
        return None
    return _Cache(torch.cat(read), torch.cat(wanted))


def _flat_weight(node: Node, weight: Tensor) -> Tensor:
    """`(groups, O / groups, K)`."""
    groups = 1 if node.target is LINEAR else groups_of(node)
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def _patches(node: Node, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What each output position reads: `(positions, groups, K)`."""
    if node.target is LINEAR:
        return values.reshape(-1, 1, values.shape[-1])
    settings: list[Any] = [*node.args[3:6], *[None] * (3 - len(node.args[3:6]))]
    stride, padding, dilation = settings[0] or 1, settings[1] or 0, settings[2] or 1
    pair = [_pair(item) for item in (dilation, padding, stride)]
    unfolded = functional.unfold(values, tuple(shape[2:]), dilation=pair[0], padding=pair[1], stride=pair[2])
    groups = groups_of(node)
    return unfolded[0].t().reshape(-1, groups, unfolded.shape[1] // groups)


def _pair(item: Any) -> tuple[int, int]:
    values = list(item) if isinstance(item, (list, tuple)) else [item]
    return (values[0], values[-1])


def _learn(graph: GraphModule, layer: Layer, cache: _Cache, *, seed: int) -> Reconstruction:
    node = next(item for item in graph.graph.nodes if item.name == layer.node)
    quantize = node.args[1].args[0]
    weight = get_constant(graph, quantize.args[0]).detach()
    scale, low, high = _grid(graph, quantize, weight)
    steps = weight / scale
    floor = torch.floor(steps)
    nearest = torch.clamp(torch.round(steps), low, high)

    def error(values: Tensor) -> Tensor:
        flat = _flat_weight(node, values)
        return _loss(torch.einsum("ngk,gok->ngo", cache.patches, flat), cache.wanted)

    # A sigmoid stretched beyond 0..1 and cut there; it starts at the fraction of each weight.
    fraction = ((steps - floor - STRETCH[0]) / (STRETCH[1] - STRETCH[0])).clamp(1e-4, 1 - 1e-4)
    choice = torch.log(fraction / (1 - fraction)).requires_grad_()
    optimizer = torch.optim.Adam([choice], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    size = float(cache.wanted.var().clamp_min(1e-12))
    for step in range(STEPS):
        batch = torch.randint(len(cache.patches), (min(BATCH, len(cache.patches)),), generator=generator)
        up = (torch.sigmoid(choice) * (STRETCH[1] - STRETCH[0]) + STRETCH[0]).clamp(0, 1)
        flat = _flat_weight(node, torch.clamp(floor + up, low, high) * scale)
        loss = _loss(torch.einsum("ngk,gok->ngo", cache.patches[batch], flat), cache.wanted[batch]) / size
        if step >= STEPS // 5:
            share = (step - STEPS // 5) / (STEPS - STEPS // 5)
            sharp = SHARPNESS[1] + (SHARPNESS[0] - SHARPNESS[1]) * (1 + math.cos(math.pi * share)) / 2
            loss = loss + ROUNDING_WEIGHT * (1 - (2 * up - 1).abs() ** sharp).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        learned = torch.clamp(floor + (choice > _middle()).float(), low, high)
        before, after = float(error(nearest * scale)), float(error(learned * scale))
        if after < before:
            set_constant(graph, str(quantize.args[0].target), learned * scale)
    return Reconstruction(layer.name, before, min(before, after))


def _middle() -> float:
    """Where the stretched sigmoid is 1/2."""
    share = (0.5 - STRETCH[0]) / (STRETCH[1] - STRETCH[0])
    return math.log(share / (1 - share))


def _loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error around the mean of each channel: a constant shift is the bias correction's to mend."""
    difference = found - wanted
    return (difference - difference.mean(dim=0, keepdim=True)).square().mean()


def _grid(graph: GraphModule, quantize: Any, weight: Tensor) -> tuple[Tensor, int, int]:
    """Scale of each weight (broadcast), and the ends of the integers."""
    if quantize.target is QUANTIZE[0]:
        scale: Any = quantize.args[1]
        return torch.full_like(weight, float(scale)), int(quantize.args[3]), int(quantize.args[4])
    scales = get_constant(graph, quantize.args[1]).detach().float()
    axis = int(quantize.args[3])
    shape = [1] * weight.ndim
    shape[axis] = -1
    low, high = int(quantize.args[4]), int(quantize.args[5])
    return scales.reshape(shape).expand_as(weight), low, high
