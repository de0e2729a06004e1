"""TensorRT: what can be held here. Building and running an engine is `deferred`: it needs the board.

The version table is tried against a small stand-in of the API's names, so that a name which a version does
not have fails here; that the real library takes the calls is only shown on a device.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgecv.backends import tensorrt as backend
from edgecv.core.protocols import CompileSource
from edgecv.core.target import Precision, Target
from edgecv.errors import ArtifactError, ToolchainError, UsageError

from .conftest import Export
from .networks import GraphWriter, write_network


@pytest.fixture
def compile_model(
    qdq_model: Any, make_target: Callable[..., Target], tmp_path: Path, out: Path, log: Path
) -> Callable[..., Any]:
    def compile_it(precision: Precision = "int8", model: Any = None, **options: Any) -> Any:
        path = tmp_path / "source.onnx"
        path.write_bytes((model or qdq_model).SerializeToString())
        target = make_target("tensorrt", **options)
        return backend.compile(CompileSource(precision, path, None), target=target, out=out, log=log)

    return compile_it


def test_compile_gives_a_deferred_artifact_with_everything_the_board_needs(
    compile_model: Callable[..., Any], out: Path
) -> None:
    made = compile_model(workspace_mb=1024, timing_cache="timing.cache", dla=False)
    assert (made.model, made.files) == ("model.onnx", ("model.onnx", "build.json"))
    assert (made.status, made.runs_here) == ("deferred", False)
    assert "edgecv build" in made.notes[0]
    assert (made.inputs[0].shape, made.outputs[0].shape) == ((1, 3, 16, 16), (1, 10))
    wanted = backend.BuildOptions("int8", workspace_mb=1024, timing_cache="timing.cache")
    assert backend._read_options(out / "build.json") == wanted


@pytest.mark.parametrize(("major", "opset"), [(8, 17), (10, 20), (11, 21)])
def test_the_opset_follows_the_boards_version(
    compile_model: Callable[..., Any], out: Path, major: int, opset: int
) -> None:
    import onnx

    compile_model(tensorrt=major)
    model = onnx.load(str(out / "model.onnx"))
    assert model.opset_import[0].version == opset
    stored = {item.name: item.data_type for item in model.graph.initializer}
    assert stored["w1_c"] == onnx.TensorProto.INT8


def test_fp16_is_written_into_the_file(compile_model: Callable[..., Any], out: Path) -> None:
    import onnx

    made = compile_model("fp16")
    assert made.inputs[0].dtype == made.outputs[0].dtype == "float32"
    kinds = {item.data_type for item in onnx.load(str(out / "model.onnx")).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert json.loads((out / "build.json").read_text())["precision"] == "fp16"


@pytest.mark.build
@pytest.mark.parametrize("major", [8, 10, 11])
def test_what_edgecv_quantises_keeps_the_rules(
    exports: dict[str, Export], make_target: Callable[..., Target], out: Path, log: Path, major: int
) -> None:
    for precision, name in (("fp32", "float"), ("fp16", "float"), ("int8", "int8")):
        target = make_target("tensorrt", tensorrt=major)
        made = backend.compile(exports[name].at(precision), target=target, out=out, log=log)
        assert (made.status, made.inputs[0].dtype) == ("deferred", "float32")


def test_same_input_same_bytes(compile_model: Callable[..., Any], out: Path) -> None:
    compile_model()
    first = [(out / name).read_bytes() for name in ("model.onnx", "build.json")]
    compile_model()
    assert [(out / name).read_bytes() for name in ("model.onnx", "build.json")] == first


def test_a_graph_that_breaks_the_rules_is_refused_with_all_its_nodes(compile_model: Callable[..., Any]) -> None:
    import numpy as np

    model = write_network(GraphWriter([], {}, np.int8, 4)).model()
    with pytest.raises(ToolchainError, match="rules for int8") as caught:
        compile_model(model=model)
    assert str(caught.value).count("zero point 4") == 14


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workspace": 3}, "did you mean 'workspace_mb'"),
        ({"tensorrt": 9}, "TensorRT 9 is not supported; edgecv builds for 8, 10, 11"),
        ({"timing_cache": "../x"}, "a file name without a folder"),
        ({"tensorrt": 11, "dla": 0}, "TensorRT 11 has no support for DLA"),
    ],
)
def test_wrong_options_are_refused(compile_model: Callable[..., Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compile_model(**options)


def test_loading_a_deferred_artifact_says_what_to_do(compile_model: Callable[..., Any], out: Path) -> None:
    made = compile_model()
    with pytest.raises(ToolchainError, match=r"run `edgecv build .*` on the board"):
        backend.load(out / made.model, options={}, threads=None)


@pytest.mark.skipif(backend.missing(to="run") is None, reason="TensorRT is installed")
def test_without_tensorrt_build_and_load_name_the_command(tmp_path: Path, log: Path) -> None:
    for attempt in (
        lambda: backend.build(tmp_path, log=log),
        lambda: backend.load(tmp_path / "model.engine", options={}, threads=None),
    ):
        with pytest.raises(ToolchainError, match=r"pip install 'edgecv\[tensorrt\]'"):
            attempt()


def test_damaged_build_options_are_refused(compile_model: Callable[..., Any], out: Path) -> None:
    compile_model()
    for content in ("", "{}", '{"precision": "int8", "unknown": 1}'):
        (out / "build.json").write_text(content)
        with pytest.raises(ArtifactError, match="is not a file of build options"):
            backend._read_options(out / "build.json")
    (out / "build.json").write_text('{"precision": "int8"}')
    (out / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx is missing"):
        backend._read_options(out / "build.json")


NETWORK_FLAGS = {8: {"EXPLICIT_BATCH": 0}, 10: {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, 11: {"STRONGLY_TYPED": 1}}
COMMON_FLAGS = {"GPU_FALLBACK": 3, "VERSION_COMPATIBLE": 13}
BUILDER_FLAGS = {
    8: {"FP16": 0, "INT8": 1, **COMMON_FLAGS},
    10: {"FP16": 0, "INT8": 1, **COMMON_FLAGS},
    11: COMMON_FLAGS,
}


class Recorder:
    """Notes down what is set and called on it."""

    def __init__(self) -> None:
        self.flags: set[int] = set()
        self.limits: list[tuple[str, int]] = []
        self.network_flags = -1
        self.cache = b""

    def create_network(self, flags: int) -> "Recorder":
        self.network_flags = flags
        return self

    def create_builder_config(self) -> "Recorder":
        return self

    def set_flag(self, flag: int) -> None:
        self.flags.add(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits.append((pool, size))

    def create_timing_cache(self, content: bytes) -> bytes:
        return content + b"!"

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
        self.cache = cache


def names_of(version: str) -> Any:
    """The names of one version's API that `configure` may use."""
    major = int(version.split(".")[0])
    return SimpleNamespace(
        __version__=version,
        NetworkDefinitionCreationFlag=SimpleNamespace(**NETWORK_FLAGS[major]),
        BuilderFlag=SimpleNamespace(**BUILDER_FLAGS[major]),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        DeviceType=SimpleNamespace(DLA="dla"),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="ampere+"),
    )


