"""TensorRT's rules for Q/DQ graphs: a sound graph passes, every planted fault is named with its node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgecv.backends import onnx_qdq
from edgecv.backends.tensorrt_rules import problems

from .networks import GraphWriter, write_network


@pytest.fixture
def sound(qdq_model: Any) -> Any:
    onnx_qdq.fold_weights(qdq_model)
    return qdq_model


def node_of(model: Any, output: str) -> Any:
    return next(node for node in model.graph.node if node.output[0] == output)


def constant(model: Any, name: str, value: np.ndarray) -> None:
    found = next(item for item in model.graph.initializer if item.name == name)
    found.CopyFrom(numpy_helper.from_array(np.asarray(value), name))


def test_a_sound_graph_has_no_problems(sound: Any) -> None:
    assert problems(sound) == []


def test_weights_that_are_not_folded_and_not_clipped_are_sound() -> None:
    assert problems(write_network(GraphWriter([], {}), clip=False).model()) == []


def test_a_clip_between_quantise_and_dequantise_is_named(qdq_model: Any) -> None:
    found = problems(qdq_model)
    assert len(found) == 3
    assert "Clip node_w1_c works on the quantised values of QuantizeLinear node_w1_q" in found[0]


def test_affine_activations_are_named() -> None:
    model = write_network(GraphWriter([], {}, np.int8, 3), clip=False).model()
    found = problems(model)
    assert len(found) == 2 * 7  # both nodes of every activation pair
    assert "QuantizeLinear node_image_q: zero point 3; TensorRT takes 0 only (use scheme: portable)" in found


def test_uint8_is_named() -> None:
    model = write_network(GraphWriter([], {}, np.uint8, 0), clip=False).model()
    assert any("node_image_q: stores uint8; TensorRT takes int8 only" in line for line in problems(model))


def test_a_weight_zero_point_is_named(sound: Any) -> None:
    constant(sound, "w2_z", np.array([0, 0, -7, 0, 0, 0, 0, 0], np.int8))
    assert problems(sound) == [
        "DequantizeLinear node_w2_dq: zero point -7; TensorRT takes 0 only (use scheme: portable)"
    ]


def test_one_scale_for_a_whole_weight_is_allowed(sound: Any) -> None:
    constant(sound, "w2_s", np.float32(0.01))
    constant(sound, "w2_z", np.int8(0))
    assert problems(sound) == []


def test_scales_along_the_wrong_axis_are_named(sound: Any) -> None:
    node = node_of(sound, "w2_dq")
    node.attribute[0].i = 1
    assert problems(sound) == ["DequantizeLinear node_w2_dq: scales along axis 1; Conv node_y2 needs axis 0"]


def test_the_linear_layers_axis_follows_its_transposition(sound: Any) -> None:
    gemm = node_of(sound, "logits")
    del gemm.attribute[:]
    assert problems(sound) == ["DequantizeLinear node_w3_dq: scales along axis 0; Gemm node_logits needs axis 1"]


def test_per_channel_activations_are_named(sound: Any) -> None:
    constant(sound, "y2_s", np.full(8, 0.06, np.float32))
    constant(sound, "y2_z", np.zeros(8, np.int8))
    assert any("node_y2_q: 8 scales on an activation" in line for line in problems(sound))


def test_scales_that_are_computed_are_named(sound: Any) -> None:
    node_of(sound, "y2_q").input[1] = "sum"
    assert problems(sound) == ["QuantizeLinear node_y2_q: scale and zero point must be constants"]


def split_first_layer(model: Any) -> None:
    """Put a Q/DQ pair between the first convolution and its ReLU."""
    for name, kind, ends in (("y1_q", "QuantizeLinear", "y1"), ("y1_dq", "DequantizeLinear", "y1_q")):
        node = helper.make_node(kind, [ends, "r1_s", "r1_z"], [name], name=f"node_{name}")
        model.graph.node.insert(list(model.graph.node).index(node_of(model, "r1")), node)
    node_of(model, "r1").input[0] = "y1_dq"


def test_a_pair_between_a_layer_and_its_relu_is_named(sound: Any) -> None:
    split_first_layer(sound)
    found = problems(sound)
    pair = "QuantizeLinear node_y1_q stands between Conv node_y1 and Relu node_r1"
    assert found == [f"{pair}; they cannot be fused: quantise behind it"]


def test_a_pair_between_a_layer_and_a_hard_swish_is_sound(sound: Any) -> None:
    split_first_layer(sound)
    node_of(sound, "r1").op_type = "HardSwish"
    assert problems(sound) == []


def test_a_pair_before_a_residual_addition_is_sound(sound: Any) -> None:
    assert node_of(sound, "sum").input[0] == "y2_dq"
    assert problems(sound) == []


def test_int32_biases_are_sound(sound: Any) -> None:
    node = helper.make_node("DequantizeLinear", ["b1_i", "b1_s", "b1_z"], ["b1_dq"], name="node_b1_dq", axis=0)
    sound.graph.node.insert(0, node)
    for name, value in (("b1_i", np.ones(8, np.int32)), ("b1_s", np.full(8, 0.1, np.float32))):
        sound.graph.initializer.append(numpy_helper.from_array(value, name))
    sound.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.int32), "b1_z"))
    node_of(sound, "y1").input[2] = "b1_dq"
    assert problems(sound) == []
