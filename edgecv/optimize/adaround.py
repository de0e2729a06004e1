"""Rounding that is learned: each weight goes up or down, whichever keeps the layer's outputs.

Layer by layer, on sampled output positions of cached activations, so that memory stays small: a convolution
is a matrix product over the patches that it reads.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
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
PATCHES = 64
"""Output positions of one picture that are kept."""
ROWS = 4096
"""Output positions in all; small layers, with few of them in a picture, look at more pictures."""
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
class _Sampled:
    """Output positions of a layer by picture, and what the float layer gives there: `(N, groups, O / groups)`."""

    node: Node
    positions: list[Tensor]
    wanted: list[Tensor]
    rows: int
    limit: int


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
    `(1, C, H, W)` float32; at most `PICTURES` are read, once and then once a layer. ``graph`` has unfolded Q/DQ
    nodes, whose weights are replaced by values that round to what was learned. A layer for which it does not help
    keeps its weights. Same seed, same result.

    Transposed convolutions keep theirs.
    """
    patterns = tuple(layers)
    board = make_board(graph, originals)
    names = [layer for layer in board.layers if _matches(layer, patterns)]
    sampled = _float_outputs(board, graph, names, pictures(), seed=seed)
    done = []
    for layer in names:
        found = sampled[layer.node]
        if found.positions:
            patches = _int8_inputs(make_board(graph, originals), layer, found, pictures())
            done.append(_learn(graph, layer, patches, torch.cat(found.wanted), seed=seed))
    return tuple(done)


def _matches(layer: Layer, patterns: tuple[str, ...]) -> bool:
    takes = layer.target is LINEAR or layer.target is CONVOLUTIONS[1]
    return takes and any(fnmatchcase(layer.name, pattern) for pattern in patterns)


def _float_outputs(
    board: Board, graph: GraphModule, layers: Sequence[Layer], pictures: Iterable[Example], *, seed: int
) -> dict[str, _Sampled]:
    """By a layer's node: what it gives in the float network, at positions that are drawn from ``seed``."""
    nodes = {node.name: node for node in graph.graph.nodes}
    plain = {layer.node: _plain_weight(board, layer) for layer in layers}
    found = {name: _Sampled(nodes[name], [], [], 0, _limit(nodes[name], plain[name])) for name in plain}
    generator = torch.Generator().manual_seed(seed)
    read: dict[str, Tensor] = {}
    for layer in layers:
        board.switches[layer.input].watch = partial(read.__setitem__, layer.input)
    board.turn(())
    for picture in islice(pictures, PICTURES):
        open_layers = [layer for layer in layers if found[layer.node].rows < found[layer.node].limit]
        if not open_layers:
            break
        board.run(picture)
        for layer in open_layers:
            have, weight = found[layer.node], plain[layer.node]
            patches = _patches(have.node, read[layer.input], weight.shape)
            chosen = torch.randperm(len(patches), generator=generator)[: min(PATCHES, have.limit - have.rows)]
            have.positions.append(chosen)
            have.wanted.append(torch.einsum("ngk,gok->ngo", patches[chosen], _flat_weight(have.node, weight)))
            found[layer.node] = replace(have, rows=have.rows + len(chosen))
    return found


def _int8_inputs(board: Board, layer: Layer, sampled: _Sampled, pictures: Iterable[Example]) -> Tensor:
    """What the layer reads at the sampled positions in the int8 network: `(N, groups, K)`."""
    shape = _plain_weight(board, layer).shape
    read: list[Tensor] = []

    def stop(values: Tensor) -> None:
        read.append(values)
        raise _Reached

    board.switches[layer.input].watch_out = stop
    board.turn(None)
    rows = []
    for picture, chosen in zip(pictures, sampled.positions, strict=False):
        # What lies behind the layer is not computed.
        with contextlib.suppress(_Reached):
            board.run(picture)
        rows.append(_patches(sampled.node, read.pop(), shape)[chosen])
    return torch.cat(rows)


class _Reached(Exception):
    """The forward pass has come to the layer that is looked at."""


def _plain_weight(board: Board, layer: Layer) -> Tensor:
    weight = board.constants[layer.weight][0].plain
    assert weight is not None
    return weight


def _limit(node: Node, weight: Tensor) -> int:
    """How many positions of a layer are looked at, at most."""
    groups = 1 if node.target is LINEAR else groups_of(node)
    return max(1, min(ROWS, MAX_VALUES // (groups * weight[0].numel())))


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


def _learn(graph: GraphModule, layer: Layer, patches: Tensor, wanted: Tensor, *, seed: int) -> Reconstruction:
    node = next(item for item in graph.graph.nodes if item.name == layer.node)
    quantize = node.args[1].args[0]
    weight = get_constant(graph, quantize.args[0]).detach()
    scale, low, high = _grid(graph, quantize, weight)
    steps = weight / scale
    floor = torch.floor(steps)
    nearest = torch.clamp(torch.round(steps), low, high)

    def error(values: Tensor) -> Tensor:
        flat = _flat_weight(node, values)
        return _loss(torch.einsum("ngk,gok->ngo", patches, flat), wanted)

    # A sigmoid stretched beyond 0..1 and cut there; it starts at the fraction of each weight.
    fraction = ((steps - floor - STRETCH[0]) / (STRETCH[1] - STRETCH[0])).clamp(1e-4, 1 - 1e-4)
    choice = torch.log(fraction / (1 - fraction)).requires_grad_()
    optimizer = torch.optim.Adam([choice], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    size = float(wanted.var().clamp_min(1e-12))
    for step in range(STEPS):
        batch = torch.randint(len(patches), (min(BATCH, len(patches)),), generator=generator)
        up = (torch.sigmoid(choice) * (STRETCH[1] - STRETCH[0]) + STRETCH[0]).clamp(0, 1)
        flat = _flat_weight(node, torch.clamp(floor + up, low, high) * scale)
        loss = _loss(torch.einsum("ngk,gok->ngo", patches[batch], flat), wanted[batch]) / size
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
