"""Multiply-accumulates of single layers against torch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgecv.optimize.prune_layers import MacCosts, NetLayer, _shape
from edgecv.optimize.prune_rounds import count_macs


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(8, 12, 3, stride=2, padding=1), (1, 8, 15, 10)),
        (nn.Conv2d(8, 12, (1, 5), dilation=2, groups=4), (1, 8, 15, 10)),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (1, 8, 9, 9)),
        (nn.ConvTranspose2d(8, 6, 2, stride=2), (1, 8, 7, 5)),
        (nn.Linear(8, 20), (1, 7, 8)),
    ],
    ids=["conv", "grouped", "depthwise", "deconv", "linear"],
)
def test_macs_are_those_that_torch_counts(layer: Any, shape: tuple[int, ...]) -> None:
    inputs = torch.zeros(shape)
    assert _shape(layer, inputs).macs == count_macs(layer, inputs)


def test_costs_follow_the_width() -> None:
    shape = _shape(nn.Conv2d(8, 12, 3, padding=1), torch.zeros(1, 8, 6, 6))
    key = ("", "before")
    costs = MacCosts((NetLayer("conv", shape, ((key, 8),), ()),))
    assert costs.layer_cost(0, {key: 0.5}) == costs.total_cost({}) / 2 == 6 * 6 * 12 * 4 * 9