@pytest.mark.parametrize(
    ("version", "precision", "network", "flags"),
    [
        ("8.6.1", "int8", 1 << 0, {"INT8"}),
        ("8.6.1", "fp16", 1 << 0, {"FP16"}),
        ("8.6.1", "fp32", 1 << 0, set()),
        ("10.3.0", "int8", 1 << 1, set()),
        ("10.3.0", "fp16", 1 << 1, set()),
        ("11.4.1", "int8", 0, set()),
    ],
)
def test_each_version_gets_its_own_flags(
    version: str, precision: Precision, network: int, flags: set[str], tmp_path: Path
) -> None:
    builder = Recorder()
    trt = names_of(version)
    backend.configure(trt, builder, backend.BuildOptions(precision, workspace_mb=2), tmp_path)
    assert builder.network_flags == network
    assert builder.flags == {getattr(trt.BuilderFlag, name) for name in flags}
    assert builder.limits == [("workspace", 2 << 20)]


def test_sparse_weights_are_used_where_the_version_knows_them(tmp_path: Path) -> None:
    trt, builder = names_of("10.3.0"), Recorder()
    trt.BuilderFlag.SPARSE_WEIGHTS = 8
    backend.configure(trt, builder, backend.BuildOptions("int8"), tmp_path)
    assert builder.flags == {8}


def test_further_options_reach_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "t.cache").write_bytes(b"old")
    options = backend.BuildOptions(
        "int8", timing_cache="t.cache", dla=1, hardware_compatible=True, version_compatible=True, optimization_level=4
    )
    builder = Recorder()
    backend.configure(names_of("10.3.0"), builder, options, tmp_path)
    assert builder.flags == {3, 13}
    assert builder.cache == b"old!"
    found = vars(builder)
    assert (found["default_device_type"], found["DLA_core"]) == ("dla", 1)
    assert (found["hardware_compatibility_level"], found["builder_optimization_level"]) == ("ampere+", 4)
    with pytest.raises(ToolchainError, match=r"11\.4\.1 has no support for DLA"):
        backend.configure(names_of("11.4.1"), Recorder(), options, tmp_path)


@pytest.mark.parametrize("version", ["8.5.3", "7.1.0", "9.0.1", "12.0.0"])
def test_unknown_versions_are_refused(version: str) -> None:
    with pytest.raises(ToolchainError, match=r"edgecv builds with 8\.6, 10\.x and 11\.x"):
        backend.api_of(SimpleNamespace(__version__=version))
