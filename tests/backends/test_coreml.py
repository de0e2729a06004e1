"""Core ML: packages are made anywhere, repeat byte for byte, and are refused with the reason where they cannot run."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecv.backends import coreml as backend
from edgecv.core.artifact import file_entries
from edgecv.core.protocols import CompileSource
from edgecv.core.target import Target
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ArtifactError, ToolchainError, UsageError

from .conftest import Export

MAC = platform.system() == "Darwin"


@pytest.mark.build
@pytest.mark.parametrize(("precision", "name"), [("fp32", "float"), ("fp16", "float"), ("int8", "int8")])
def test_packages_describe_the_network_and_repeat_byte_for_byte(
    exports: dict[str, Export],
    make_target: Callable[..., Target],
    tmp_path: Path,
    log: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
    name: str,
) -> None:
    hashes = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for run in ("a", "b"):
        out = tmp_path / run
        out.mkdir()
        target = make_target("coreml", arch="arm64-apple")
        made = backend.compile(exports[name].at(precision), target=target, out=out, log=log)
        assert (made.model, made.status, made.runs_here) == ("model.mlpackage", "ready", MAC)
        (spec,) = made.inputs
        assert (spec.shape, spec.dtype, spec.layout) == ((1, 3, 16, 16), "float32", "NCHW")
        (result,) = made.outputs
        assert (result.shape, result.dtype) == ((1, 10), "float32")
        hashes.append([(entry.path, entry.sha256) for entry in file_entries(out, made.files)])
    assert hashes[0] == hashes[1]
    assert list((tmp_path / "temporary").iterdir()) == [], "nothing is left behind"
    assert [path.split("/", 1)[1] for path, _ in hashes[0]] == [
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
        "Manifest.json",
    ]
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.build
def test_precisions_differ_in_what_is_stored_and_computed(
    exports: dict[str, Export], make_target: Callable[..., Target], out: Path, log: Path
) -> None:
    def operations(precision: Any, name: str, **options: Any) -> tuple[set[str], int]:
        target = make_target("coreml", **options)
        made = backend.compile(exports[name].at(precision), target=target, out=out, log=log)
        from coremltools.proto import Model_pb2

        spec = Model_pb2.Model()
        spec.ParseFromString((out / made.model / backend._SPEC).read_bytes())
        (block,) = spec.mlProgram.functions["main"].block_specializations.values()
        size = (out / made.model / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
        return {operation.type for operation in block.operations}, size

    plain, plain_size = operations("fp32", "float")
    half, half_size = operations("fp16", "float")
    quantised, _ = operations("int8", "int8")
    assert "cast" in half - plain
    assert half_size < plain_size
    assert {"quantize", "dequantize"} <= quantised
    assert "constexpr_affine_dequantize" in quantised
    strict, _ = operations("fp16", "float", compute_precision="fp32")
    assert "cast" not in strict


@pytest.mark.build
@pytest.mark.parametrize(
    ("kind", "layers", "operators"), [("LSTM", 1, {"lstm": 2}), ("LSTM", 2, {"lstm": 4}), ("GRU", 1, {"while_loop": 4})]
)
def test_recurrent_layers_become_core_mls_own(
    kind: str, layers: int, operators: dict[str, int], make_target: Callable[..., Target], out: Path, log: Path
) -> None:
    """Two in a row, both ways: a step of the sequence has no operators of its own, so the length does not matter."""
    import torch
    from coremltools.proto import Model_pb2
    from torch import nn

    from edgecv.optimize.export import export_program, save_program

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            options = {"num_layers": layers, "bidirectional": True, "batch_first": True}
            self.one, self.two = (getattr(nn, kind)(width, 6, **options) for width in (8, 12))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.two(self.one(inputs)[0])[0]
            return found

    save_program(export_program(Reader().eval(), torch.randn(1, 9, 8)), out / "reader.pt2")
    source = CompileSource("fp32", None, out / "reader.pt2")
    made = backend.compile(source, target=make_target("coreml"), out=out, log=log)
    assert [spec.shape for spec in (*made.inputs, *made.outputs)] == [(1, 9, 8), (1, 9, 12)]
    spec = Model_pb2.Model()
    spec.ParseFromString((out / made.model / backend._SPEC).read_bytes())
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    kinds = [operation.type for operation in block.operations]
    assert {name: kinds.count(name) for name in operators} == operators


@pytest.mark.skipif(MAC, reason="runs on this machine")
def test_off_a_mac_loading_says_where_it_runs(tmp_path: Path) -> None:
    assert "Core ML runs on macOS 14 or newer" in (backend.missing(to="run") or "")
    with pytest.raises(ToolchainError, match="copy the artifact to a Mac"):
        backend.load(tmp_path / "model.mlpackage", options={}, threads=None)


def test_the_oldest_macos_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("13.6.1", ("", "", ""), "arm64"))
    assert "this is macOS 13.6.1" in (backend._not_here() or "")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("14.0", ("", "", ""), "arm64"))
    assert backend._not_here() is None


def write_package(folder: Path, content: bytes) -> Path:
    package = folder / "model.mlpackage"
    (package / "Data" / "com.apple.CoreML").mkdir(parents=True)
    (package / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(content)
    entries = {"id": {"path": "com.apple.CoreML/model.mlmodel", "name": "model.mlmodel"}}
    manifest = {"itemInfoEntries": entries, "rootModelIdentifier": "id"}
    (package / "Manifest.json").write_text(json.dumps(manifest))
    return package


@pytest.mark.build
def test_specs_are_read_from_the_package(tmp_path: Path, log: Path) -> None:
    from edgecv.backends.common import quiet

    with quiet(log):
        from coremltools.proto import FeatureTypes_pb2, Model_pb2
    spec = Model_pb2.Model()
    for features, name, shape in ((spec.description.input, "x", [1, 3, 8, 8]), (spec.description.output, "y", [1, 5])):
        feature = features.add()
        feature.name = name
        feature.type.multiArrayType.shape.extend(shape)
        feature.type.multiArrayType.dataType = FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    inputs, outputs = backend._specs(write_package(tmp_path, spec.SerializeToString()))
    assert inputs == (TensorSpec("x", (1, 3, 8, 8), "float32", "NCHW"),)
    assert outputs == (TensorSpec("y", (1, 5), "float32", "NC"),)


@pytest.mark.build
@pytest.mark.parametrize("content", [b"", b"\x12\xff", b"hello"])
def test_damaged_packages_are_refused(tmp_path: Path, content: bytes, log: Path) -> None:
    with pytest.raises(ArtifactError):
        backend._specs(write_package(tmp_path, content))


@pytest.mark.build
def test_folders_that_are_no_packages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a Core ML package"):
        backend._specs(tmp_path)
    package = write_package(tmp_path, b"")
    (package / "Manifest.json").write_text('{"itemInfoEntries": {}, "rootModelIdentifier": "x"}')
    with pytest.raises(ArtifactError, match="is not a Core ML package"):
        backend._specs(package)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compute_unit": "ALL"}, "did you mean 'compute_units'"),
        ({"compute_units": "NPU"}, "allowed: ALL, CPU_AND_NE"),
        ({"compute_precision": "int4"}, "allowed: fp16, fp32"),
    ],
)
def test_wrong_options_are_refused(
    make_target: Callable[..., Target], out: Path, log: Path, options: dict[str, Any], words: str
) -> None:
    source = CompileSource("fp16", None, Path("program.pt2"))
    with pytest.raises(UsageError, match=words):
        backend.compile(source, target=make_target("coreml", **options), out=out, log=log)


def test_a_model_that_came_as_onnx_is_refused(make_target: Callable[..., Target], out: Path, log: Path) -> None:
    with pytest.raises(ToolchainError, match="needs the torch program"):
        backend.compile(CompileSource("fp16", Path("m.onnx"), None), target=make_target("coreml"), out=out, log=log)
