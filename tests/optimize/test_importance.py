"""Importance of channels against the formulas, on networks small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgecv.core.protocols import Batches
from edgecv.core.recipe import FamilySpec
from edgecv.optimize import prune_graph
from edgecv.optimize.finetune import TrainSet, family_objective
from edgecv.optimize.importance import Group, plain_scores, taylor_scores
from edgecv.optimize.prune import taylor_batches
from edgecv.optimize.prune_graph import Region

from .tiny_reader import CONTRACT, FAMILY, TinyReader


def network(*, norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(6)] if norm else []
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), *middle, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()


def groups_of(module: nn.Module) -> list[Group]:
    region = Region("", torch.zeros(1, 1, 8, 8))
    head = f"{len(module) - 1}"  # type: ignore[arg-type]
    return list(prune_graph.groups_of(module, region, protected=frozenset({head})))


def batches() -> Batches:
    return taylor_batches(TrainSet(TinyReader(48), CONTRACT, FAMILY), samples=48, seed=0, batch_size=16)


def test_magnitude_is_the_norm_of_all_weights_that_go() -> None:
    module = network()
    own = module[0].weight.flatten(1).square().sum(1) + module[-1].weight.square().sum(0)
    scores = plain_scores(groups_of(module), kind="magnitude", seed=0)[0].scores
    assert torch.allclose(scores.float(), own / own.mean(), rtol=1e-5)


def test_taylor_squares_each_sample_before_the_mean() -> None:
    """However the samples come in batches, and however much the layers differ."""
    module = network()
    expected = torch.zeros(6)
    for arrays, truths in taylor_batches(
        TrainSet(TinyReader(48), CONTRACT, FAMILY), samples=48, seed=0, batch_size=1
    )():
        module.zero_grad()
        family_objective(FAMILY).loss(module(torch.from_numpy(arrays)), torch.from_numpy(truths)).backward()
        conv, head = module[0].weight, module[-1].weight
        first = (conv * conv.grad).flatten(1).sum(1).abs()
        second = (head * head.grad).sum(0).abs()
        expected += ((first + second) / 2).square().detach()
    scores = taylor_scores(module, groups_of(module), batches=batches(), family=FAMILY)[0].scores
    assert torch.allclose(scores.float(), expected / 48, rtol=1e-4)


def test_taylor_keeps_batches_whole_where_the_loss_compares_samples() -> None:
    """An identity seen alone says nothing: its gradient would be 0."""
    module = network()
    family = FamilySpec(kind="embedding", labels=("person",))
    scores = taylor_scores(module, groups_of(module), batches=batches(), family=family)[0].scores
    assert float(scores.sum()) > 0


def test_a_layer_without_gradients_scores_zero() -> None:
    module = network()
    with torch.no_grad():
        module[-1].weight.zero_()
    scores = taylor_scores(module, groups_of(module), batches=batches(), family=FAMILY)[0].scores
    assert scores.tolist() == [0.0] * 6


def test_bn_scale_reads_batch_norm_and_skips_layers_without() -> None:
    module = network(norm=True)
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([3.0, -1.0, 2.0, 0.5, 4.0, 1.5]))
    assert plain_scores(groups_of(module), kind="bn-scale", seed=0)[0].order == (3, 1, 5, 2, 0, 4)
    assert plain_scores(groups_of(network()), kind="bn-scale", seed=0) == []


def test_fpgm_is_the_distance_to_all_other_filters_of_the_layer() -> None:
    module = network()
    places = torch.tensor([-9.0, -2.0, 0.0, 2.0, 9.0, 20.0])
    with torch.no_grad():
        module[0].weight.copy_(places.reshape(6, 1, 1, 1).expand(6, 1, 3, 3))
    scores = plain_scores(groups_of(module), kind="fpgm", seed=0)[0].scores
    distances = (places[:, None] - places[None]).abs().sum(1)
    # -2 and 9 are not taken for 2 and -9; the filters in the middle can be done without.
    assert torch.allclose(scores.float(), distances / distances.mean(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["magnitude", "lamp", "fpgm", "random"])
def test_every_measure_ranks_every_channel_and_keeps_the_random_state(kind: Any) -> None:
    module = network()
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    first, again = (plain_scores(groups_of(module), kind=kind, seed=3)[0].scores for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert first.shape == (6,)
    assert bool((first >= 0).all())
