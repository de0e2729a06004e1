from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgecv.backends.program import fold_weights
from edgecv.core.recipe import Quantize
from edgecv.errors import ArtifactError, ModelError, ToolchainError
from edgecv.optimize.export import export_program, load_program, program_specs, save_program, write_onnx
from edgecv.optimize.ptq import quantize_ptq

from .quantize_nets import batches, example, images, residual

pytestmark = pytest.mark.build


@pytest.fixture(scope="module")
def float_program() -> Any:
    return export_program(residual(), example())


@pytest.fixture(scope="module")
def int8_program() -> Any:
    calibration = batches(images(16))
    return quantize_ptq(residual(), example(), step=Quantize("ptq"), calibration=calibration).program


def run(program: Any, inputs: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(program.module()(inputs).numpy())


def run_onnx(path: Path, inputs: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: inputs}))


class Heads(nn.Module):
    """Two outputs of different rank."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.layer(image)
        return features, features.mean((2, 3))


def test_a_program_computes_what_the_module_does(float_program: Any) -> None:
    with torch.no_grad():
        expected = residual()(example()).numpy()
    assert np.allclose(run(float_program, example()), expected, atol=1e-5)


def test_a_saved_program_comes_back_the_same(int8_program: Any, tmp_path: Path) -> None:
    save_program(int8_program, tmp_path / "program.pt2")
    back = load_program(tmp_path / "program.pt2")
    assert np.array_equal(run(back, example()), run(int8_program, example()))
    assert [item.name for item in tmp_path.iterdir()] == ["program.pt2"]


def test_saved_bytes_depend_on_the_program_alone(tmp_path: Path) -> None:
    contents = set()
    for name in ("one.pt2", "other.pt2"):
        save_program(export_program(residual(), example()), tmp_path / name)
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1


def test_files_name_nothing_of_this_machine(int8_program: Any, float_program: Any, tmp_path: Path) -> None:
    for index, program in enumerate((int8_program, float_program)):
        save_program(program, tmp_path / f"{index}.pt2")
        write_onnx(program, tmp_path / f"{index}.onnx")
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        for hint in (str(Path(torch.__file__).parent), str(Path(__file__).parent), str(tmp_path), ".py"):
            assert hint.encode() not in content, (path.name, hint)


def test_only_batch_one_is_exported() -> None:
    with pytest.raises(ModelError, match="batch 1"):
        export_program(residual(), torch.rand(2, 3, 16, 16))


def test_what_is_no_program_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"PK\x03\x04 not an archive")
    for path in (broken, tmp_path / "missing.pt2"):
        with pytest.raises(ArtifactError, match=path.name):
            load_program(path)
    assert capfd.readouterr() == ("", "")


def test_specs_name_inputs_and_outputs_as_the_onnx_file_does(float_program: Any, tmp_path: Path) -> None:
    import onnx

    inputs, outputs = program_specs(float_program)
    assert [(spec.name, spec.shape, spec.dtype, spec.layout) for spec in (*inputs, *outputs)] == [
        ("input", (1, 3, 16, 16), "float32", "NCHW"),
        ("output", (1, 10), "float32", "NC"),
    ]
    heads = export_program(Heads(), example())
    write_onnx(heads, tmp_path / "heads.onnx")
    graph = onnx.load(tmp_path / "heads.onnx").graph
    assert [value.name for value in graph.output] == [spec.name for spec in program_specs(heads)[1]]
    assert [value.name for value in graph.output] == ["output_0", "output_1"]
    assert [item.shape for item in run_onnx(tmp_path / "heads.onnx", example().numpy())] == [(1, 4, 14, 14), (1, 4)]


def test_onnx_computes_what_the_program_does(float_program: Any, int8_program: Any, tmp_path: Path) -> None:
    for program, tolerance in ((float_program, 1e-5), (int8_program, 0.2)):
        write_onnx(program, tmp_path / "model.onnx")
        found = run_onnx(tmp_path / "model.onnx", example().numpy())[0]
        assert np.allclose(found, run(program, example()), atol=tolerance)


def test_onnx_bytes_depend_on_the_program_alone(tmp_path: Path) -> None:
    contents = set()
    for name in ("one.onnx", "other.onnx"):
        made = quantize_ptq(residual(), example(), step=Quantize("ptq"), calibration=batches(images(8)))
        write_onnx(made.program, tmp_path / name)
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1


def test_int8_weights_are_stored_as_int8(int8_program: Any, tmp_path: Path) -> None:
    import onnx

    write_onnx(int8_program, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    large = [item for item in graph.initializer if np.prod(item.dims) > 16]
    assert len(large) == 4
    assert {item.data_type for item in large} == {onnx.TensorProto.INT8}
    made = {name for node in graph.node for name in node.output}
    quantised = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert all(node.input[0] in made or node.input[0] == "input" for node in quantised)


def test_an_int8_file_of_200_000_parameters_has_at_most_30_percent_of_the_float_file(tmp_path: Path) -> None:
    from edgecv.models.reference import digits_cnn

    torch.manual_seed(0)
    module, sample = digits_cnn().eval(), torch.rand(1, 1, 32, 32)
    calibration = batches(images(8, size=32, channels=1))
    write_onnx(export_program(module, sample), tmp_path / "float.onnx")
    made = quantize_ptq(module, sample, step=Quantize("ptq"), calibration=calibration)
    write_onnx(made.program, tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size <= 0.3 * (tmp_path / "float.onnx").stat().st_size


def test_chatter_of_the_exporter_goes_to_the_log(
    float_program: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_onnx(float_program, tmp_path / "model.onnx", log=tmp_path / "run.log")
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_onnx_cannot_express_is_an_error_of_the_toolchain(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.special.airy_ai(image)

    with pytest.raises(ToolchainError, match=r"torch\.onnx refuses the graph"):
        write_onnx(export_program(Odd(), example()), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_folding_changes_no_number_and_is_done_once(int8_program: Any, float_program: Any) -> None:
    folded = fold_weights(int8_program)
    assert np.array_equal(run(folded, example()), run(int8_program, example()))
    stored = [value for value in folded.state_dict.values() if value.numel() > 16]
    assert {value.dtype for value in stored} == {torch.int8}
    assert fold_weights(folded) is folded
    assert fold_weights(float_program) is float_program


def test_outputs_get_the_names_that_are_asked_for(tmp_path: Path) -> None:
    class Pair(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.relu(torch.sigmoid(x)), x + 1

    program = export_program(Pair(), torch.zeros(1, 3, 4, 4))
    write_onnx(program, tmp_path / "plain.onnx")
    inner = onnx.load(tmp_path / "plain.onnx").graph.node[0].output[0]
    write_onnx(program, tmp_path / "named.onnx", output_names=(inner, "input"))
    model = onnx.load(tmp_path / "named.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == [inner, "input_out"]
    makers = [node.op_type for node in model.graph.node if inner in node.output]
    assert makers == ["Relu"]
