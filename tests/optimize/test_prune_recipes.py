"""Structured pruning of every ready recipe's network, as it stands in the recipe: full input, all classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgecv.core.recipe import Prune
from edgecv.models.load import build_model
from edgecv.optimize.capture import capture
from edgecv.optimize.prune import count_macs, example_input, prune, replay
from edgecv.recipe.load import load_recipe

RECIPES = Path(__file__).resolve().parent.parent.parent / "recipes" / "classification"
SMALL = ("digits", "cifar10-resnet20")
"""Their networks are pruned in test_prune.py and by the recipe itself."""
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem not in SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_network_becomes_faster_and_stays_whole(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml", sets=["model.weights=null"], check_files=False).recipe
    module = build_model(recipe.model, family=recipe.family, base=RECIPES, seed=0)
    example = example_input(recipe.model.input)
    result = prune(module, step=Prune(speedup=1.5), contract=recipe.model.input, family=recipe.family)
    assert 1.5 <= result.speedup <= 1.65
    assert result.macs_after == count_macs(result.module, example)
    assert result.params_after < result.params_before
    exported = capture(result.module, example)
    with torch.no_grad():
        expected = result.module(example)
        assert expected.shape == (1, 1000)
        assert torch.allclose(exported(example), expected, atol=1e-4)
        again = replay(build_model(recipe.model, family=recipe.family, base=RECIPES, seed=0), example, result.history)
        again.load_state_dict(result.module.state_dict())
        assert torch.equal(again(example), expected)
