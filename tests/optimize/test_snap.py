from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.optimize.capture import capture
from edgecv.optimize.graph import DEQUANTIZE, QUANTIZE, get_constant
from edgecv.optimize.pt2e import convert_pt2e, prepare_qat_pt2e
from edgecv.optimize.quantizer import EdgeQuantizer
from edgecv.optimize.snap import MOST_MOVED, snap_biases, snap_slopes, snap_weights

from .quantize_nets import example, images, residual


def quantised(module: nn.Module) -> torch.fx.GraphModule:
    graph = prepare_qat_pt2e(capture(module, example()), EdgeQuantizer(scheme="portable", training=True))
    with torch.no_grad():
        for picture in torch.from_numpy(images(8)).split(1):
            graph(picture)
    return convert_pt2e(graph, fold_quantize=False)


def layers(graph: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return [node for node in graph.graph.nodes if "conv2d.default" in str(node.target) or "linear" in str(node.target)]


def test_weights_land_on_their_grid_and_the_graph_computes_the_same() -> None:
    graph = quantised(residual())
    before = graph(example())
    assert snap_weights(graph) == 4
    assert torch.equal(graph(example()), before)
    for layer in layers(graph):
        quantize = layer.args[1].args[0]
        weight, scale = get_constant(graph, quantize.args[0]), get_constant(graph, quantize.args[1])
        steps = weight.flatten(1) / scale[:, None]
        assert (steps - steps.round()).abs().max() < 1e-4
        assert steps.abs().max() < 127.5


def test_biases_land_on_multiples_of_input_scale_times_weight_scale() -> None:
    graph = quantised(residual())
    before = {layer.name: get_constant(graph, layer.args[2]).double() for layer in layers(graph)}
    assert snap_biases(graph) == 4
    for layer in layers(graph):
        values, weights = layer.args[0], layer.args[1]
        step = get_constant(graph, weights.args[1]).double() * values.args[1]
        bias = get_constant(graph, layer.args[2]).double()
        steps = bias / step
        assert (steps - steps.round()).abs().max() < 0.01
        assert ((bias - before[layer.name]).abs() <= step * 0.501).all()


def test_layers_that_stayed_float_keep_their_bias() -> None:
    graph = capture(residual(), example())
    assert snap_biases(graph) == 0
    assert snap_weights(graph) == 0


class Leaky(nn.Module):
    """Two leaky ReLUs behind layers; what the first layer gives is read once more by a sum where ``both`` is set."""

    def __init__(self, slope: float, *, both: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.slope, self.both = slope, both

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.one(image)
        second = self.other(torch.nn.functional.leaky_relu(first, self.slope))
        return torch.nn.functional.leaky_relu(second + first if self.both else second, self.slope)


def around_slopes(graph: torch.fx.GraphModule) -> list[tuple[float, float]]:
    """Scales before and behind each leaky ReLU."""
    nodes = [node for node in graph.graph.nodes if "leaky_relu" in str(node.target)]
    return [(node.args[0].args[1], next(iter(node.users)).args[1]) for node in nodes]


@pytest.mark.parametrize("slope", [0.01, 0.05, 0.1, 0.25])
def test_scales_before_a_leaky_relu_give_factors_of_whole_256ths(slope: float) -> None:
    graph = quantised(Leaky(slope).eval())
    before = around_slopes(graph)
    assert snap_slopes(graph) == 2
    for (scale, behind), (old, same) in zip(around_slopes(graph), before, strict=True):
        assert behind == same
        assert abs(scale / old - 1) <= MOST_MOVED
        factor = 256 * scale / behind
        assert abs(factor - round(factor)) < 0.01
        steps = np.arange(-128, 128)
        float_engine = np.round(steps * np.where(steps < 0, slope * (1 - 2e-5), 1) * scale / behind)
        xnnpack = np.floor((steps * np.where(steps < 0, round(slope * factor), round(factor)) + 128) / 256)
        assert (float_engine != xnnpack).mean() < 0.02
    for node in graph.graph.nodes:
        if node.target is DEQUANTIZE[0] and node.args[0].target is QUANTIZE[0]:
            assert node.args[1] == node.args[0].args[1]


def test_a_tensor_that_others_read_too_keeps_its_scale() -> None:
    graph = quantised(Leaky(0.1, both=True).eval())
    before = around_slopes(graph)
    snap_slopes(graph)
    assert around_slopes(graph) == before
