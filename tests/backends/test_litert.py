"""LiteRT: converted files run and agree with torch; published files load; damaged ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.backends import litert as backend
from edgecv.core.protocols import CompileSource
from edgecv.core.target import Target
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.errors import ArtifactError, ToolchainError, UsageError

from .conftest import Export

MOBILENET = "models/mobilenet_v1_0.5_160_quant"


@pytest.fixture
def published(shared_data: Path) -> Path:
    """A small quantised file: ResNet-8 for CIFAR-10, int8."""
    return shared_data / "models" / "mlperf_tiny_resnet8_cifar10" / "pretrainedResnet_quant.tflite"


def test_an_int8_file_tells_its_scales_and_layout(published: Path) -> None:
    engine = backend.load(published, options={}, threads=1)
    (spec,) = engine.inputs
    assert (spec.shape, spec.dtype, spec.layout) == ((1, 32, 32, 3), "int8", "NHWC")
    assert spec.quantization == Quantization(1.0, -128)
    (out,) = engine.outputs
    assert (out.shape, out.dtype, out.layout, out.quantization) == ((1, 10), "int8", "NC", Quantization(1 / 256, -128))


def test_a_picture_of_a_published_data_set_is_recognised(published: Path, shared_data: Path) -> None:
    import cv2

    engine = backend.load(published, options={}, threads=1)
    right = 0
    paths = sorted((shared_data / "cifar10-mini" / "test" / "ship").glob("*.jpg"))[:20]
    for path in paths:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        stored = engine.inputs[0].quantize(image[None].astype(np.float32))
        right += int(engine.run([stored])[0].argmax()) == 8
    assert right >= 14


def test_a_uint8_file_loads(shared_data: Path) -> None:
    path = next((shared_data / MOBILENET).glob("*.tflite"))
    engine = backend.load(path, options={}, threads=2)
    (spec,) = engine.inputs
    assert (spec.dtype, spec.layout, spec.shape[1:]) == ("uint8", "NHWC", (160, 160, 3))
    assert spec.quantization is not None
    assert engine.run([np.zeros(spec.shape, np.uint8)])[0].dtype == engine.outputs[0].dtype


@pytest.mark.parametrize(
    "name",
    [
        "movenet_lightning_ptq/movenet_single_pose_lightning_ptq.tflite",
        "mlperf_tiny_vww/vww_96_float.tflite",
        "hand_keypoint_classifier/keypoint_classifier.tflite",
    ],
)
def test_other_published_files_load_and_run(shared_data: Path, name: str) -> None:
    engine = backend.load(shared_data / "models" / name, options={}, threads=None)
    results = engine.run([np.zeros(spec.shape, spec.dtype) for spec in engine.inputs])
    assert [(r.shape, r.dtype.name) for r in results] == [(s.shape, s.dtype) for s in engine.outputs]


def test_delegation_is_the_share_of_operators_that_xnnpack_took(published: Path) -> None:
    with_it = backend.load(published, options={"delegate": "xnnpack"}, threads=1).delegation()
    without = backend.load(published, options={"delegate": "none"}, threads=1).delegation()
    assert with_it is not None
    assert without is not None
    assert (without.share, without.accelerated_nodes) == (0.0, 0)
    assert with_it.total_nodes == without.total_nodes
    assert with_it.share > 0.5


def test_operators_between_a_delegates_ends_are_covered() -> None:
    node = lambda inputs, outputs: {"inputs": inputs, "outputs": outputs}  # noqa: E731
    original = [node([0, 1], [2]), node([2, 3], [4]), node([4], [5]), node([5], [6])]
    assert backend._covered([node([0, 1, 3], [4])], original) == 2
    assert backend._covered([node([0, 1], [2]), node([5], [6])], original) == 2
    assert backend._covered([], original) == 0


def test_results_stay_valid_and_a_closed_engine_is_refused(published: Path) -> None:
    engine = backend.load(published, options={}, threads=1)
    shape = engine.inputs[0].shape
    first = engine.run([np.full(shape, 100, np.int8)])[0]
    kept = first.copy()
    engine.run([np.full(shape, -100, np.int8)])
    np.testing.assert_array_equal(first, kept)
    with pytest.raises(UsageError, match="got float32"):
        engine.run([np.zeros(shape, np.float32)])
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="was closed"):
        engine.run([np.zeros(shape, np.int8)])
    assert engine.delegation() is None


def test_loading_is_silent(published: Path, capfd: pytest.CaptureFixture[str]) -> None:
    backend.load(published, options={}, threads=1)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"delegat": "none"}, UsageError, "did you mean 'delegate'"),
        ({"delegate": "/no/such/lib.so"}, ToolchainError, "delegate '/no/such/lib.so' cannot be loaded"),
        ({"output_layout": "HWC"}, UsageError, "allowed: NCHW, NHWC"),
    ],
)
def test_wrong_options_are_refused(
    published: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        backend.load(published, options=options, threads=1)


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x1c\0\0\0TFL3" + b"\x7f" * 400])
def test_files_that_are_no_models_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ArtifactError):
        backend.load(tmp_path / "m.tflite", options={}, threads=1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_files_that_are_cut_short_are_refused(published: Path, tmp_path: Path, share: float) -> None:
    content = published.read_bytes()
    (tmp_path / "m.tflite").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtifactError, match="is not a model that LiteRT reads"):
        backend.load(tmp_path / "m.tflite", options={}, threads=1)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        backend.load(tmp_path / "none.tflite", options={}, threads=1)


def test_a_model_that_came_as_onnx_is_refused(make_target: Callable[..., Target], out: Path, log: Path) -> None:
    with pytest.raises(ToolchainError, match="needs the torch program"):
        backend.compile(CompileSource("fp32", Path("m.onnx"), None), target=make_target("litert"), out=out, log=log)


@pytest.mark.build
def test_converted_network_agrees_with_torch(
    exports: dict[str, Export],
    make_target: Callable[..., Target],
    out: Path,
    log: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sizes: dict[str, int] = {}
    for precision, name, atol in (("fp32", "float", 1e-5), ("fp16", "float", 5e-3), ("int8", "int8", 0.02)):
        export = exports[name]
        made = backend.compile(export.at(precision), target=make_target("litert"), out=out, log=log)
        assert made.files == ("model.tflite",)
        engine = backend.load(out / made.model, options=made.options, threads=1)
        assert (engine.inputs, engine.outputs) == (made.inputs, made.outputs)
        (spec,) = engine.inputs
        assert (spec.shape, spec.layout) == ((1, 16, 16, 3), "NHWC")
        picture = np.ascontiguousarray(export.picture.transpose(0, 2, 3, 1))
        (result,) = engine.run([spec.quantize(picture)])
        np.testing.assert_allclose(engine.outputs[0].dequantize(result), export.expected, atol=atol)
        stored = "int8" if precision == "int8" else "float32"
        assert (spec.dtype, engine.outputs[0].dtype) == (stored, stored)
        found = engine.delegation()
        assert found is not None
        assert found.share == 1.0
        sizes[precision] = (out / made.model).stat().st_size
    assert sizes["fp16"] < sizes["fp32"]
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert "LiteRT" in log.read_text(encoding="utf-8", errors="replace")


@pytest.mark.build
def test_rank_four_outputs_keep_the_networks_layout_and_order(
    make_target: Callable[..., Target], tmp_path: Path, out: Path, log: Path
) -> None:
    import torch

    class Maps(torch.nn.Module):
        def forward(self, image: Any) -> Any:
            return (image * 2, *(image[:, 0].mean(dim=(1, 2)) + float(index) for index in range(11)))

    program = torch.export.export(Maps().eval(), (torch.rand(1, 3, 4, 6),))
    torch.export.save(program, str(tmp_path / "maps.pt2"))
    source = CompileSource("fp32", None, tmp_path / "maps.pt2")
    made = backend.compile(source, target=make_target("litert"), out=out, log=log)
    assert made.outputs[0].shape == (1, 3, 4, 6)
    assert made.outputs[0].layout == "NCHW"
    engine = backend.load(out / made.model, options=made.options, threads=1)
    assert engine.outputs[0].layout == "NCHW"
    picture = np.random.default_rng(0).random((1, 4, 6, 3), dtype=np.float32)
    first, *rest = engine.run([picture])
    np.testing.assert_allclose(first, 2 * picture.transpose(0, 3, 1, 2), rtol=1e-6)
    np.testing.assert_allclose([float(x[0]) for x in rest], picture[..., 0].mean() + np.arange(11), rtol=1e-5)


def test_inputs_with_channels_first_are_told_apart() -> None:
    layouts = {(1, 3, 32, 32): "NCHW", (1, 32, 32, 3): "NHWC", (1, 3, 3, 3): "NHWC", (1, 16, 8, 8): "NHWC"}
    for shape, layout in layouts.items():
        detail = {
            "name": "x",
            "shape": np.array(shape),
            "shape_signature": np.array(shape),
            "dtype": np.float32,
            "quantization_parameters": {"scales": np.array([]), "zero_points": np.array([])},
        }
        spec = backend._spec(detail, channels_last=backend._is_nhwc(detail))
        assert spec == TensorSpec("x", shape, "float32", layout)  # type: ignore[arg-type]
