"""Adaptive average pools over sides that their windows do not divide: the same numbers, from slices and plain pools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgecv.optimize.capture import capture
from edgecv.optimize.export import export_program, write_onnx
from edgecv.optimize.pools import windows

aten = torch.ops.aten
CASES = [((8, 12), (1, 2, 3, 6)), ((4, 6), (1, 2, 3, 6)), ((7, 9), (2, 3)), ((5, 12), (3,)), ((3, 2), (6,))]


class Pyramid(nn.Module):
    """A convolution, and its means over several numbers of windows, each with a convolution of its own."""

    def __init__(self, bins: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.levels = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(count), nn.Conv2d(8, 4, 1)) for count in bins)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.conv(inputs))
        size = features.shape[-2:]
        return torch.cat([nn.functional.interpolate(level(features), size=size) for level in self.levels], dim=1)


def uneven(graph: torch.fx.GraphModule) -> list[str]:
    """Adaptive pools that are left although their windows do not divide a side."""
    pools = [node for node in graph.graph.nodes if node.target is aten.adaptive_avg_pool2d.default]
    sides = [(node.args[0].meta["val"].shape[2:], node.meta["val"].shape[2:]) for node in pools]
    return [f"{long} to {short}" for long, short in sides if any(a % b for a, b in zip(long, short, strict=True))]


@pytest.mark.parametrize(("length", "count"), [(8, 3), (12, 6), (7, 7), (4, 6), (1, 3), (13, 5)])
def test_windows_are_those_of_torch(length: int, count: int) -> None:
    values = torch.rand(1, 1, length)
    means = [values[0, 0, start:end].mean() for start, end in windows(length, count)]
    assert torch.allclose(torch.stack(means), nn.functional.adaptive_avg_pool1d(values, count)[0, 0])


@pytest.mark.parametrize(("size", "bins"), CASES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_graph_gives_the_same_numbers(size: tuple[int, int], bins: tuple[int, ...], dynamic: bool) -> None:
    torch.manual_seed(0)
    module = Pyramid(bins).eval()
    inputs = torch.rand(2, 3, *size)
    graph = capture(module, inputs, dynamic_batch=dynamic)
    assert not uneven(graph)
    assert torch.allclose(graph(inputs), module(inputs), atol=1e-6)
    if dynamic:
        more = torch.rand(5, 3, *size)
        assert torch.allclose(graph(more), module(more), atol=1e-6)


def test_new_nodes_belong_to_the_layer_of_the_pool() -> None:
    graph = capture(Pyramid((3,)).eval(), torch.rand(1, 3, 8, 12))
    pools = [node for node in graph.graph.nodes if node.target is aten.avg_pool2d.default]
    assert len(pools) == 4  # three bands of rows; twelve columns are even
    assert all("levels.0.0" in [path for path, _ in node.meta["nn_module_stack"].values()] for node in pools)
    assert [tuple(node.meta["val"].shape) for node in pools] == [(1, 8, 1, 12)] * 3 + [(1, 8, 3, 3)]


@pytest.mark.build
def test_an_engine_gets_pools_and_no_gathers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, inputs = Pyramid((1, 2, 3, 6)).eval(), torch.rand(1, 3, 8, 13)
    write_onnx(export_program(module, inputs), tmp_path / "pyramid.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "pyramid.onnx").graph.node}
    assert not kinds & {"Gather", "GatherND", "Where", "Div"}
    assert "AveragePool" in kinds
    session = onnxruntime.InferenceSession(tmp_path / "pyramid.onnx", providers=["CPUExecutionProvider"])
    made = session.run(None, {"input": inputs.numpy()})[0]
    assert np.allclose(made, module(inputs).detach().numpy(), atol=1e-5)
