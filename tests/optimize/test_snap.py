from __future__ import annotations

import torch
from torch import nn

from edgecv.optimize.capture import capture
from edgecv.optimize.graph import get_constant
from edgecv.optimize.pt2e import convert_pt2e, prepare_qat_pt2e
from edgecv.optimize.quantizer import EdgeQuantizer
from edgecv.optimize.snap import snap_biases, snap_weights

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
