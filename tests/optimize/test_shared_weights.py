"""Layers that are called more than once: every call must compute with the int8 weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.core.recipe import Quantize
from edgecv.optimize.graph import CONVOLUTIONS, DEQUANTIZE, LINEAR
from edgecv.optimize.ptq import prepare_ptq

from .quantize_nets import batches, example, images
from .test_engines_agree import export
from .test_engines_property import output_step


class Pyramid(nn.Module):
    """One head of two layers on two levels, and one linear layer for both: `(N, 3, 16, 16)` -> `(N, 8)`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = functional.relu(self.stem(image))
        levels = (fine, functional.max_pool2d(fine, 2))
        pooled = [functional.relu(self.head(level)).amax(dim=(2, 3)) for level in levels]
        return torch.cat([self.last(level) for level in pooled], dim=1)


def quantised(keep_float: tuple[str, ...] = ()) -> torch.fx.GraphModule:
    step = Quantize("ptq", keep_float=keep_float)
    return prepare_ptq(Pyramid().eval(), example(), step=step, calibration=batches(images(8))).graph


def int8_layers(graph: torch.fx.GraphModule) -> dict[str, bool]:
    """Whether each layer reads int8 weights, by the name of its node."""
    layers = [node for node in graph.graph.nodes if node.target in (*CONVOLUTIONS, LINEAR)]
    return {node.name: node.args[1].target in DEQUANTIZE for node in layers}


def test_every_call_of_a_layer_has_int8_weights() -> None:
    graph = quantised()
    found = int8_layers(graph)
    assert len(found) == 5
    assert all(found.values()), found
    graph(example())


def test_a_layer_that_is_kept_float_is_so_in_every_call() -> None:
    found = int8_layers(quantised(("head",)))
    assert sorted(found.values()) == [False, False, True, True, True]


@pytest.mark.build
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "litert"])
@pytest.mark.parametrize("scheme", ["portable", "affine"])
def test_engines_compute_what_torch_does(engine: str, scheme: Literal["portable", "affine"], tmp_path: Path) -> None:
    arrays = images(8)
    exported = export(Pyramid().eval(), arrays, tmp_path, scheme=scheme)
    steps = np.abs(exported.run(engine, arrays, tmp_path) - exported.run_torch(arrays)) / output_step(exported)
    assert steps.max() < 1.01
    assert steps.mean() < 0.02
