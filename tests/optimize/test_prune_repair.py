"""Solving the layers behind a cut by least squares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, Prune
from edgecv.errors import ModelError
from edgecv.optimize.prune import prune
from edgecv.optimize.prune_repair import repair_readers

FAMILY = FamilySpec(kind="classification", labels=tuple("abcd"))
CONTRACT = InputContract(size=(8, 8))


def batches() -> Iterator[tuple[Any, Any]]:
    random = np.random.default_rng(0)
    for _ in range(3):
        yield random.normal(size=(16, 3, 8, 8)).astype(np.float32), np.zeros(16, dtype=np.int64)


def redundant() -> nn.Module:
    """Channels 4..7 are made of 0..3, so that nothing is lost with them once the readers make up for it."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    ).eval()
    with torch.no_grad():
        mixed = 0.3 * torch.randn(4, 4)
        module[0].weight[4:] = torch.einsum("oi,ijkl->ojkl", mixed, module[0].weight[:4])
        module[0].bias[4:] = mixed @ module[0].bias[:4]
    return module


def test_what_the_rest_can_tell_is_not_lost() -> None:
    module, inputs = redundant(), torch.randn(4, 3, 8, 8)
    step = Prune(ratio=0.5, scope="uniform", round_to=4, protect=("1", "4"))
    plain = prune(module, step=step, contract=CONTRACT, family=FAMILY)
    wanted = Prune(**{**vars(step), "repair": True})
    repaired = prune(module, step=wanted, contract=CONTRACT, family=FAMILY, batches=batches)
    assert repaired.layers["0"] == (8, 4)
    assert repaired.history == plain.history
    with torch.no_grad():
        truth = module(inputs)
        errors = [(item.module(inputs) - truth).square().mean().item() for item in (plain, repaired)]
    assert errors[1] < 0.01 * errors[0]


def test_it_needs_samples_and_leaves_whole_layers_alone() -> None:
    module = redundant()
    with pytest.raises(ModelError, match="repair needs training samples"):
        prune(module, step=Prune(ratio=0.5, repair=True), contract=CONTRACT, family=FAMILY)
    before = [value.clone() for value in module.state_dict().values()]
    assert repair_readers(module, module, batches=batches) == 0
    assert all(torch.equal(one, other) for one, other in zip(before, module.state_dict().values(), strict=True))


def sorted_batches() -> Iterator[tuple[Any, Any]]:
    """Sixteen batches of one class, which is dark, before those of the other classes."""
    for _ in range(16):
        yield np.zeros((4, 3, 8, 8), dtype=np.float32), np.zeros(4, dtype=np.int64)
    for arrays, truths in batches():
        for place in range(0, len(arrays), 4):
            yield arrays[place : place + 4], truths[place : place + 4] + 1


def test_a_set_that_is_sorted_by_class_is_looked_at_to_its_end() -> None:
    module, inputs = redundant(), torch.randn(4, 3, 8, 8)
    step = Prune(ratio=0.5, scope="uniform", round_to=4, protect=("1", "4"), repair=True, importance="magnitude")
    repaired = prune(module, step=step, contract=CONTRACT, family=FAMILY, batches=sorted_batches)
    known = prune(module, step=step, contract=CONTRACT, family=FAMILY, batches=batches)
    with torch.no_grad():
        truth = module(inputs)
        errors = [(item.module(inputs) - truth).square().mean().item() for item in (repaired, known)]
    assert errors[0] < 4 * errors[1]
