"""The rewrites of Q/DQ graphs change no number; held against ONNX's reference evaluator."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import pytest

from edgecv.backends import onnx_qdq, openvino_qdq

from .networks import GraphWriter, write_network


def evaluate(model: Any, picture: np.ndarray) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    result: np.ndarray = ReferenceEvaluator(model).run(None, {"image": picture})[0]
    return result


def ops(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_folding_stores_weights_as_int8_and_keeps_the_result(qdq_model: Any, picture: np.ndarray) -> None:
    import onnx

    before = evaluate(qdq_model, picture)
    assert onnx_qdq.fold_weights(qdq_model) == 3
    onnx.checker.check_model(qdq_model, full_check=True)
    np.testing.assert_array_equal(evaluate(qdq_model, picture), before)
    stored = {item.name: item for item in qdq_model.graph.initializer}
    assert stored["w1_c"].data_type == onnx.TensorProto.INT8
    assert "w1" not in stored
    assert ops(qdq_model)["Clip"] == 0


def test_folding_holds_the_narrow_range_of_the_clip(qdq_model: Any) -> None:
    from onnx import numpy_helper

    weight = next(item for item in qdq_model.graph.initializer if item.name == "w1")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = -1000.0
    weight.CopyFrom(numpy_helper.from_array(values, "w1"))
    onnx_qdq.fold_weights(qdq_model)
    stored = next(item for item in qdq_model.graph.initializer if item.name == "w1_c")
    assert numpy_helper.to_array(stored).min() == -127


def test_folding_reads_constant_nodes_and_is_done_once(qdq_model: Any, picture: np.ndarray) -> None:
    from onnx import helper

    before = evaluate(qdq_model, picture)
    weight = next(item for item in qdq_model.graph.initializer if item.name == "w3")
    qdq_model.graph.initializer.remove(weight)
    qdq_model.graph.node.insert(0, helper.make_node("Constant", [], ["w3"], value=weight))
    assert onnx_qdq.fold_weights(qdq_model) == 3
    np.testing.assert_array_equal(evaluate(qdq_model, picture), before)
    assert ops(qdq_model)["Constant"] == 0
    assert onnx_qdq.fold_weights(qdq_model) == 0


@pytest.mark.parametrize(("dtype", "zero"), [(np.int8, 0), (np.int8, -128), (np.int8, 5)])
def test_uint8_activations_give_the_same_numbers(dtype: Any, zero: int, picture: np.ndarray) -> None:
    import onnx

    model = write_network(GraphWriter([], {}, dtype, zero)).model()
    onnx_qdq.fold_weights(model)
    before = evaluate(model, picture)
    assert onnx_qdq.to_uint8(model) == 0
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(evaluate(model, picture), before)
    types = {item.name: item.data_type for item in model.graph.initializer}
    assert types["w1_c"] == onnx.TensorProto.INT8
    zeros = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert {types[name] for name in zeros} == {onnx.TensorProto.UINT8}


def test_uint8_files_stay_as_they_are(picture: np.ndarray) -> None:
    model = write_network(GraphWriter([], {}, np.uint8, 128), clip=False).model()
    onnx_qdq.fold_weights(model)
    before = copy.deepcopy(model)
    assert onnx_qdq.to_uint8(model) == 0
    assert model == before


def test_a_value_that_another_operator_reads_is_left_and_counted(qdq_model: Any, picture: np.ndarray) -> None:
    from onnx import helper

    onnx_qdq.fold_weights(qdq_model)
    graph = qdq_model.graph
    reader = next(node for node in graph.node if node.output[0] == "r1_dq")
    position = list(graph.node).index(reader)
    graph.node.insert(position, helper.make_node("Identity", ["r1_q"], ["r1_i"]))
    reader.input[0] = "r1_i"
    before = evaluate(qdq_model, picture)
    assert onnx_qdq.to_uint8(qdq_model) == 1
    np.testing.assert_array_equal(evaluate(qdq_model, picture), before)


def test_an_absent_zero_point_is_uint8_zero() -> None:
    from onnx import helper

    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"])
    zero = onnx_qdq.zero_point(node, {})
    assert zero is not None
    assert (zero.dtype, int(zero)) == (np.uint8, 0)
    assert onnx_qdq.axis_of(node) == 1


def q_inputs(model: Any) -> dict[str, str]:
    """What makes the value that each Q node quantises."""
    maker = {node.output[0]: node.op_type for node in model.graph.node}
    return {n.output[0]: maker.get(n.input[0], "") for n in model.graph.node if n.op_type == "QuantizeLinear"}


@pytest.mark.parametrize(("zero", "clips"), [(0, 2), (-128, 0), (5, 2)])
def test_relu_moves_behind_the_quantiser_with_the_same_numbers(zero: int, clips: int, picture: np.ndarray) -> None:
    import onnx

    model = write_network(GraphWriter([], {}, np.int8, zero)).model()
    onnx_qdq.fold_weights(model)
    onnx_qdq.to_uint8(model)
    before = evaluate(model, picture)
    assert onnx_qdq.clip_behind(model) == 2
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(evaluate(model, picture), before)
    assert "Relu" not in ops(model)
    assert ops(model)["Clip"] == clips  # none where the zero point is the smallest value
    assert "Conv" in q_inputs(model).values()


def test_clip_moves_with_both_limits(qdq_model: Any, picture: np.ndarray) -> None:
    from onnx import numpy_helper

    onnx_qdq.fold_weights(qdq_model)
    relu = next(node for node in qdq_model.graph.node if node.op_type == "Relu")
    relu.op_type = "Clip"
    relu.input.extend(["zero", "six"])
    for name, value in (("zero", -0.1), ("six", 0.5)):
        qdq_model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    before = evaluate(qdq_model, picture)
    assert onnx_qdq.clip_behind(qdq_model) == 2
    np.testing.assert_array_equal(evaluate(qdq_model, picture), before)
    bounds = {i.name: int(numpy_helper.to_array(i)) for i in qdq_model.graph.initializer if i.name.startswith("r1_q_")}
    assert bounds == {"r1_q_min": round(-0.1 / 0.03), "r1_q_max": round(0.5 / 0.03)}


def test_a_relu_that_others_read_too_stays(qdq_model: Any, picture: np.ndarray) -> None:
    add = next(node for node in qdq_model.graph.node if node.op_type == "Add")
    add.input[1] = "r1"
    before = evaluate(qdq_model, picture)
    assert onnx_qdq.clip_behind(qdq_model) == 1
    assert ops(qdq_model)["Relu"] == 1
    np.testing.assert_array_equal(evaluate(qdq_model, picture), before)


def test_means_keep_their_axes_and_the_result(picture: np.ndarray) -> None:
    from onnx import TensorProto, checker, helper, numpy_helper

    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("image", picture.shape), ("output", (picture.shape[1],)))
    ]
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["rows"], keepdims=0),
        helper.make_node("ReduceMean", ["rows", "first"], ["output"], keepdims=0),
    ]
    stored = [numpy_helper.from_array(np.array(axes), name) for name, axes in (("axes", [2, 3]), ("first", [0]))]
    model = helper.make_model(helper.make_graph(nodes, "g", *ends, stored), opset_imports=[helper.make_opsetid("", 21)])
    before = evaluate(model, picture)
    assert openvino_qdq.keep_reduced_axes(model) == 2
    checker.check_model(model, full_check=True)
    assert ops(model) == {"ReduceMean": 2, "Squeeze": 2}
    np.testing.assert_array_equal(evaluate(model, picture), before)
    assert openvino_qdq.keep_reduced_axes(model) == 0


def joined(second_step: float) -> Any:
    """Two quantised halves, the second with ``second_step``, joined and quantised by 0.05."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = []
    for name, source, step in (("a", "image", "step"), ("b", "image", "second"), ("c", "cat", "step")):
        if name == "c":
            nodes.append(helper.make_node("Concat", ["a_dq", "b_dq"], ["cat"], axis=1))
        nodes.append(helper.make_node("QuantizeLinear", [source, step, "zero"], [f"{name}_q"]))
        output = "output" if name == "c" else f"{name}_dq"
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", step, "zero"], [output]))
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("image", (1, 3, 8, 8)), ("output", (1, 6, 8, 8)))
    ]
    constants = {"step": np.float32(0.05), "second": np.float32(second_step), "zero": np.int8(0)}
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", *ends, stored), opset_imports=[helper.make_opsetid("", 21)])


