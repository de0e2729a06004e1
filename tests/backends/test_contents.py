"""What is read out of model files: against the onnx package, and the same network in each engine's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv import backends, demo
from edgecv.backends.contents import layer_values, read_contents
from edgecv.backends.onnx_contents import read_graph
from edgecv.errors import ArtifactError

FILES = {"onnxruntime": "model.onnx", "openvino": "model.xml", "litert": "model.tflite"}


def picture(engine: str) -> np.ndarray:
    values = np.random.default_rng(0).random((1, 3, 192, 256), dtype=np.float32)
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if engine == "litert" else values


def test_the_own_reader_finds_what_the_onnx_package_finds(shared_data: Path) -> None:
    import onnx
    from onnx import numpy_helper

    paths = sorted((shared_data / "models").rglob("*.onnx"))
    assert len(paths) >= 5
    for path in paths:
        model = onnx.load(str(path), load_external_data=False)
        constants, nodes = read_graph(path)
        for item in model.graph.initializer:
            if item.data_location != onnx.TensorProto.EXTERNAL:
                np.testing.assert_array_equal(constants[item.name], numpy_helper.to_array(item), strict=True)
        assert [(kind, inputs, outputs) for kind, inputs, outputs, _ in nodes] == [
            (node.op_type, tuple(node.input), tuple(node.output)) for node in model.graph.node
        ]


def test_every_way_that_a_tensor_is_stored_is_read(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    values = {
        "typed_float": helper.make_tensor("typed_float", TensorProto.FLOAT, [3], [1.5, -2.0, 0.25]),
        "typed_int8": helper.make_tensor("typed_int8", TensorProto.INT8, [3], [-128, 0, 127]),
        "typed_int64": helper.make_tensor("typed_int64", TensorProto.INT64, [2], [-(1 << 40), 7]),
        "typed_half": helper.make_tensor("typed_half", TensorProto.FLOAT16, [2], [0.5, -3.0]),
        "typed_double": helper.make_tensor("typed_double", TensorProto.DOUBLE, [2], [0.1, -3.0]),
        "raw": helper.make_tensor("raw", TensorProto.UINT8, [2, 1], b"\x01\xff", raw=True),
        "scalar": helper.make_tensor("scalar", TensorProto.FLOAT, [], [4.0]),
        "empty": helper.make_tensor("empty", TensorProto.FLOAT, [0], []),
    }
    node = helper.make_node("Constant", [], ["made"], value=helper.make_tensor("", TensorProto.FLOAT, [1], [9.0]))
    graph = helper.make_graph([node], "g", [], [], list(values.values()))
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), str(path))
    constants, _ = read_graph(path)
    for name, tensor in values.items():
        np.testing.assert_array_equal(constants[name], onnx.numpy_helper.to_array(tensor), strict=True)
    assert constants["made"].tolist() == [9.0]


@pytest.mark.parametrize("content", [b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x05\x2a\x03\x0b", b"\xff" * 12])
def test_a_damaged_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="not an ONNX file"):
        read_graph(tmp_path / "m.onnx")


def test_the_engines_hold_the_same_weights_and_layers() -> None:
    """The demo's network in three files: the same float weights, whatever their names and layouts."""
    sums: dict[str, list[float]] = {}
    for engine, file in FILES.items():
        if backends.get(engine).missing(to="run") is not None:
            pytest.skip(f"{engine} is not installed")
        contents = read_contents(engine, demo.artifact(engine) / file)
        assert contents is not None
        assert contents.scales == {}
        assert len(contents.operators) >= 50
        large = [value for value in contents.weights.values() if value.dtype == np.float32 and value.size >= 2000]
        sums[engine] = sorted(round(float(np.abs(value).sum()), 2) for value in large)
        layers = layer_values(engine, demo.artifact(engine) / file, [picture(engine)], 1)
        assert len(layers) >= 50
    assert len(sums["onnxruntime"]) >= 5
    assert sums["onnxruntime"] == sums["openvino"] == sums["litert"]


def test_onnx_layers_are_what_the_whole_graph_computes() -> None:
    import onnx
    from onnx.reference import ReferenceEvaluator

    path = demo.artifact("onnxruntime") / FILES["onnxruntime"]
    layers = layer_values("onnxruntime", path, [picture("onnxruntime")], 1)
    model = onnx.load(str(path))
    del model.graph.node[8:]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(model.graph.node[1].output[0]))
    (wanted,) = ReferenceEvaluator(model).run(None, {"input": picture("onnxruntime")})
    np.testing.assert_allclose(layers[model.graph.node[1].output[0]], wanted, atol=1e-4)


def test_engines_that_do_not_tell_have_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.null").write_text("{}")
    assert read_contents("null", tmp_path / "model.null") is None
    assert layer_values("null", tmp_path / "model.null", [np.zeros((1, 3))]) == {}


@pytest.mark.parametrize("engine", FILES)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, engine: str) -> None:
    path = tmp_path / FILES[engine]
    path.write_bytes(b"\xff\xff\xff\xff no model" * 100)
    with pytest.raises(ArtifactError):
        read_contents(engine, path)
