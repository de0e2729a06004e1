"""Zeros of sparse weights survive training in a quantised graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgecv.optimize.capture import capture
from edgecv.optimize.sparsity import pattern_mask
from edgecv.optimize.zeros import hold_zeros


def network() -> nn.Module:
    """A 2:4 sparse convolution and linear layer, and a dense one."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    ).eval()
    with torch.no_grad():
        for index in (3, 6):
            module[index].weight.mul_(pattern_mask(module[index].weight))
    return module


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_zeros_stay_and_the_rest_trains(optimizer: Any) -> None:
    pictures = torch.randn(4, 4, 8, 8)
    graph = capture(network(), pictures)
    before = {name: value.detach().clone() for name, value in graph.named_parameters()}
    assert hold_zeros(graph) == 2
    steps = optimizer(graph.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        steps.zero_grad()
        graph(pictures).square().sum().backward()
        steps.step()
    for name, value in graph.named_parameters():
        if value.ndim > 1:
            zeros = before[name] == 0
            assert torch.equal(value.detach() == 0, zeros)
            assert not torch.equal(value.detach()[~zeros], before[name][~zeros])


def test_a_dense_network_is_left_alone() -> None:
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU()).eval()
    assert hold_zeros(capture(module, torch.zeros(1, 4, 8, 8))) == 0
