"""Random small graphs of the supported operators: every engine gives torch's Q/DQ numbers within one output step."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from edgecv.optimize.graph import DEQUANTIZE

from .quantize_nets import images
from .test_engines_agree import ENGINES, Exported, export

OPERATORS = (
    "conv",
    "depthwise",
    "relu",
    "relu6",
    "hardswish",
    "silu",
    "maxpool",
    "avgpool",
    "resize",
    "residual",
    "gate",
    "concat",
)
CHANNELS = 8
SINGLE = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hardswish": functional.hardswish,
    "silu": functional.silu,
}


class Random(nn.Module):
    """``operators`` one after the other on 8 channels, then a mean and a linear layer."""

    def __init__(self, operators: tuple[str, ...], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.operators = operators
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.layers = nn.ModuleList(self._layer(name) for name in operators)
        self.head = nn.Linear(CHANNELS, 5)

    @staticmethod
    def _layer(name: str) -> nn.Module:
        if name == "depthwise":
            return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        if name == "concat":
            return nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
        return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) if name in ("conv", "residual", "gate") else nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = self.stem(image)
        for name, layer in zip(self.operators, self.layers, strict=True):
            made = self._apply_one(name, layer, made)
        return self.head(made.mean((2, 3)))

    @staticmethod
    def _apply_one(name: str, layer: nn.Module, made: torch.Tensor) -> torch.Tensor:
        if name in SINGLE:
            return SINGLE[name](made)
        if name in ("maxpool", "avgpool"):
            pool = functional.max_pool2d if name == "maxpool" else functional.avg_pool2d
            return pool(made, 2) if made.shape[-1] > 2 else made
        if name == "resize":
            return functional.interpolate(made, scale_factor=2.0, mode="nearest") if made.shape[-1] < 32 else made
        if name == "residual":
            return functional.relu(made + layer(made))
        if name == "gate":
            return made * layer(made)
        if name == "concat":
            return layer(torch.cat([made, functional.relu(made)], dim=1))
        return layer(made)


def output_step(exported: Exported) -> float:
    """The scale of the network's int8 output; 0 where it is float."""
    last = exported.made.program.graph.output_node().args[0][0]  # type: ignore[index,union-attr]
    return float(last.args[1]) if last.target is DEQUANTIZE[0] else 0.0  # type: ignore[union-attr,arg-type]


@pytest.mark.build
@given(operators=st.lists(st.sampled_from(OPERATORS), min_size=2, max_size=5).map(tuple), seed=st.integers(0, 99))
@settings(max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_engines_give_the_numbers_of_torch_within_one_step(operators: tuple[str, ...], seed: int) -> None:
    module = Random(operators, seed).eval()
    arrays = images(16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exported = export(module, arrays, folder)
        step = output_step(exported)
        assert step > 0, operators
        wanted = exported.run_torch(arrays[:8])
        for engine in ENGINES:
            found = exported.run(engine, arrays[:8], folder)
            steps = np.abs(found - wanted) / step
            print(f"{'-'.join(operators)} {seed} {engine}: {steps.max():.2f} steps")
            assert steps.max() < 1.01, f"{engine} is {steps.max():.1f} steps off on {operators}, seed {seed}"


@pytest.mark.build
@pytest.mark.parametrize("scheme", ["portable", "affine"])
def test_sums_with_their_own_scales_give_the_same_numbers(scheme: str, tmp_path: Path) -> None:
    operators = ("residual", "conv", "residual", "residual")
    arrays = images(16)
    exported = export(Random(operators, 5).eval(), arrays, tmp_path, scheme=scheme, sums="own")
    step, wanted = output_step(exported), exported.run_torch(arrays[:8])
    for engine in ENGINES:
        found = exported.run(engine, arrays[:8], tmp_path)
        steps = np.abs(found - wanted) / step
        print(f"{engine}: {steps.max():.2f} steps")
        assert steps.max() < 1.01, engine
