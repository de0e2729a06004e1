"""Layers as matrix products of their inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgecv.optimize import prune_graph
from edgecv.optimize.input_powers import (
    flat_weights,
    input_powers,
    is_plain,
    matrix_rows,
    output_rows,
    reads,
    solved_without,
)
from edgecv.optimize.prune_graph import Region


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 5, 3, stride=2, padding=1), (2, 3, 9, 7)),
        (nn.Conv2d(3, 5, 1, bias=False), (2, 3, 4, 4)),
        (nn.Linear(6, 4), (2, 5, 6)),
    ],
    ids=["conv", "no bias", "linear"],
)
def test_rows_times_weights_are_the_outputs(layer: Any, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape)
    rows, picked = matrix_rows(layer, inputs, torch.Generator().manual_seed(0))
    wanted = output_rows(layer, layer(inputs).detach(), picked)
    assert torch.allclose(rows @ flat_weights(layer).T, wanted, atol=1e-5)


def test_the_best_weights_without_an_input_beat_leaving_it_out() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    inputs = torch.randn(200, 6)
    inputs[:, 5] = 0.7 * inputs[:, 0] - inputs[:, 3] + 2.0
    reader = input_powers(nn.Sequential(layer), {"0"}, [inputs])["0"]
    found = solved_without(reader, torch.tensor([5]))
    assert float(found[:, 5].abs().max()) == 0.0
    rows = torch.cat([inputs, torch.ones(200, 1)], dim=1).double()
    wanted = rows @ flat_weights(layer).T
    left_out = flat_weights(layer)
    left_out[:, 5] = 0.0
    assert (rows @ found.T - wanted).square().mean() < 0.01 * (rows @ left_out.T - wanted).square().mean()
    assert float(solved_without(reader, torch.arange(7)).abs().max()) == 0.0


def test_columns_of_each_channel_are_found_through_flatten() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2)).eval()
    region = Region("", torch.zeros(1, 3, 6, 6))
    groups = dict(prune_graph.groups_of(module, region, protected=frozenset({"3"})))
    found = {group.layer: reads(module, raw) for group, raw in groups.items()}
    assert found["0"] == {"1": {channel: list(range(9 * channel, 9 * channel + 9)) for channel in range(4)}}
    assert found["1"] == {"3": {channel: list(range(4 * channel, 4 * channel + 4)) for channel in range(4)}}


def test_what_is_no_matrix_product_or_too_wide_is_left_out() -> None:
    assert not is_plain(nn.Conv2d(4, 4, 3, groups=2))
    assert not is_plain(nn.Conv2d(4, 4, 3, padding="same"))
    wide = nn.Sequential(nn.Linear(3000, 2))
    assert input_powers(wide, {"0"}, [torch.zeros(1, 3000)]) == {}
