"""Importance by the change of the outputs: one currency for all layers, and an order that knows about repair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, Prune
from edgecv.models.reference import digits_cnn
from edgecv.optimize import prune_graph
from edgecv.optimize.output_importance import output_scores
from edgecv.optimize.prune import count_macs, prune
from edgecv.optimize.prune_graph import Region
from edgecv.optimize.prune_plan import Limits, Scored

CONTRACT = InputContract(size=(8, 8))
FAMILY = FamilySpec(kind="classification", labels=tuple("abcd"))
EXAMPLE = torch.zeros(1, 3, 8, 8)


def batches() -> Iterator[tuple[Any, Any]]:
    random = np.random.default_rng(0)
    for _ in range(2):
        yield random.normal(size=(16, 3, 8, 8)).astype(np.float32), np.zeros(16, dtype=np.int64)


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 8)
    ).eval()


def scores(module: nn.Module, *, round_to: int = 4) -> dict[str, Scored]:
    region = Region("", EXAMPLE)
    groups = list(prune_graph.groups_of(module, region, protected=frozenset({"4", "inner.2"})))
    limits = Limits(round_to, 0.8, {(item.region, item.layer): item.channels for item, _ in groups})
    macs = count_macs(module, EXAMPLE)
    found = output_scores(module, [region], groups, batches=batches, limits=limits, macs=macs)
    return {item.group.layer: item for item in found}


def lost(item: Scored, count: int) -> float:
    return float(item.scores[list(item.order[:count])].sum())


class BestFirst(nn.Module):
    """The cells of a network, those with the highest sum first."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = self.inner(inputs).flatten(2).transpose(1, 2)
        order = rows.sum(-1).argsort(1, descending=True)
        return rows.gather(1, order[..., None].expand_as(rows))


def test_rows_that_change_places_are_no_loss() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1))
    module = BestFirst(inner).eval()
    with torch.no_grad():
        inner[2].weight.mul_(torch.tensor([1.0] * 8 + [0.02] * 8)[None, :, None, None])
        inner[2].weight[0] -= inner[2].weight.sum(0)  # all cells have nearly the same sum
        inner[2].weight[0, 8:] += 0.02
    (found,) = scores(module).values()
    assert set(found.order[:8]) == set(range(8, 16))
    assert lost(found, 8) < 0.02


def test_what_nothing_needs_costs_nothing_and_layers_are_compared() -> None:
    module = two_layers()
    with torch.no_grad():
        module[2].weight[:, 3:11] = 0.0
    found = scores(module)
    assert set(found["0"].order[:8]) == set(range(3, 11))
    assert lost(found["0"], 8) < 1e-3
    assert lost(found["2"], 8) > 100 * lost(found["0"], 8)


def test_a_channel_that_others_can_stand_for_goes_before_a_small_one() -> None:
    module = two_layers()
    with torch.no_grad():  # channels 0..3 twice, in large; every other one is on its own
        module[0].weight[:8] *= 4.0
        module[0].bias[:8] *= 4.0
        module[0].weight[4:8], module[0].bias[4:8] = module[0].weight[:4], module[0].bias[:4]
    item = scores(module)["0"]
    assert {index % 4 for index in item.order[:4]} == {0, 1, 2, 3}
    assert max(item.order[:4]) < 8
    assert lost(item, 4) < 0.01 * lost(item, 8)


def test_the_sum_is_the_change_of_the_outputs() -> None:
    module = two_layers()
    item = scores(module)["2"]
    inputs = torch.cat([torch.from_numpy(arrays) for arrays, _ in batches()])
    with torch.no_grad():
        before = module(inputs)
        spread = (before - before.mean(dim=0)).square().mean()
        worst = lost(item, 12)
        module[2].weight[list(item.order[:12])] = 0.0
        module[2].bias[list(item.order[:12])] = 0.0
        plain = float((module(inputs) - before).square().mean() / spread)
    assert 0 < worst < plain  # the layer behind has made up for a part
    assert lost(item, 4) < lost(item, 8) < worst


def test_the_network_is_left_as_it_was() -> None:
    module = two_layers()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    scores(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_it_is_the_default_where_there_are_pictures_and_beats_the_weights() -> None:
    module = two_layers()
    with torch.no_grad():  # large weights that nothing reads
        module[0].weight[:8] *= 10.0
        module[2].weight[:, :8] *= 0.001
    inputs = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    errors = []
    for given in (batches, None):
        result = prune(module, step=Prune(speedup=1.4, round_to=4), contract=CONTRACT, family=FAMILY, batches=given)
        assert result.speedup >= 1.4
        with torch.no_grad():
            errors.append(float((result.module(inputs) - module(inputs)).square().mean()))
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("steps", [1, 2])
def test_macs_are_met_on_a_network_with_residuals_and_depthwise_layers(steps: int) -> None:
    torch.manual_seed(0)
    gray = InputContract(size=(32, 32), color="gray", mean=(0.0,), std=(1.0,))
    ten = FamilySpec(kind="classification", labels=tuple("abcdefghij"))

    def pictures() -> Iterator[tuple[Any, Any]]:
        yield np.random.default_rng(0).normal(size=(8, 1, 32, 32)).astype(np.float32), np.zeros(8, dtype=np.int64)

    result = prune(
        digits_cnn().eval(), step=Prune(speedup=2.0, steps=steps), contract=gray, family=ten, batches=pictures
    )
    assert 2.0 <= result.speedup <= 2.2
