"""OpenVINO: compiled files run in int8, repeat byte for byte, and damaged ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.backends import openvino as backend
from edgecv.core.protocols import Compiled, CompileSource
from edgecv.core.target import Precision, Target
from edgecv.errors import ArtifactError, ToolchainError, UsageError

from .conftest import Export

Compile = Callable[..., Compiled]


@pytest.fixture
def compile_model(
    qdq_model: Any, make_target: Callable[..., Target], tmp_path: Path, out: Path, log: Path
) -> Callable[..., Compiled]:
    """Compiles `qdq_model` into ``out``."""

    def compile_it(precision: Precision = "int8", arch: str = "host", **options: Any) -> Compiled:
        path = tmp_path / "source.onnx"
        path.write_bytes(qdq_model.SerializeToString())
        target = make_target("openvino", arch=arch, **options)
        return backend.compile(CompileSource(precision, path, None), target=target, out=out, log=log)

    return compile_it


def reference(model: Any, picture: np.ndarray) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    result: np.ndarray = ReferenceEvaluator(model).run(None, {"image": picture})[0]
    return result


def test_int8_file_computes_what_the_graph_says(
    compile_model: Compile, qdq_model: Any, picture: np.ndarray, out: Path
) -> None:
    made = compile_model()
    assert made.files == ("model.xml", "model.bin")
    assert (made.status, made.runs_here) == ("ready", True)
    engine = backend.load(out / made.model, options=made.options, threads=1)
    assert engine.inputs == made.inputs
    assert engine.inputs[0].layout == "NCHW"
    np.testing.assert_allclose(engine.run([picture])[0], reference(qdq_model, picture), atol=0.0501)
    found = engine.delegation()
    assert found is not None
    assert found.share >= 0.5
    assert found.accelerated_nodes < found.total_nodes


def test_a_mean_that_drops_its_axis_is_quantised_per_channel(
    make_target: Callable[..., Target], tmp_path: Path, out: Path, log: Path
) -> None:
    """OpenVINO by itself takes the wrong channels here: tokens, their mean, a scale a channel, int8."""
    from onnx import TensorProto, helper, numpy_helper

    draws = np.random.default_rng(0)
    tokens = draws.normal(size=(1, 49, 64)).astype(np.float32)
    scale = draws.uniform(0.3, 3, (1, 64)).astype(np.float32)
    constants = {"axes": np.array([1]), "scale": scale, "step": np.float32(0.01), "zero": np.int8(0)}
    nodes = [
        helper.make_node("ReduceMean", ["tokens", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        helper.make_node("QuantizeLinear", ["scaled", "step", "zero"], ["stored"]),
        helper.make_node("DequantizeLinear", ["stored", "step", "zero"], ["output"]),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("tokens", (1, 49, 64)), ("output", (1, 64)))
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", *ends, stored), opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    path = tmp_path / "source.onnx"
    path.write_bytes(model.SerializeToString())
    made = backend.compile(CompileSource("int8", path, None), target=make_target("openvino"), out=out, log=log)
    engine = backend.load(out / made.model, options=made.options, threads=1)
    expected = np.clip(np.round(tokens.mean(axis=1) * scale / 0.01), -128, 127) * 0.01
    np.testing.assert_allclose(engine.run([tokens])[0], expected, atol=0.011)
    engine.close()


def test_same_input_same_bytes_and_no_version_or_path_inside(compile_model: Compile, out: Path) -> None:
    compile_model()
    first = [(out / name).read_bytes() for name in ("model.xml", "model.bin")]
    compile_model()
    assert [(out / name).read_bytes() for name in ("model.xml", "model.bin")] == first
    assert str(out).encode() not in first[0]
    assert backend.version().encode() not in first[0]


@pytest.mark.build
def test_exported_network_in_every_precision(
    exports: dict[str, Export], make_target: Callable[..., Target], out: Path, log: Path
) -> None:
    sizes = {}
    for precision, name, atol in (("fp32", "float", 1e-5), ("fp16", "float", 5e-3), ("int8", "int8", 0.02)):
        export = exports[name]
        made = backend.compile(export.at(precision), target=make_target("openvino"), out=out, log=log)
        engine = backend.load(out / made.model, options=made.options, threads=1)
        assert engine.inputs[0].dtype == engine.outputs[0].dtype == "float32"
        np.testing.assert_allclose(engine.run([export.picture])[0], export.expected, atol=atol)
        sizes[precision] = (out / "model.bin").stat().st_size
        assert (engine.delegation() is None) == (precision != "int8")
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]


def test_a_cpu_computes_float_layers_in_float32_unless_asked_otherwise() -> None:
    assert backend._properties({}, 2) == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 2,
    }
    asked = {"device": "GPU", "hint": "throughput", "properties": {"CACHE_DIR": "c"}}
    assert backend._properties(asked, 2) == {"PERFORMANCE_HINT": "THROUGHPUT", "CACHE_DIR": "c"}


def test_fp16_on_arm_asks_for_float16_arithmetic(compile_model: Compile) -> None:
    made = compile_model("fp16", arch="aarch64", properties={"CACHE_DIR": ""})
    assert made.options["properties"] == {"INFERENCE_PRECISION_HINT": "f16", "CACHE_DIR": ""}


def test_a_device_that_is_not_here_is_compiled_for_and_not_run(compile_model: Compile, out: Path) -> None:
    made = compile_model(device="NPU")
    assert not made.runs_here
    assert "on NPU" in made.notes[0]
    assert (made.inputs[0].name, made.outputs[0].shape) == ("image", (1, 10))
    with pytest.raises(ToolchainError, match="devices here: CPU"):
        backend.load(out / made.model, options=made.options, threads=None)


def test_results_stay_valid_and_inputs_need_not_be_contiguous(
    compile_model: Compile, out: Path, picture: np.ndarray
) -> None:
    engine = backend.load(out / compile_model().model, options={}, threads=None)
    first = engine.run([picture])[0]
    kept = first.copy()
    turned = np.ascontiguousarray(picture.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(engine.run([turned])[0], kept)
    engine.run([np.zeros_like(picture)])
    np.testing.assert_array_equal(first, kept)
    engine.close()
    engine.close()
    assert engine.delegation() is None
    with pytest.raises(UsageError, match="was closed"):
        engine.run([picture])


@pytest.mark.parametrize(
    ("options", "words"),
    [({"devise": "CPU"}, "did you mean 'device'"), ({"hint": "FAST"}, "allowed: LATENCY, THROUGHPUT")],
)
def test_wrong_options_are_refused(compile_model: Compile, out: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        backend.load(out / compile_model().model, options=options, threads=1)


def test_damaged_files_are_refused(compile_model: Compile, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = out / compile_model().model
    text, weights = path.read_text(), path.with_suffix(".bin").read_bytes()
    for content, words in (
        (text[: len(text) // 2], "is not a model that OpenVINO reads"),
        ("hello", "not OpenVINO IR"),
    ):
        path.write_text(content)
        with pytest.raises(ArtifactError, match=words):
            backend.load(path, options={}, threads=1)
    path.write_text(text)
    path.with_suffix(".bin").write_bytes(weights[:10])
    with pytest.raises(ArtifactError, match="is not a model that OpenVINO reads"):
        backend.load(path, options={}, threads=1)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ArtifactError, match=r"model\.bin is missing"):
        backend.load(path, options={}, threads=1)
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        backend.load(path, options={}, threads=1)
    assert capfd.readouterr().err == ""


def test_what_openvino_cannot_convert_is_a_toolchain_error(compile_model: Compile, qdq_model: Any) -> None:
    from onnx import helper

    qdq_model.opset_import.append(helper.make_opsetid("my.domain", 1))
    node = next(node for node in qdq_model.graph.node if node.op_type == "Relu")
    node.domain, node.op_type = "my.domain", "Magic"
    with pytest.raises(ToolchainError, match=r"OpenVINO .* refuses the graph"):
        compile_model()


def test_without_onnx_there_is_nothing_to_compile(make_target: Callable[..., Target], out: Path, log: Path) -> None:
    with pytest.raises(ToolchainError, match="needs an ONNX file"):
        backend.compile(CompileSource("fp32", None, None), target=make_target("openvino"), out=out, log=log)
