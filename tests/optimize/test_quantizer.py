from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgecv.errors import EdgecvError
from edgecv.optimize.capture import capture
from edgecv.optimize.pt2e import MinMaxObserver, QuantizationSpec, convert_pt2e, prepare_qat_pt2e
from edgecv.optimize.quantizer import ANNOTATION, EdgeQuantizer

from .quantize_nets import example, images, residual, targets

QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


def test_annotations_say_what_the_plan_says() -> None:
    graph = capture(residual(), example())
    quantizer = EdgeQuantizer(scheme="portable")
    quantizer.validate(quantizer.annotate(graph))
    annotated = {node.name: node.meta[ANNOTATION] for node in graph.graph.nodes if ANNOTATION in node.meta}
    assert annotated["conv2d"].output_qspec is None  # the ReLU behind it has it
    assert annotated["relu_1"].output_qspec.edge_or_node.name == "relu"
    assert isinstance(annotated["relu"].output_qspec, QuantizationSpec)
    assert "reshape" in annotated or "flatten" in annotated or "view" in annotated


@pytest.mark.parametrize(("scheme", "qscheme"), [("portable", "symmetric"), ("affine", "affine")])
def test_schemes_differ_in_activations_only(scheme: Any, qscheme: str) -> None:
    graph = capture(residual(), example())
    EdgeQuantizer(scheme=scheme).annotate(graph)
    nodes = {node.name: node for node in graph.graph.nodes}
    activation = nodes["relu"].meta[ANNOTATION].output_qspec
    assert str(activation.qscheme) == f"torch.per_tensor_{qscheme}"
    assert (activation.dtype, activation.quant_min, activation.quant_max) == (torch.int8, -128, 127)
    weight = next(iter(nodes["conv2d"].meta[ANNOTATION].input_qspec_map.values()))
    assert weight.qscheme == torch.per_channel_symmetric
    assert (weight.quant_min, weight.quant_max, weight.ch_axis) == (-127, 127, 0)


def test_observers_measure_and_fake_quantisers_round() -> None:
    for training in (False, True):
        graph = capture(residual(), example())
        EdgeQuantizer(scheme="portable", training=training).annotate(graph)
        node = next(node for node in graph.graph.nodes if node.name == "relu")
        assert (node.meta[ANNOTATION].output_qspec.observer_or_fake_quant_ctr is MinMaxObserver) is not training


def test_torchao_takes_the_annotations() -> None:
    graph = prepare_qat_pt2e(
        capture(residual(), example()), EdgeQuantizer(scheme="portable", keep_float=("gate",), training=True)
    )
    with torch.no_grad():
        for picture in torch.from_numpy(images(8)).split(1):
            graph(picture)
    converted = convert_pt2e(graph, fold_quantize=False)
    quantising = [node for node in converted.graph.nodes if node.target is QUANTIZE]
    scales = {node.args[0].name: node.args[1] for node in quantising}
    assert scales["relu"] == scales["conv2d_1"] == scales["relu_1"]
    assert all(node.args[2] == 0 for node in quantising)
    assert targets(converted).count("quantize_per_channel") == 3  # not the gate


def test_a_scale_between_a_layer_and_its_clamp_is_a_defect() -> None:
    graph = capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)), example())
    quantizer = EdgeQuantizer(scheme="portable")
    quantizer.annotate(graph)
    nodes = {node.name: node for node in graph.graph.nodes}
    nodes["conv2d"].meta[ANNOTATION].output_qspec = nodes["relu"].meta[ANNOTATION].output_qspec
    with pytest.raises(EdgecvError, match="conv2d is quantised before its relu"):
        quantizer.validate(graph)