def test_values_of_one_scale_are_joined_as_int8() -> None:
    from onnx import checker

    model, image = joined(0.05), np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    before = evaluate(model, image)
    assert openvino_qdq.join_quantised(model) == 1
    checker.check_model(model, full_check=True)
    assert ops(model)["QuantizeLinear"] == 2
    np.testing.assert_array_equal(evaluate(model, image), before)
    assert openvino_qdq.join_quantised(model) == 0


def test_values_of_another_scale_are_quantised_before_they_are_joined() -> None:
    from onnx import checker

    model, image = joined(0.1), np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    before = evaluate(model, image)
    assert openvino_qdq.join_quantised(model) == 1
    checker.check_model(model, full_check=True)
    (concat,) = (node for node in model.graph.node if node.op_type == "Concat")
    makers = {node.output[0]: node.op_type for node in model.graph.node}
    assert [makers[name] for name in concat.input] == ["QuantizeLinear", "QuantizeLinear"]
    np.testing.assert_array_equal(evaluate(model, image), before)
    assert openvino_qdq.join_quantised(model) == 0


def test_float_values_are_quantised_before_they_are_joined() -> None:
    model, image = joined(0.05), np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    (concat,) = (node for node in model.graph.node if node.op_type == "Concat")
    concat.input[1] = "image"
    before = evaluate(model, image)
    assert openvino_qdq.join_quantised(model) == 1
    makers = {node.output[0]: node.op_type for node in model.graph.node}
    assert [makers[name] for name in concat.input] == ["QuantizeLinear", "QuantizeLinear"]
    np.testing.assert_array_equal(evaluate(model, image), before)


