"""Ranges of activations searched on streamed histograms, and biases corrected for the rounded weights.

NNCF places the Q/DQ nodes; here their scales are replaced. Memory holds one picture and one histogram per
int8 tensor, whatever the number of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgecv.optimize.behind import activations, best_range_behind
from edgecv.optimize.examples import Example
from edgecv.optimize.graph import (
    DEQUANTIZE,
    LINEAR,
    QUANTIZE,
    TRANSPOSED,
    fake,
    get_constant,
    groups_of,
    replace_argument,
    set_constant,
)
from edgecv.optimize.histogram import Histogram, Range, Search, best_range, joined
from edgecv.optimize.rules import Plan
from edgecv.optimize.switches import Originals, make_board

__all__ = ["correct_biases", "fit_weight_scales", "scale_and_zero", "search_ranges", "set_scales"]

SMALLEST_SCALE = 2.0**-40
"""Of a tensor that is always 0."""


@dataclass
class _Mean:
    """The mean of each channel over all pictures."""

    axis: int
    total: Tensor | None = None
    pictures: int = 0

    def update(self, values: Tensor) -> None:
        kept = values.movedim(self.axis, -1).reshape(-1, values.shape[self.axis]).double().mean(dim=0)
        self.total = kept if self.total is None else self.total + kept
        self.pictures += 1


@dataclass(frozen=True)
class _Group:
    """Activations that share one scale, by the names of their nodes."""

    histograms: dict[str, Histogram] = field(default_factory=dict)


def search_ranges(
    graph: GraphModule,
    plan: Plan,
    pictures: Iterable[Example],
    *,
    search: Search,
    symmetric: bool,
    fixed: Mapping[str, Range] | None = None,
) -> dict[str, Range]:
    """Give every int8 activation of the Q/DQ ``graph`` the range found by ``search``; returns it by node name.

    ``pictures`` are `(1, C, H, W)` float32, streamed once through the float network. Tensors that the plan
    gives one scale keep one: they are searched together. Tensors before a SiLU, leaky ReLU or the like are ranged by
    what comes out of it (`edgecv.optimize.behind`). Tensors in ``fixed`` take that range. ``symmetric`` keeps every
    zero point at 0.

    Raises:
        DataError: an activation is not finite on a picture.
    """
    board = make_board(graph)
    board.turn(())
    histograms = {key: Histogram() for key in board.switches}
    for key, switch in board.switches.items():
        switch.watch = partial(_count, histograms[key])
    for picture in pictures:
        board.run(picture)
    owners = {node.name: owner.name for node, owner in plan.outputs.items()}
    groups: dict[str, _Group] = {}
    for key, histogram in histograms.items():
        groups.setdefault(owners.get(key, key), _Group()).histograms[key] = histogram
    found, behind = dict[str, Range](), activations(graph)
    for group in groups.values():
        first, histogram = next(iter(group.histograms.items()))
        if len(group.histograms) == 1 and first in behind:
            chosen = best_range_behind(histogram, behind[first], symmetric=symmetric)
        else:
            chosen = best_range(joined(list(group.histograms.values())), search, symmetric=symmetric)
        found |= dict.fromkeys(group.histograms, chosen)
    found |= fixed or {}
    set_scales(graph, found, symmetric=symmetric)
    return found


def fit_weight_scales(graph: GraphModule) -> int:
    """Give every weight the scale that uses all of -127..127; returns how many changed.

    NNCF leaves the first layer's weights one bit, against an overflow in processors that multiply pairs of
    8-bit numbers into 16 bits. Engines that need it take care of it themselves, and the bit is lost on all targets.
    It also gives a transposed convolution a scale for each input instead of each output, which no engine computes.
    """
    changed = 0
    for node in graph.graph.nodes:
        if node.target not in QUANTIZE or node.args[0].op != "get_attr":
            continue
        weight = get_constant(graph, node.args[0]).detach()
        if node.target is QUANTIZE[0]:
            scale = max(float(weight.abs().max()) / int(node.args[4]), SMALLEST_SCALE)
            changed += not math.isclose(scale, node.args[1], rel_tol=1e-3)
            for item in (node, *node.users):
                item.args = (item.args[0], float(np.float32(scale)), *item.args[2:])
        else:
            _by_output(graph, node)
            old = get_constant(graph, node.args[1])
            sizes = weight.abs().movedim(int(node.args[3]), 0).flatten(1).amax(dim=1) / int(node.args[5])
            fresh = sizes.clamp_min(SMALLEST_SCALE).to(old.dtype).reshape(old.shape)
            changed += not bool(torch.allclose(old, fresh, rtol=1e-3, atol=0.0))
            old.copy_(fresh)
    graph.recompile()
    return changed


def _by_output(graph: GraphModule, node: Node) -> None:
    """Move the scales of a transposed convolution's weight to the axis of its outputs; their values are set later."""
    (dequantize,) = node.users
    if node.args[3] != 0 or not all(user.target in TRANSPOSED and groups_of(user) == 1 for user in dequantize.users):
        return
    outputs = get_constant(graph, node.args[0]).shape[1]  # type: ignore[arg-type]
    for place in (1, 2):
        constant: Any = node.args[place]
        made = get_constant(graph, constant).new_zeros(outputs)
        set_constant(graph, str(constant.target), made)
        constant.meta["val"] = fake(node, made)
    for item in (node, dequantize):
        item.args = (*item.args[:3], 1, *item.args[4:])


