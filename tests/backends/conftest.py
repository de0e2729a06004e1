"""Small networks that the backends' tests share.

`qdq_model` is written node by node and needs no torch; `exports` is a real torch network on its real
way (export, quantise, ONNX), built once a session.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.protocols import CompileSource
from edgecv.core.target import Precision, Target

from .networks import SIZE, GraphWriter, write_network


@pytest.fixture
def qdq_model() -> Any:
    """A symmetric int8 Q/DQ network (onnx ModelProto) with unfolded weights; a fresh one for every test."""
    return write_network(GraphWriter([], {})).model()


@pytest.fixture
def picture() -> np.ndarray:
    """An input of `qdq_model` and of `exports`, `(1, 3, 16, 16)` float32."""
    return np.random.default_rng(1).random((1, 3, SIZE, SIZE), dtype=np.float32)


@pytest.fixture
def make_target() -> Callable[..., Target]:
    """Makes a target for a backend, with engine options as keywords."""

    def make(backend: str, *, arch: str = "host", threads: int | None = 1, **options: Any) -> Target:
        return Target(
            target=1,
            name="test",
            title="Test",
            backend=backend,  # type: ignore[arg-type]
            arch=arch,  # type: ignore[arg-type]
            precisions=("fp32", "fp16", "int8"),
            sources=(),
            threads=threads,
            engine_options=options,
        )

    return make


@dataclass(frozen=True)
class Export:
    """One exported network: what the compilers take, an input, and torch's own output for it."""

    source: CompileSource
    picture: np.ndarray
    expected: np.ndarray

    def at(self, precision: Precision) -> CompileSource:
        return CompileSource(precision, self.source.onnx, self.source.program)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Export]:
    """A small torch network as `float` and as quantised `int8`, exported as edgecv does it."""
    import torch

    from edgecv.optimize.export import export_program, save_program, write_onnx

    torch.manual_seed(0)
    sample = torch.rand(1, 3, SIZE, SIZE)
    module = small_module().eval()
    folder, made = tmp_path_factory.mktemp("exports"), {}
    programs = {"float": export_program(module, sample), "int8": quantised_program(module, sample, folder)}
    for name, program in programs.items():
        onnx, archive = folder / f"{name}.onnx", folder / f"{name}.pt2"
        save_program(program, archive)
        write_onnx(program, onnx)
        with torch.no_grad():
            expected = program.module()(sample).numpy()
        precision: Precision = "int8" if name == "int8" else "fp32"
        made[name] = Export(CompileSource(precision, onnx, archive), sample.numpy(), expected)
    return made


def small_module() -> Any:
    """conv-bn-relu twice with a residual, pooling, linear."""
    from torch import nn

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
            self.linear = nn.Linear(8, 10)

        def forward(self, image: Any) -> Any:
            features = self.first(image)
            features = nn.functional.relu(features + self.second(features))
            return self.linear(nn.functional.adaptive_avg_pool2d(features, 1).flatten(1))

    return Small()


def quantised_program(module: Any, sample: Any, folder: Path) -> Any:
    """The network after edgecv's own post-training quantisation, on eight random pictures."""
    from edgecv.core.recipe import Quantize

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's own source has invalid escapes
        from edgecv.optimize.ptq import quantize_ptq

    pictures = np.random.default_rng(2).random((8, 3, SIZE, SIZE), dtype=np.float32)
    made = quantize_ptq(
        module,
        sample,
        step=Quantize("ptq"),
        calibration=lambda: iter([(pictures, None)]),
        log=folder / "ptq.log",
    )
    return made.program


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log file of a run."""
    return tmp_path / "run.log"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for a compiled model."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
