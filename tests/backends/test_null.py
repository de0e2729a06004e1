"""The null engine: compiled from a real ONNX file, and the function that it documents."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.backends import null
from edgecv.core.protocols import CompileSource
from edgecv.core.target import Target
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.errors import ArtifactError, ToolchainError, UsageError


def write(path: Path, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Path:
    raw = {"format": "edgecv-null-1", "inputs": [asdict(x) for x in inputs], "outputs": [asdict(x) for x in outputs]}
    path.write_text(json.dumps(raw))
    return path


def test_compile_takes_inputs_and_outputs_from_the_onnx_file(
    qdq_model: Any, make_target: Callable[..., Target], tmp_path: Path, out: Path, log: Path, picture: np.ndarray
) -> None:
    import onnx

    onnx.save(qdq_model, str(tmp_path / "m.onnx"))
    source = CompileSource("fp32", tmp_path / "m.onnx", None)
    made = null.compile(source, target=make_target("null", delay_ms=0), out=out, log=log)
    assert made.files == ("model.null",)
    assert made.inputs == (TensorSpec("image", (1, 3, 16, 16), "float32", "NCHW"),)
    engine = null.load(out / made.model, options=made.options, threads=None)
    assert engine.outputs == made.outputs == (TensorSpec("logits_dq", (1, 10), "float32", "NC"),)
    assert engine.run([picture])[0].shape == (1, 10)


def test_compile_without_onnx_is_refused(make_target: Callable[..., Target], out: Path, log: Path) -> None:
    with pytest.raises(ToolchainError, match="needs the exported ONNX"):
        null.compile(CompileSource("fp32", None, None), target=make_target("null"), out=out, log=log)


def test_the_function_is_channel_means_divided_by_the_round(tmp_path: Path) -> None:
    spec = TensorSpec("image", (1, 2, 2, 2), "float32", "NCHW")
    path = write(tmp_path / "m.null", [spec], [TensorSpec("y", (1, 5), "float32", "NC")])
    image = np.array([[[[1, 1], [1, 1]], [[4, 4], [8, 8]]]], np.float32)
    result = null.load(path, options={}, threads=None).run([image])
    np.testing.assert_allclose(result[0], [[1, 6, 0.5, 3, 1 / 3]], rtol=1e-6)


def test_layout_and_scales_are_respected(tmp_path: Path) -> None:
    image = TensorSpec("image", (1, 2, 2, 3), "int8", "NHWC", Quantization(0.5, -128))
    flat = TensorSpec("state", (4,), "float32", "OTHER")
    path = write(tmp_path / "m.null", [image, flat], [TensorSpec("y", (4,), "int8", "OTHER", Quantization(0.25, 3))])
    stored = np.zeros((1, 2, 2, 3), np.int8) + np.array([-128, -126, -124], np.int8)
    engine = null.load(path, options={}, threads=None)
    (result,) = engine.run([stored, np.full(4, 2.5, np.float32)])
    assert result.dtype == np.int8
    np.testing.assert_allclose(engine.outputs[0].dequantize(result), [0, 1, 2, 2.5])


def test_results_belong_to_the_caller(tmp_path: Path) -> None:
    spec = TensorSpec("x", (1, 2), "float32", "NC")
    engine = null.load(write(tmp_path / "m.null", [spec], [spec]), options={}, threads=None)
    first = engine.run([np.array([[1, 2]], np.float32)])[0]
    engine.run([np.array([[5, 6]], np.float32)])
    np.testing.assert_array_equal(first, [[1, 2]])
    assert engine.delegation() is None
    engine.close()
    engine.close()


def test_delay_option_holds_the_engine_up(tmp_path: Path) -> None:
    spec = TensorSpec("x", (1, 2), "float32", "NC")
    engine = null.load(write(tmp_path / "m.null", [spec], [spec]), options={"delay_ms": 30}, threads=None)
    started_s = time.perf_counter()
    engine.run([np.zeros((1, 2), np.float32)])
    assert time.perf_counter() - started_s >= 0.03


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"format": "other"}', '{"format": "edgecv-null-1", "inputs": 3}']
)
def test_files_that_are_no_null_models_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.null").write_text(content)
    with pytest.raises(ArtifactError):
        null.load(tmp_path / "m.null", options={}, threads=None)


def test_a_missing_or_huge_file_and_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        null.load(tmp_path / "none.null", options={}, threads=None)
    (tmp_path / "big.null").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(ArtifactError, match="at most"):
        null.load(tmp_path / "big.null", options={}, threads=None)
    with pytest.raises(UsageError, match="did you mean 'delay_ms'"):
        null.load(tmp_path / "big.null", options={"delay": 3}, threads=None)
