"""Networks that stream on the host: calibration frame by frame, one scale for the state, engines, pruning."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecv import backends
from edgecv.backends.stream import StreamEngine
from edgecv.core.contract import Clip, InputContract
from edgecv.core.protocols import Batches, Compiled, CompileSource
from edgecv.core.recipe import FamilySpec, Prune, Quantize
from edgecv.core.target import Target
from edgecv.core.tensor import Array, FloatArray
from edgecv.errors import DataError
from edgecv.models.reference_streaming import tsm, x3d_stream
from edgecv.models.streaming import deploy_form, whole_form
from edgecv.optimize.examples import ClipSteps, all_inputs, picture_shape, pictures, steps_of
from edgecv.optimize.export import export_program, program_specs, save_program, write_onnx
from edgecv.optimize.prune import example_input, prune, replay
from edgecv.optimize.ptq import quantize_ptq
from edgecv.optimize.quantized import QuantizedGraph

from .quantize_nets import images

CONTRACT = InputContract(size=(16, 24), clip=Clip(frames=5, fps=8.0, stream=True))
ENGINES = ("onnxruntime", "openvino", "litert")


def clips(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 15, 16, 24, generator=torch.Generator().manual_seed(1))


def lively(module: nn.Module) -> nn.Module:
    """The same with batch norms that fit its input."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        module.train()(clips(8))
    return module.eval()


def small() -> nn.Module:
    torch.manual_seed(2)
    return lively(x3d_stream(frames=5, num_classes=3, width=8, blocks=2))


SHAPE = (3, 16, 16)


def batches(values: torch.Tensor) -> Batches:
    def start() -> Iterator[tuple[FloatArray, Any]]:
        for part in torch.split(values, 3):
            yield part.numpy(), None

    return start


def test_a_clip_is_gone_through_frame_by_frame() -> None:
    module = small()
    step, example = deploy_form(module, CONTRACT)
    calibration = steps_of(batches(clips()), step, example)
    assert isinstance(calibration, ClipSteps)
    found = list(pictures(calibration, limit=2, shape=picture_shape(example)))
    assert len(found) == 2 * 5, "all steps of two clips"
    inputs = [all_inputs(item) for item in found]
    assert all(len(item) == 4 for item in inputs)
    assert torch.equal(inputs[6][0], clips()[1:2, 3:6])
    assert not inputs[5][1].any(), "each clip begins with zeros"
    with torch.no_grad():
        wanted = step(*inputs[6])[1:]
    assert all(torch.equal(one, other) for one, other in zip(inputs[7][1:], wanted, strict=True))


def test_pictures_stay_pictures() -> None:
    values = clips()
    plain = batches(values)
    assert steps_of(plain, small(), values[:1]) is plain
    found = list(pictures(plain, limit=3, shape=(15, 16, 24)))
    assert [torch.equal(all_inputs(one)[0], two[None]) for one, two in zip(found, values, strict=False)] == [True] * 3
    assert picture_shape(values[:1]) == (15, 16, 24)


def test_pictures_come_one_at_a_time_in_order_and_whole() -> None:
    arrays = images(7)
    found = list(pictures(batches(torch.from_numpy(arrays)), limit=100, shape=SHAPE))
    assert [tuple(all_inputs(picture)[0].shape) for picture in found] == [(1, *SHAPE)] * 7
    assert np.array_equal(torch.cat([all_inputs(item)[0] for item in found]).numpy(), arrays)


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (3, 3), (4, 4), (7, 7), (8, 7)])
def test_the_limit_counts_pictures_and_not_batches(limit: int, expected: int) -> None:
    assert len(list(pictures(batches(torch.from_numpy(images(7))), limit=limit, shape=SHAPE))) == expected


def test_a_stream_never_holds_more_than_two_batches() -> None:
    """The one that is given out, and the next one while it is being made."""
    made: list[weakref.ref[Any]] = []
    most = 0

    def start() -> Iterator[tuple[np.ndarray, Any]]:
        for number in range(20):
            batch = images(4, seed=number)
            made.append(weakref.ref(batch))
            yield batch, None
            del batch

    for _ in pictures(start, limit=80, shape=SHAPE):
        most = max(most, sum(one() is not None for one in made))
    assert 1 <= most <= 2


def test_no_picture_is_an_error() -> None:
    with pytest.raises(DataError, match="calibration set is empty; at least 1 picture"):
        list(pictures(lambda: iter(()), limit=5, shape=SHAPE))


@pytest.mark.parametrize("wrong", [(1, 16, 16), (3, 16, 12)])
def test_a_picture_of_another_shape_is_an_error_wherever_it_stands(wrong: tuple[int, ...]) -> None:
    def start() -> Iterator[tuple[np.ndarray, Any]]:
        yield images(2), None
        yield np.zeros((1, *wrong), np.float32), None

    stream = pictures(start, limit=5, shape=SHAPE)
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(DataError) as caught:
        next(stream)
    assert str(wrong) in str(caught.value)
    assert str(SHAPE) in str(caught.value)


def test_clips_of_another_size_are_refused() -> None:
    step, example = deploy_form(small(), CONTRACT)
    for wrong, words in ((torch.rand(1, 15, 8, 8), r"\(3, 8, 8\)"), (torch.rand(1, 14, 16, 24), r"\(14, 16, 24\)")):
        with pytest.raises(DataError, match=words):
            list(pictures(steps_of(batches(wrong), step, example), limit=1, shape=picture_shape(example)))


