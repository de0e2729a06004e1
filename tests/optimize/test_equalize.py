from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.optimize.capture import capture
from edgecv.optimize.equalize import equalize

from .quantize_nets import example, residual

FACTORS = 2.0 ** torch.arange(-4, 4).float()
CHANNELS = len(FACTORS)


class Chain(nn.Module):
    """A layer, a scale-keeping operator and a reader; ``between`` is what stands there."""

    def __init__(self, between: str, reader: str = "conv") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.between = nn.Conv2d(3, 8, 3, padding=1), between
        readers = {
            "conv": nn.Conv2d(8, 6, 3),
            "grouped": nn.Conv2d(8, 6, 3, groups=2),
            "depthwise": nn.Conv2d(8, 8, 3, groups=8),
            "transposed": nn.ConvTranspose2d(8, 6, 2, stride=2),
            "linear": nn.Linear(8, 6),
        }
        self.two = readers[reader]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = self.one(image)
        if self.between == "sum":
            made = functional.relu(made + self.one(image * 0.5))
        elif self.between == "pool":
            made = functional.max_pool2d(functional.leaky_relu(made), 2)
        elif self.between == "mean":
            made = made.mean((2, 3))
        elif self.between == "residual":
            made = functional.relu(made)
            return self.two(made), made  # type: ignore[return-value]
        else:
            made = getattr(functional, self.between)(made)
        return self.two(made)


def spread(module: nn.Module) -> nn.Module:
    """The same function with the channels of ``one`` scaled by powers of 2."""
    with torch.no_grad():
        module.one.weight *= FACTORS.reshape(-1, 1, 1, 1)
        module.one.bias *= FACTORS
    return module


def ratio(graph: torch.fx.GraphModule) -> float:
    """Largest over smallest channel of the first layer's weights."""
    sizes = graph.one.weight.detach().flatten(1).abs().amax(dim=1)
    return float(sizes.max() / sizes.min())


@pytest.mark.parametrize("reader", ["conv", "grouped", "depthwise", "transposed"])
@pytest.mark.parametrize("between", ["relu", "pool"])
def test_channels_are_evened_out_and_the_function_stays(between: str, reader: str) -> None:
    module = spread(Chain(between, reader))
    graph = capture(module, example())
    before = ratio(graph)
    assert equalize(graph) == CHANNELS
    assert ratio(graph) < before / 4
    assert torch.allclose(graph(example()), module(example()), rtol=1e-4, atol=1e-3)


def test_a_mean_and_a_linear_layer() -> None:
    module = spread(Chain("mean", "linear"))
    graph = capture(module, example())
    before = ratio(graph)
    assert equalize(graph) == CHANNELS
    assert ratio(graph) < before / 4
    assert torch.allclose(graph(example()), module(example()), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("between", ["relu6", "silu", "sigmoid", "hardswish"])
def test_what_does_not_keep_scales_is_left_alone(between: str) -> None:
    graph = capture(spread(Chain(between)), example())
    assert equalize(graph) == 0


def test_outputs_of_the_network_are_left_alone() -> None:
    graph = capture(spread(Chain("residual")), example())
    assert equalize(graph) == 0


def test_a_weight_with_two_layers_is_left_alone() -> None:
    graph = capture(spread(Chain("sum")), example())
    assert equalize(graph) == 0


def test_residual_sums_scale_all_their_makers() -> None:
    torch.manual_seed(0)

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.side, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            made = functional.relu(self.one(image))
            return self.two(functional.relu(made + self.side(made)))

    module = Sum()
    with torch.no_grad():  # the whole stream by powers of 2
        for layer in (module.one, module.side):
            layer.weight *= FACTORS.reshape(-1, 1, 1, 1)
            layer.bias *= FACTORS
        for layer in (module.side, module.two):
            layer.weight /= FACTORS.reshape(1, -1, 1, 1)
    graph = capture(module, example())
    before = ratio(graph)
    assert equalize(graph) == CHANNELS
    assert ratio(graph) < before / 8
    assert torch.allclose(graph(example()), module(example()), rtol=1e-4, atol=1e-3)


def test_dead_channels_and_real_networks_stay_finite() -> None:
    module = copy.deepcopy(residual())
    with torch.no_grad():
        module.stem[1].weight[0] = 0  # type: ignore[index]
        module.stem[1].bias[0] = 0  # type: ignore[index]
    graph = capture(module, example())
    equalize(graph)
    assert torch.allclose(graph(example()), module(example()), atol=1e-4)
