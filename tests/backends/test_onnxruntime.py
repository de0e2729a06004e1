"""ONNX Runtime: compiled files run, compute what the graph says, and damaged ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.backends import onnxruntime as backend
from edgecv.backends.onnx_nodes import Node
from edgecv.core.protocols import Compiled, CompileSource
from edgecv.core.target import Precision, Target
from edgecv.errors import ArtifactError, ToolchainError, UsageError

from .conftest import Export

Compile = Callable[..., Compiled]


@pytest.fixture
def compile_model(
    qdq_model: Any, make_target: Callable[..., Target], tmp_path: Path, out: Path, log: Path
) -> Callable[..., Compiled]:
    """Compiles `qdq_model` (or ``model``) into ``out``."""

    def compile_it(precision: Precision = "int8", model: Any = None, **options: Any) -> Compiled:
        path = tmp_path / "source.onnx"
        path.write_bytes((model or qdq_model).SerializeToString())
        target = make_target("onnxruntime", **options)
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
    assert (made.model, made.files, made.status, made.runs_here) == ("model.onnx", ("model.onnx",), "ready", True)
    engine = backend.load(out / made.model, options=made.options, threads=1)
    assert engine.inputs == made.inputs
    (result,) = engine.run([picture])
    # One rounding step of the output may differ: the engine's kernels round sums in int32, the reference in float.
    np.testing.assert_allclose(result, reference(qdq_model, picture), atol=0.0501)
    found = engine.delegation()
    assert found is not None
    assert found.share == found.accelerated_nodes / found.total_nodes
    assert found.accelerated_nodes >= 4  # two convolutions, the addition, the linear layer


def test_int8_file_needs_no_special_session_option(compile_model: Compile) -> None:
    assert compile_model().options == {}


def test_activations_that_must_stay_signed_get_the_option_that_loads_them(
    compile_model: Compile, qdq_model: Any
) -> None:
    from onnx import helper

    reader = next(node for node in qdq_model.graph.node if node.output[0] == "vector_dq")
    position = list(qdq_model.graph.node).index(reader)
    qdq_model.graph.node.insert(position, helper.make_node("Identity", ["vector_q"], ["vector_i"]))
    reader.input[0] = "vector_i"
    made = compile_model()
    assert made.options == {"config": {"session.qdqisint8allowed": "1"}}
    assert "stay int8" in made.notes[0]


def test_same_input_same_bytes(compile_model: Compile, out: Path) -> None:
    compile_model()
    first = (out / "model.onnx").read_bytes()
    compile_model()
    assert (out / "model.onnx").read_bytes() == first


@pytest.mark.build
def test_exported_network_in_every_precision(
    exports: dict[str, Export], make_target: Callable[..., Target], out: Path, log: Path
) -> None:
    sizes = {}
    for precision, name, atol in (("fp32", "float", 1e-5), ("fp16", "float", 5e-3), ("int8", "int8", 0.02)):
        export = exports[name]
        made = backend.compile(export.at(precision), target=make_target("onnxruntime"), out=out, log=log)
        engine = backend.load(out / made.model, options=made.options, threads=1)
        assert engine.inputs[0].dtype == engine.outputs[0].dtype == "float32"
        np.testing.assert_allclose(engine.run([export.picture])[0], export.expected, atol=atol)
        sizes[precision] = (out / made.model).stat().st_size
        assert (engine.delegation() is None) == (precision != "int8")
    assert sizes["fp16"] < sizes["fp32"]


@pytest.mark.parametrize("name", ["fastestdet/FastestDet.onnx", "osnet_x0_25_msmt17/osnet_x0_25_msmt17.onnx"])
def test_published_files_load(shared_data: Path, name: str) -> None:
    engine = backend.load(shared_data / "models" / name, options={}, threads=1)
    spec = engine.inputs[0]
    results = engine.run([np.zeros(spec.shape, spec.dtype)])
    assert [result.shape for result in results] == [output.shape for output in engine.outputs]


def test_results_stay_valid_after_the_next_run(compile_model: Compile, out: Path, picture: np.ndarray) -> None:
    engine = backend.load(out / compile_model().model, options={}, threads=None)
    first = engine.run([picture])[0]
    kept = first.copy()
    engine.run([np.zeros_like(picture)])
    np.testing.assert_array_equal(first, kept)


def test_a_closed_engine_and_wrong_arrays_are_refused(compile_model: Compile, out: Path, picture: np.ndarray) -> None:
    engine = backend.load(out / compile_model().model, options={}, threads=1)
    with pytest.raises(UsageError, match="got float64"):
        engine.run([picture.astype(np.float64)])
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="was closed"):
        engine.run([picture])


def test_options_reach_the_session(compile_model: Compile, out: Path, picture: np.ndarray) -> None:
    options = {
        "providers": [["CPUExecutionProvider", {}]],
        "session_options": {"enable_cpu_mem_arena": False},
        "config": {"session.intra_op.allow_spinning": "0"},
        "graph_optimization": "none",
        "inter_threads": 1,
    }
    engine = backend.load(out / compile_model().model, options=options, threads=1)
    found = engine.delegation()
    assert found is not None
    assert found.accelerated_nodes == 2  # no optimisation, no fused kernels: only the two clips on quantised values


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"provider": []}, UsageError, "did you mean 'providers'"),
        ({"providers": ["TensorrtExecutionProvider"]}, ToolchainError, "no provider 'TensorrtExecutionProvider' here"),
        ({"session_options": {"no_such": 1}}, UsageError, "session_options.no_such"),
        ({"graph_optimization": "most"}, UsageError, "allowed: none, basic, extended, all"),
    ],
)
def test_wrong_options_are_refused(
    compile_model: Compile, out: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        backend.load(out / compile_model().model, options=options, threads=1)


@pytest.mark.parametrize("keep", [0, 100, -50])
def test_files_that_are_cut_short_are_refused(compile_model: Compile, out: Path, keep: int) -> None:
    path = out / compile_model().model
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="is not a model that ONNX Runtime reads"):
        backend.load(path, options={}, threads=1)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        backend.load(tmp_path / "none.onnx", options={}, threads=1)


def test_open_shapes_are_refused(qdq_model: Any, tmp_path: Path) -> None:
    qdq_model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    (tmp_path / "m.onnx").write_bytes(qdq_model.SerializeToString())
    with pytest.raises(UsageError, match="open shape"):
        backend.load(tmp_path / "m.onnx", options={}, threads=1)


def test_an_operator_without_a_kernel_is_a_toolchain_error(compile_model: Compile, qdq_model: Any) -> None:
    from onnx import helper

    qdq_model.opset_import.append(helper.make_opsetid("my.domain", 1))
    node = next(node for node in qdq_model.graph.node if node.op_type == "Relu")
    node.domain, node.op_type = "my.domain", "Magic"
    with pytest.raises(ToolchainError, match="does not take the exported graph"):
        compile_model()


def test_without_onnx_there_is_nothing_to_compile(make_target: Callable[..., Target], out: Path, log: Path) -> None:
    with pytest.raises(ToolchainError, match="needs an ONNX file"):
        backend.compile(CompileSource("fp32", None, None), target=make_target("onnxruntime"), out=out, log=log)


def test_nodes_count_as_int8_where_the_values_are() -> None:
    node = lambda kind, reads, makes: Node(kind, (reads,), (makes,))  # noqa: E731
    chain = [
        node("QuantizeLinear", "x", "a"),
        node("Transpose", "a", "b"),
        node("QLinearConv", "b", "c"),
        node("Clip", "c", "d"),
        node("DequantizeLinear", "d", "e"),
        node("Clip", "e", "f"),
        node("Reshape", "f", "g"),
    ]
    assert backend.int8_nodes(chain) == 3
    assert backend.int8_nodes([]) == 0
