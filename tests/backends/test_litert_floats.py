"""What is float in a Q/DQ graph is float in the .tflite file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.backends import litert
from edgecv.backends.litert_floats import hold_floats
from edgecv.core.protocols import CompileSource
from edgecv.core.recipe import Quantize
from edgecv.core.target import Target
from edgecv.measure.ladder import sqnr_db
from edgecv.optimize.export import save_program
from edgecv.optimize.ptq import quantize_ptq

pytestmark = pytest.mark.build

TARGET = Target(1, "test", "Test", "litert", "host", ("int8",), (), threads=1)


class Net(nn.Module):
    """Three convolutions; ``between``, behind the second, gives what the third reads and what else comes out."""

    def __init__(self, between: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 3)
        self.between = between

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        read, *rest = self.between(self.two(functional.relu(self.one(image))))
        return (self.three(read), *rest)


def pooled(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    values = functional.relu(values)
    return functional.max_pool2d(values, 2), torch.sqrt(values.mean((2, 3)) + 1)


def rejoined(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    first, second = torch.split(functional.leaky_relu(values), [2, 6], dim=1)
    return (torch.cat([second, first], dim=1),)


BETWEEN: dict[str, Callable[[torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "plain": lambda values: (values,),
    "relu": lambda values: (functional.relu(values),),
    "pooled": pooled,
    "rejoined": rejoined,
}


def quantised(name: str, *keep_float: str) -> tuple[Any, np.ndarray]:
    arrays = np.random.default_rng(0).normal(size=(8, 1, 3, 16, 16)).astype(np.float32)
    step = Quantize("ptq", keep_float=keep_float, ranges="minmax")
    made = quantize_ptq(
        Net(BETWEEN[name]).eval(),
        torch.from_numpy(arrays[0]),
        step=step,
        calibration=lambda: ((a, None) for a in arrays),
    )
    return made.program, arrays


def float_layers(path: Path) -> int:
    """Convolutions of the file with float weights."""
    from ai_edge_litert import interpreter

    loaded = interpreter.Interpreter(
        str(path), experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    loaded.allocate_tensors()
    types = {item["index"]: item["dtype"] for item in loaded.get_tensor_details()}
    layers = [item for item in loaded._get_ops_details() if item["op_name"] == "CONV_2D"]
    assert len(layers) == 3
    return sum(types[item["inputs"][1]] is np.float32 for item in layers)


@pytest.mark.parametrize("name", ["plain", "relu", "pooled"])
def test_a_layer_that_is_kept_float_is_float_in_the_file(name: str, tmp_path: Path) -> None:
    program, arrays = quantised(name, "two", "op:relu", "op:max_pool2d", "op:mean")
    save_program(program, tmp_path / "model.pt2")
    source = CompileSource("int8", None, tmp_path / "model.pt2")
    compiled = litert.compile(source, target=TARGET, out=tmp_path, log=tmp_path / "log.txt")
    assert float_layers(tmp_path / "model.tflite") >= 1
    engine = litert.load(tmp_path / "model.tflite", options=compiled.options, threads=1)
    steps = engine.outputs[0].quantization
    with torch.no_grad():
        for array in arrays[:3]:
            wanted = [item.numpy() for item in program.module()(torch.from_numpy(array))]
            stored = engine.run([np.ascontiguousarray(engine.inputs[0].quantize(array.transpose(0, 2, 3, 1)))])
            found = [spec.dequantize(item) for spec, item in zip(engine.outputs, stored, strict=True)]
            step = steps.scale if steps is not None else 1e-4
            assert np.abs(found[0] - wanted[0]).max() < 1.01 * step
            for one, other in zip(found[1:], wanted[1:], strict=True):
                np.testing.assert_allclose(one, other, atol=1e-4)
    engine.close()


@pytest.mark.parametrize("name", ["plain", "relu", "rejoined"])
def test_an_int8_network_is_left_as_it_is(name: str) -> None:
    program, _ = quantised(name)
    assert hold_floats(program.module()) == 0


@pytest.mark.parametrize(("name", "count"), [("plain", 1), ("relu", 1), ("pooled", 1)])
def test_each_quantiser_behind_a_float_layer_is_stopped_once(name: str, count: int) -> None:
    program, arrays = quantised(name, "two", "op:relu", "op:max_pool2d", "op:mean")
    graph = program.module()
    with torch.no_grad():
        before = graph(torch.from_numpy(arrays[0]))
        assert hold_floats(graph) == count
        for one, other in zip(graph(torch.from_numpy(arrays[0])), before, strict=True):
            assert torch.equal(one, other)
    assert hold_floats(graph) == 0


class Mixed(nn.Module):
    """A small tensor and a large one that is made of it, side by side before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Conv2d(3, 8, 1), nn.Conv2d(6, 8, 1), nn.Conv2d(10, 4, 1)
        with torch.no_grad():
            self.two.weight.mul_(8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first, rest = torch.split(functional.leaky_relu(self.one(image), 0.1), [2, 6], dim=1)
        made: torch.Tensor = self.three(torch.cat([first, self.two(rest)], dim=1))
        return made


@pytest.mark.parametrize("kept", ["two", "three"])
def test_parts_of_a_concatenation_keep_their_own_scales(kept: str, tmp_path: Path) -> None:
    """The converter gave the large part the small one's scale: 5 dB."""
    arrays = np.random.default_rng(0).normal(size=(8, 1, 3, 16, 16)).astype(np.float32)
    step = Quantize("ptq", keep_float=(kept,), ranges="minmax", scheme="affine")
    program = quantize_ptq(
        Mixed().eval(), torch.from_numpy(arrays[0]), step=step, calibration=lambda: ((item, None) for item in arrays)
    ).program
    save_program(program, tmp_path / "model.pt2")
    source = CompileSource("int8", None, tmp_path / "model.pt2")
    compiled = litert.compile(source, target=TARGET, out=tmp_path, log=tmp_path / "log.txt")
    engine = litert.load(tmp_path / "model.tflite", options=compiled.options, threads=1)
    wanted, found = [], []
    with torch.no_grad():
        for array in arrays:
            wanted.append(program.module()(torch.from_numpy(array)).numpy())
            stored = engine.run([np.ascontiguousarray(engine.inputs[0].quantize(array.transpose(0, 2, 3, 1)))])[0]
            found.append(engine.outputs[0].dequantize(stored).reshape(wanted[-1].shape))
    engine.close()
    assert sqnr_db(wanted, found) > 40