@dataclass(frozen=True)
class Made:
    module: nn.Module
    example: tuple[torch.Tensor, ...]
    graph: QuantizedGraph
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    module, folder = small(), tmp_path_factory.mktemp("stream")
    step, example = deploy_form(module, CONTRACT)
    calibration = steps_of(batches(clips(6)), step, example)
    graph = quantize_ptq(step, example, step=Quantize("ptq"), calibration=calibration, log=folder / "log")
    save_program(graph.program, folder / "program.pt2")
    write_onnx(graph.program, folder / "model.onnx", log=folder / "log")
    return Made(module, example, graph, folder)


def compiled(folder: Path, engine: str, precision: Any) -> Compiled:
    target = Target(1, "here", "here", "x86_64", engine, ("fp32", "int8"), ())  # type: ignore[arg-type]
    (folder / engine).mkdir()
    source = CompileSource(precision, folder / "model.onnx", folder / "program.pt2")
    return backends.get(engine).compile(source, target=target, out=folder / engine, log=folder / "log")


def streamed(folder: Path, engine: str, file: Compiled, values: torch.Tensor) -> Array:
    """The engine's scores for the last frame of each clip."""
    loaded = backends.get(engine).load(folder / engine / file.model, options=file.options, threads=1)
    stream = StreamEngine(loaded, file.inputs, file.outputs)
    spec, rows = stream.inputs[0], []
    for clip in values:
        stream.reset()
        for frame in clip.split(3):
            picture = frame[None].numpy()
            given = picture.transpose(0, 2, 3, 1) if spec.layout == "NHWC" else picture
            answer = stream.run([spec.quantize(np.ascontiguousarray(given))])[0]
        rows.append(stream.outputs[0].dequantize(answer))
    stream.close()
    return np.concatenate(rows)


@pytest.mark.build
def test_a_state_has_one_scale_where_it_goes_in_and_where_it_comes_out(made: Made) -> None:
    scales = {record.node: record.scale_max for record in made.graph.plan}
    states = [name for name in scales if name.startswith("state")]
    assert len(states) == 3
    for number, name in enumerate(states, start=1):
        assert scales[name] == scales[f"slice_{number}"] > 0, "what comes out lies on the grid of what goes in"
        # The range is that of a state in motion: the frames' features, not the zeros of a clip's start.
        assert scales[name] > 1e-4


@pytest.mark.build
def test_the_int8_network_and_all_engines_give_the_same(made: Made) -> None:
    values = clips(5)
    with torch.no_grad():
        plain = made.module(values).numpy()
        wanted = whole_form(made.graph.program.module(), made.example, CONTRACT)(values).numpy()
    spread = plain.std(axis=0).mean()
    assert np.abs(wanted - plain).mean() < 0.2 * spread, "int8 is near to float"
    for engine in ENGINES:
        file = compiled(made.folder, engine, "int8")
        names = [spec.name for spec in (*file.inputs, *file.outputs)]
        if engine != "litert":
            assert names[0] == "input"
            assert names[1:4] == ["state_in_0", "state_in_1", "state_in_2"]
            assert names[4:] == ["output", "state_out_0", "state_out_1", "state_out_2"]
        else:
            assert {spec.dtype for spec in (*file.inputs, *file.outputs)} == {"int8"}
            assert {spec.layout for spec in (*file.inputs, *file.outputs[1:])} == {"NHWC"}
            pairs = zip(file.inputs[1:], file.outputs[1:], strict=True)
            assert all(one.quantization == other.quantization for one, other in pairs)
        found = streamed(made.folder, engine, file, values)
        assert np.abs(found - wanted).max() < 0.05 * spread, engine


@pytest.mark.build
def test_a_float_shift_network_goes_through_the_engines(tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = lively(tsm(frames=5, backbone="torchvision:resnet18", num_classes=3))
    program = export_program(*deploy_form(module, CONTRACT))
    save_program(program, tmp_path / "program.pt2")
    write_onnx(program, tmp_path / "model.onnx", log=tmp_path / "log")
    assert [spec.name for spec in program_specs(program)[0]][:2] == ["input", "state_in_0"]
    values = clips(2)
    with torch.no_grad():
        wanted = module(values).numpy()
    for engine in ("onnxruntime", "openvino"):
        found = streamed(tmp_path, engine, compiled(tmp_path, engine, "fp32"), values)
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max(), engine


@pytest.mark.build
def test_pruning_cuts_the_state_with_the_channels_that_it_holds() -> None:
    module, family = small(), FamilySpec("video", ("a", "b", "c"))
    step = Prune(ratio=0.4, importance="magnitude", round_to=2)
    found = prune(module, step=step, contract=CONTRACT, family=family)
    before, after = (deploy_form(item, CONTRACT)[1] for item in (module, found.module))
    for one, other in zip(before[1:], after[1:], strict=True):
        assert other.shape[1] < one.shape[1]
        assert other.shape[2:] == one.shape[2:]
    step_form, example = deploy_form(found.module, CONTRACT)
    with torch.no_grad():
        wanted = found.module(clips())
        assert (whole_form(step_form, example, CONTRACT)(clips()) - wanted).abs().max() <= 1e-5
    again = replay(small(), example_input(CONTRACT), found.history)
    assert [item.shape for item in deploy_form(again, CONTRACT)[1]] == [item.shape for item in after]
    still = replace(CONTRACT, clip=replace(CONTRACT.clip, stream=False))  # type: ignore[type-var]
    assert example_input(still).shape == example_input(CONTRACT).shape, "it is trained and pruned on clips"