def padded(*, second: float = 0.05, value: float = 0.0, zero: int = -41) -> Any:
    """int8 values with a zero point, three channels of zeros added, quantised again."""
    writer = GraphWriter([], {}, np.int8, zero)
    writer.constants |= {"pads": np.array([0, 1, 0, 0, 0, 2, 0, 0]), "value": np.array(value, np.float32)}
    writer.node("Pad", [writer.activation("image", 0.05), "pads", "value"], "wide")
    writer.node("Relu", [writer.activation("wide", second)], "logits_dq")
    return writer.model()


def test_int8_values_are_padded_with_their_zero_point() -> None:
    from onnx import checker

    model, image = padded(), np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    before = evaluate(model, image)
    assert openvino_qdq.pad_quantised(model) == 1
    checker.check_model(model)
    assert ops(model)["QuantizeLinear"] == 1
    np.testing.assert_array_equal(evaluate(model, image), before)


@pytest.mark.parametrize("change", [{"second": 0.1}, {"value": 1.0}])
def test_other_paddings_stay(change: dict[str, float]) -> None:
    assert openvino_qdq.pad_quantised(padded(**change)) == 0


def silu_network(*, readers: int = 1) -> Any:
    """An int8 convolution, x * Sigmoid(x) of its dequantised result, quantised again."""
    writer = GraphWriter([], {}, np.uint8, 128)
    draw = np.random.default_rng(0).normal
    writer.constants["flat"] = np.array([1, 10])
    image = writer.activation("image", 1 / 127)
    writer.node("Conv", [image, writer.weight("w", draw(0, 0.3, (10, 3, 16, 16)).astype(np.float32))], "y")
    made = writer.activation("y", 0.05)
    writer.node("Mul", [made, writer.node("Sigmoid", [made], "gate")], "z")
    for index in range(1, readers):
        writer.node("Neg", ["gate"], f"other{index}")
    writer.node("Reshape", [writer.activation("z", 0.05), "flat"], "logits")
    writer.activation("logits", 0.05)
    return writer.model()


def test_silu_is_one_node_with_the_same_numbers() -> None:
    import onnx
    import onnxruntime

    def run(model: Any) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        made: np.ndarray = session.run(None, {"image": image})[0]
        return made

    image = np.random.default_rng(1).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)
    model = silu_network()
    onnx_qdq.fold_weights(model)
    before = run(model)
    assert onnx_qdq.join_silu(model) == 1
    onnx.checker.check_model(model)
    assert ops(model)["QuickGelu"] == 1
    assert ops(model)["Sigmoid"] == ops(model)["Mul"] == 0
    assert np.abs(before).max() > 0.5
    np.testing.assert_array_equal(run(model), before)
    assert onnx_qdq.join_silu(model) == 0


def test_a_sigmoid_that_others_read_too_stays() -> None:
    model = silu_network(readers=2)
    assert onnx_qdq.join_silu(model) == 0
    assert ops(model)["Sigmoid"] == 1


def summed(*, zero: int, other: str = "") -> Any:
    """An int8 convolution, its SiLU quantised and added to the values before it; ``other`` reads the former too."""
    writer = GraphWriter([], {}, np.int8, zero)
    draw = np.random.default_rng(0).normal
    writer.constants["flat"] = np.array([1, 10])
    image = writer.activation("image", 1 / 127)
    writer.node("Conv", [image, writer.weight("w0", draw(0, 0.1, (10, 3, 16, 16)).astype(np.float32))], "y0")
    first = writer.activation("y0", 0.03)
    writer.node("Conv", [first, writer.weight("w1", draw(0, 0.3, (10, 10, 1, 1)).astype(np.float32))], "y1")
    made = writer.activation("y1", 0.02)
    writer.node("Mul", [made, writer.node("Sigmoid", [made], "gate")], "z")
    if other:
        writer.node(other, [made], "also")
    writer.node("Add", [writer.activation("z", 0.03), first], "sum")
    writer.node("Reshape", [writer.activation("sum", 0.03), "flat"], "logits")
    writer.activation("logits", 0.03)
    return writer.model()


@pytest.mark.parametrize("zero", [0, -41])
def test_rounding_before_an_activation_and_a_sum_is_spelled_out(zero: int) -> None:
    from onnx import checker

    model, image = summed(zero=zero), np.random.default_rng(1).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)
    before = evaluate(model, image)
    assert np.unique(before).size > 5
    pairs = ops(model)["QuantizeLinear"]
    assert openvino_qdq.spell_rounding(model) == 1
    checker.check_model(model, full_check=True)
    assert ops(model)["QuantizeLinear"] == pairs - 1
    assert ops(model)["Round"] == ops(model)["Clip"] - 2 == 1, "two clips belong to the weights"
    np.testing.assert_array_equal(evaluate(model, image), before)
    assert openvino_qdq.spell_rounding(model) == 0


def test_rounding_that_a_layer_reads_as_well_stays() -> None:
    assert openvino_qdq.spell_rounding(summed(zero=0, other="Neg")) == 0


def test_rounding_without_a_sum_behind_stays() -> None:
    assert openvino_qdq.spell_rounding(silu_network()) == 0
