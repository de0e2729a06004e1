"""Ranges that an activation function flattens get no int8 steps, and the guards leave no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.recipe import Quantize
from edgecv.optimize.capture import capture
from edgecv.optimize.flat import FLAT, guard_flat_ranges, remove_guards
from edgecv.optimize.ptq import quantize_ptq

from .quantize_nets import batches, images, sqnr_db


def network(activation: nn.Module, *, spread: float = 40.0) -> nn.Module:
    """A layer whose results reach far to the negative side."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), activation, nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        module[0].weight[0] *= spread  # type: ignore[index]
        module[0].weight[0] = -module[0].weight[0].abs()  # type: ignore[index]
    return module.eval()


def test_every_function_is_flat_there() -> None:
    for function, (low, high) in FLAT.items():
        far = torch.linspace(low - 500, low, 2000)
        assert (function(far) - function(torch.tensor([low]))).abs().max() <= 0.0035  # type: ignore[operator]
        if high < float("inf"):
            far = torch.linspace(high, high + 500, 2000)
            assert (function(far) - function(torch.tensor([high]))).abs().max() <= 0.0035  # type: ignore[operator]


@pytest.mark.build
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.Hardswish()])
def test_the_scale_ends_where_the_function_is_flat(activation: nn.Module) -> None:
    arrays = np.abs(images(16, size=12))
    module, example = network(activation), torch.from_numpy(arrays[:1])
    reached = module[0](torch.from_numpy(arrays)).amin()  # type: ignore[index]
    assert reached < -30
    made = quantize_ptq(module, example, step=Quantize("ptq"), calibration=batches(arrays))
    nodes = {node.name: node for node in made.program.graph.nodes}
    assert not [name for name in nodes if "guard" in name or "clamp" in name]
    (record,) = [item for item in made.plan if item.node == "conv2d"]
    assert record.scale_max * 127 < 9, "its range is that of the positive side, or of the flat limit"
    assert record.why.startswith("output of conv2d")
    assert not [item for item in made.saturated if "conv2d" in item.node or "guard" in item.node]
    with torch.no_grad():
        wanted, found = (
            module(torch.from_numpy(arrays)),
            [made.program.module()(torch.from_numpy(a[None])) for a in arrays],
        )
    assert sqnr_db(wanted.numpy(), torch.cat(found).numpy()) > 25


def test_others_keep_their_whole_range() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found = self.conv(image)
            return torch.nn.functional.silu(found) + found

    example = torch.zeros(1, 3, 8, 8)
    assert guard_flat_ranges(capture(Both().eval(), example)) == 0
    assert guard_flat_ranges(capture(network(nn.ReLU()), torch.zeros(1, 3, 12, 12))) == 0
    graph = capture(network(nn.SiLU()), torch.zeros(1, 3, 12, 12))
    assert guard_flat_ranges(graph) == 1
    assert list(remove_guards(graph).values()) == ["conv2d"]
    assert remove_guards(graph) == {}
