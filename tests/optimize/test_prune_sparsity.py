"""2:4 and unstructured zeros: which weights go, that training keeps them, and which targets gain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgecv.core.recipe import FamilySpec, Prune
from edgecv.core.target import Target
from edgecv.errors import ModelError
from edgecv.models.reference import digits_cnn
from edgecv.optimize.sparse_gain import no_gain
from edgecv.optimize.sparsity import kept_sparse, pattern_mask, sparsify
from edgecv.recipe.load import load_typed

FAMILY = FamilySpec(kind="classification", labels=tuple("abcdefghij"))


def digits() -> nn.Module:
    torch.manual_seed(0)
    return digits_cnn(width=16).eval()


def test_the_two_largest_of_every_four_stay() -> None:
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.0, 0.0, 5.0, -6.0]]).reshape(1, 8, 1, 1)
    mask = pattern_mask(weight.expand(2, 8, 3, 3))
    assert mask.shape == (2, 8, 3, 3)
    assert mask[1, :, 2, 1].tolist() == [False, True, True, False, False, False, True, True]
    equal = pattern_mask(torch.ones(3, 16))
    assert equal.reshape(3, 4, 4).sum(dim=-1).eq(2).all()


def test_a_network_gets_its_zeros_and_keeps_head_and_thin_layers() -> None:
    module = digits()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = sparsify(module, step=Prune(pattern="2:4"), family=FAMILY)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    assert result.zeros == 0.5
    assert {"stem.conv", "separable.depthwise.conv", "head"} == set(result.left_out)
    for name in result.layers:
        weight: Any = result.module.get_submodule(name).weight
        fours = (weight != 0).movedim(1, -1).reshape(-1, 4).sum(dim=-1)
        assert fours.max() <= 2, name
    kept = sparsify(module, step=Prune(pattern="2:4", protect=("residual*",)), family=FAMILY)
    assert "residual.second" in kept.left_out


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_the_smallest_weights_go(scope: Any) -> None:
    result = sparsify(digits(), step=Prune(pattern="unstructured", ratio=0.7, scope=scope), family=FAMILY)
    assert result.zeros == pytest.approx(0.7, abs=0.002)
    shares = []
    for name in result.layers:
        weight: Any = result.module.get_submodule(name).weight
        shares.append((weight == 0).float().mean().item())
    assert (max(shares) - min(shares) > 0.05) == (scope == "global")


def test_training_keeps_the_zeros() -> None:
    result = sparsify(digits(), step=Prune(pattern="2:4"), family=FAMILY)
    module = result.module.train()
    zeros = {name: module.get_submodule(name).weight == 0 for name in result.layers}  # type: ignore[union-attr]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    first = module.get_submodule("mix.conv").weight.detach().clone()  # type: ignore[operator, union-attr]
    with kept_sparse(module, result.layers):
        for _ in range(3):
            optimizer.zero_grad()
            module(torch.randn(8, 1, 32, 32)).square().mean().backward()
            optimizer.step()
    for name, zero in zeros.items():
        weight: Any = module.get_submodule(name).weight
        assert torch.equal(weight == 0, zero), name
    assert not torch.equal(first, module.get_submodule("mix.conv").weight)  # type: ignore[arg-type]
    assert not any(layer._forward_pre_hooks for layer in module.modules())


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Prune(pattern="2:4", ratio=0.5), "2:4 without ratio"),
        (Prune(pattern="unstructured"), "unstructured with ratio"),
        (Prune(speedup=2.0), "pattern is None"),
        (Prune(pattern="2:4", protect=("nothing*",)), "fits no layer"),
        (Prune(pattern="2:4", protect=("[a-z]*",)), "can be made 2:4 sparse"),
    ],
)
def test_what_cannot_be_done_is_explained(step: Prune, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        sparsify(digits(), step=step, family=FAMILY)


TARGETS = Path(__file__).resolve().parents[2] / "targets"


@pytest.mark.parametrize(
    ("name", "gains"),
    [
        ("jetson-agx-orin", True),
        ("jetson-orin-nano", True),
        ("jetson-thor", True),
        ("jetson-nano", False),
        ("jetson-xavier-nx", False),
        ("host-onnxruntime", False),
        ("raspberry-pi-5", False),
        ("iphone-15", False),
    ],
)
def test_only_recent_gpus_gain(name: str, gains: bool) -> None:
    target = load_typed(TARGETS / f"{name}.yaml", Target)
    assert (no_gain(target, pattern="2:4") == "") == gains
    assert name in no_gain(target, pattern="unstructured")
