"""No sum of a quantised layer lies near a tie, so that engines whose arithmetic differs in the last digit agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgecv.optimize.graph import DEQUANTIZE, QUANTIZE, get_constant
from edgecv.optimize.requantize import LARGEST_ODD, SMALLEST, avoid_ties, odd_fraction
from edgecv.optimize.snap import snap_weights

from .quantize_nets import example, residual
from .test_snap import layers, quantised

FLOAT_ERRS = 5e-5
"""How far two engines' products of 255 steps lie apart at most, in steps."""


@given(st.lists(st.floats(SMALLEST, 4.0), min_size=1, max_size=8), st.integers(-(2**17), 2**17))
def test_no_whole_number_times_an_odd_fraction_is_near_a_tie(values: list[float], total: int) -> None:
    wanted = np.asarray(values)
    found = odd_fraction(wanted)
    assert (np.abs(found / wanted - 1) < 0.004).all()
    made = total * found
    made = made[np.abs(made) < 256]
    assert (np.abs(made - np.floor(made) - 0.5) > FLOAT_ERRS).all()


def test_common_factors_have_small_denominators() -> None:
    wanted = np.geomspace(2 / LARGEST_ODD, 0.9, 500)
    totals = np.arange(1, 2 * LARGEST_ODD)[:, None]
    made = totals * odd_fraction(wanted)
    assert np.abs(made - np.floor(made) - 0.5).min() > 0.9 * 0.5 / LARGEST_ODD


def requantisation(graph: torch.fx.GraphModule, layer: torch.fx.Node) -> np.ndarray:
    """What the int32 sums of a layer are multiplied by, for each channel."""
    quantiser = next(iter(layer.users))
    quantiser = quantiser if quantiser.target is QUANTIZE[0] else next(iter(quantiser.users))
    steps = get_constant(graph, layer.args[1].args[1]).detach().double().numpy()
    return steps * layer.args[0].args[1] / quantiser.args[1]


def whole_weights(graph: torch.fx.GraphModule, layer: torch.fx.Node) -> torch.Tensor:
    quantize = layer.args[1].args[0]
    arguments = [get_constant(graph, item) if isinstance(item, torch.fx.Node) else item for item in quantize.args]
    return quantize.target(*arguments)


def test_every_layer_of_a_graph_gets_such_factors_and_keeps_its_int8_weights() -> None:
    graph = quantised(residual())
    snap_weights(graph)
    before, weights = graph(example()), {layer.name: whole_weights(graph, layer) for layer in layers(graph)}
    assert avoid_ties(graph) == 4 + 2, "four layers, a product and a mean"
    for layer in layers(graph):
        assert torch.equal(whole_weights(graph, layer), weights[layer.name])
        factors = requantisation(graph, layer)
        assert np.abs(odd_fraction(factors) / factors - 1).max() < 1e-6
    assert (graph(example()) - before).abs().max() < 0.05 * before.abs().max()


class Faint(nn.Module):
    """A layer with a channel that gives a millionth of the others, and one that gives nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        with torch.no_grad():
            self.conv.weight[3] *= 1e-6
            self.conv.weight[5] = 0.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image)


def test_channels_that_give_next_to_nothing_get_a_scale_that_keeps_ties_away() -> None:
    graph = quantised(Faint().eval())
    before = graph(example())
    snap_weights(graph)
    avoid_ties(graph)
    (layer,) = layers(graph)
    assert requantisation(graph, layer).min() > 0.999 * SMALLEST
    weights = whole_weights(graph, layer)
    assert int(weights[3].abs().max()) < 2
    assert int(weights[0].abs().max()) > 100
    step = next(iter(layer.users)).args[1]
    assert (graph(example()) - before).abs().max() < 1.01 * step


class Twice(nn.Module):
    """One convolution on two tensors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.stem(image)
        return self.head(first) * self.head(nn.functional.max_pool2d(first, 3, 1, 1).relu())


def test_weights_of_two_layers_are_left_alone() -> None:
    graph = quantised(Twice().eval())
    weight = get_constant(graph, layers(graph)[1].args[1].args[0].args[0]).clone()
    avoid_ties(graph)
    assert torch.equal(get_constant(graph, layers(graph)[1].args[1].args[0].args[0]), weight)
    assert torch.equal(whole_weights(graph, layers(graph)[1]), whole_weights(graph, layers(graph)[2]))


class Smooth(nn.Module):
    """SiLU behind two layers; what the first gives is read by a sum as well."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.one(image)
        second = self.other(nn.functional.silu(first))
        return nn.functional.silu(second) + first


class Gate(nn.Module):
    """A squeeze-and-excitation gate: a mean over the picture and a product, ``twice`` a sum behind it."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.gate, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.twice = twice

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.one(image)
        gated = first * nn.functional.hardsigmoid(self.gate(first.mean((2, 3), keepdim=True)))
        return self.last(gated + first if self.twice else gated)


@pytest.mark.parametrize("twice", [False, True])
def test_products_and_means_get_such_a_factor_where_their_scale_is_their_own(twice: bool) -> None:
    graph = quantised(Gate(twice=twice).eval())
    avoid_ties(graph)
    (mean,) = (node for node in graph.graph.nodes if node.target is torch.ops.aten.mean.dim)
    (product,) = (node for node in graph.graph.nodes if node.target is torch.ops.aten.mul.Tensor)
    steps = [source.args[1] for source in product.args]
    for factor, moved in (
        (mean.args[0].args[1] / 14**2 / next(iter(mean.users)).args[1], True),
        (steps[0] * steps[1] / next(iter(product.users)).args[1], not twice),
    ):
        assert bool(abs(odd_fraction(np.asarray(factor)) / factor - 1) < 1e-9) == moved


def activation_scales(graph: torch.fx.GraphModule) -> list[float]:
    return [node.args[1] for node in graph.graph.nodes if node.target is QUANTIZE[0]]


def test_no_value_of_a_table_is_near_a_tie() -> None:
    graph = quantised(Smooth().eval())
    scales = activation_scales(graph)
    avoid_ties(graph)
    moved = [one for one, other in zip(scales, activation_scales(graph), strict=True) if one != other]
    assert len(moved) == 1, "what the sum reads too must keep its scale"
    first, second = (node for node in graph.graph.nodes if "silu" in str(node.target))
    before, behind = second.args[0], next(iter(second.users))
    assert before.target is DEQUANTIZE[0]
    values = torch.arange(-128, 128, dtype=torch.float64) - before.args[2]
    made = nn.functional.silu(values * before.args[1]) / behind.args[1]
    assert (made - made.floor() - 0.5).abs().min() > 5e-4
    assert before.args[1] == before.args[0].args[1]
    assert first.args[0].args[1] in scales


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_layers_that_stayed_float_are_left_alone(scale: float) -> None:
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU()))
    before = graph(example() * scale)
    assert avoid_ties(graph) == 0
    assert torch.equal(graph(example() * scale), before)
