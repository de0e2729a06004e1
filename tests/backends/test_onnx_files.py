"""Reading and converting ONNX files on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.backends import onnx_files
from edgecv.errors import ArtifactError, ToolchainError, UsageError


def save(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def run(model: Any, picture: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    result: np.ndarray = session.run(None, {"image": picture})[0]
    return result


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x0a"])
def test_read_refuses_what_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="is not a valid ONNX file"):
        onnx_files.read(tmp_path / "m.onnx")


def test_read_refuses_a_missing_file_and_a_broken_graph(qdq_model: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        onnx_files.read(tmp_path / "none.onnx")
    qdq_model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ArtifactError, match="NoSuchOperator"):
        onnx_files.read(save(qdq_model, tmp_path / "m.onnx"))


def test_read_leaves_out_what_exporters_note_down(qdq_model: Any, tmp_path: Path) -> None:
    for item in (qdq_model, qdq_model.graph, qdq_model.graph.node[0], qdq_model.graph.initializer[0]):
        item.doc_string = "written at /some/where"
    entry = qdq_model.graph.node[1].metadata_props.add()
    entry.key, entry.value = "stack_trace", "/some/where/model.py line 3"
    model = onnx_files.read(save(qdq_model, tmp_path / "m.onnx"))
    assert b"/some/where" not in model.SerializeToString()
    assert len(model.graph.node) == len(qdq_model.graph.node)


def test_specs_refuse_open_shapes(qdq_model: Any) -> None:
    qdq_model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(UsageError, match=r"'image' has the open shape \['batch', 3, 16, 16\]"):
        onnx_files.specs(qdq_model)


@pytest.mark.parametrize("newest", [20, 17])
def test_lower_opset_keeps_the_numbers(qdq_model: Any, picture: np.ndarray, log: Path, newest: int) -> None:
    before = run(qdq_model, picture)
    lowered = onnx_files.lower_opset(qdq_model, newest, log)
    assert lowered.opset_import[0].version == newest
    np.testing.assert_array_equal(run(lowered, picture), before)


def test_lower_opset_leaves_an_older_model_alone(qdq_model: Any, log: Path) -> None:
    assert onnx_files.lower_opset(qdq_model, 25, log) is qdq_model


def test_lower_opset_names_what_does_not_exist_there(qdq_model: Any, log: Path) -> None:
    node = next(node for node in qdq_model.graph.node if node.op_type == "Relu")
    node.op_type = "Gelu"  # new in opset 20
    with pytest.raises(ToolchainError, match="from ONNX opset 21 to 17"):
        onnx_files.lower_opset(qdq_model, 17, log)


def test_float16_keeps_inputs_and_outputs(qdq_model: Any, picture: np.ndarray, log: Path) -> None:
    for node in list(qdq_model.graph.node):
        if node.output[0] == "logits_dq":
            node.input[0], node.op_type = "logits", "Identity"
            del node.input[1:]
    before = run(qdq_model, picture)
    half = onnx_files.to_float16(qdq_model, log)
    inputs, outputs = onnx_files.specs(half)
    assert (inputs[0].dtype, outputs[0].dtype) == ("float32", "float32")
    np.testing.assert_allclose(run(half, picture), before, atol=0.2)