def correct_biases(graph: GraphModule, pictures: Iterable[Example], *, originals: Originals) -> dict[str, float]:
    """Add to each layer's bias what its rounded weights take from its mean output; returns the largest shift by layer.

    Empirical bias correction: `(weight - rounded weight) x mean input` per output channel, of section 4.2 of
    Nagel et al., arXiv:1906.04721. ``originals`` is the float network; ``pictures`` are `(1, C, H, W)` float32,
    streamed once through it.
    """
    board = make_board(graph, originals)
    board.turn(())
    means: dict[str, _Mean] = {}
    for layer in board.layers:
        axis = -1 if layer.target is LINEAR else 1
        mean = means.setdefault(layer.input, _Mean(axis))
        board.switches[layer.input].watch = mean.update
    for picture in pictures:
        board.run(picture)
    nodes = {node.name: node for node in graph.graph.nodes}
    shifts = {}
    for layer in board.layers:
        mean = means[layer.input]
        if mean.total is None:
            continue
        node, weight = nodes[layer.node], board.constants[layer.weight][0]
        assert weight.plain is not None
        assert weight.quantized is not None
        shift = _shift(node, (weight.plain - weight.quantized).double(), mean.total / mean.pictures)
        old = originals.biases.get(layer.weight)
        replace_argument(graph, node, 2, (shift if old is None else old.double() + shift).float())
        shifts[layer.name] = float(shift.abs().max())
    graph.recompile()
    return shifts


def _shift(node: Node, lost: Tensor, mean: Tensor) -> Tensor:
    """What a layer's mean output per channel loses, `(O,)`, where its weights lose ``lost``; ``mean`` is `(C,)`."""
    if node.target is LINEAR:
        return lost @ mean
    groups = groups_of(node)
    lost = lost.flatten(2).sum(dim=2)
    if node.target in TRANSPOSED:  # (C, O / groups); each output pixel gets a stride's share of the kernel
        stride = node.args[3] if len(node.args) > 3 else (1,)
        share = float(np.prod(stride if isinstance(stride, (list, tuple)) else [stride]))  # type: ignore[arg-type]
        parts = lost.reshape(groups, -1, lost.shape[1]) * mean.reshape(groups, -1, 1)
        return parts.sum(dim=1).reshape(-1) / share
    parts = lost.reshape(groups, -1, lost.shape[1]) * mean.reshape(groups, 1, -1)
    return parts.sum(dim=2).reshape(-1)


def _count(histogram: Histogram, values: Tensor) -> None:
    histogram.update(values.detach().float().contiguous().numpy())


def scale_and_zero(found: Range, low: int, high: int, *, symmetric: bool) -> tuple[float, int]:
    """Scale and zero point that put the range ``found`` on the integers ``low..high``.

    The scale is a float32, which is what every engine's file holds.
    """
    if symmetric:
        scale, zero = found.high / high, 0
    else:
        scale = (found.high - found.low) / (high - low)
        zero = round(low - found.low / scale) if scale > 0 else 0
    return float(np.float32(max(scale, SMALLEST_SCALE))), min(max(zero, low), high)


def set_scales(graph: GraphModule, ranges: Mapping[str, Range], *, symmetric: bool) -> None:
    """Write ``ranges``, by the name of the node that makes the tensor, into the Q/DQ nodes of ``graph``."""
    for node in graph.graph.nodes:
        if node.target is not QUANTIZE[0] or node.args[0].name not in ranges:
            continue
        low, high = int(node.args[3]), int(node.args[4])
        scale, zero = scale_and_zero(ranges[node.args[0].name], low, high, symmetric=symmetric)
        for item in (node, *[user for user in node.users if user.target is DEQUANTIZE[0]]):
            item.args = (item.args[0], scale, zero, *item.args[3:])
    graph.recompile()
