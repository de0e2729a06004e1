"""The small pose network: shapes, export, and the shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.families import pose
from edgecv.models.load import load_model
from edgecv.models.reference_pose import simple_pose
from edgecv.recipe.load import load_recipe
from edgecv.vision.image import preprocess


@pytest.mark.parametrize(("widths", "size"), [((8, 12), (8, 12)), ((8, 12, 16), (16, 24)), ((4, 8, 8, 8), (32, 16))])
def test_the_maps_have_a_quarter_of_the_size(widths: tuple[int, ...], size: tuple[int, int]) -> None:
    module = simple_pose(keypoints=5, widths=widths, neck=8, channels=1).eval()
    assert module(torch.zeros(2, 1, *size)).shape == (2, 5, size[0] // 4, size[1] // 4)


def test_its_size_and_its_head() -> None:
    module = simple_pose()
    assert sum(item.numel() for item in module.parameters()) == 145_481
    assert pose.protected(module) == ["head"]


def test_coarse_and_fine_maps_both_count() -> None:
    torch.manual_seed(0)
    module = simple_pose(keypoints=2, widths=(8, 8, 8, 8), neck=8).eval()
    with torch.no_grad():
        before = module(torch.ones(1, 3, 32, 32))
        for level in range(3):
            module.across[level].conv.weight.mul_(2)
            after = module(torch.ones(1, 3, 32, 32))
            assert not torch.equal(before, after)
            before = after


def test_it_exports() -> None:
    module = simple_pose(keypoints=3, widths=(4, 8, 8), neck=8).eval()
    torch.export.export(module, (torch.zeros(1, 3, 32, 32),))


@pytest.mark.build
def test_the_shipped_weights_find_the_joints(root: Path) -> None:
    loaded = load_recipe(root / "recipes/pose/scenes-pose.yaml")
    recipe = loaded.recipe
    module = load_model(recipe.model, family=recipe.family, base=loaded.base, cache=Path(), seed=0)
    spec = DataSpec("scenes-keypoints", split="test", limit=40, crop=0.75)
    reader = open_reader(spec, base=root, labels=recipe.family.labels)
    metric = pose.metric(recipe.family, "oks_ap")
    for index in range(len(reader)):
        sample = reader[index]
        with torch.no_grad():
            maps = module(torch.from_numpy(preprocess(sample.image, recipe.model.input)[None])).numpy()
        size = (sample.image.shape[0], sample.image.shape[1])
        metric.update(pose.decode([maps], recipe.family, recipe.model.input, picture=size), sample.truth)
    assert metric.compute().value > 0.8
