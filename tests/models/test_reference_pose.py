"""The small pose network: shapes, export, and the shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.families import pose
from edgecv.models.load import load_model
from edgecv.models.reference_pose import face_landmarks, simcc_pose, simple_pose
from edgecv.recipe.load import load_recipe
from edgecv.vision.image import preprocess


@pytest.mark.parametrize(("widths", "size"), [((8, 12), (8, 12)), ((8, 12, 16), (16, 24)), ((4, 8, 8, 8), (32, 16))])
def test_the_maps_have_a_quarter_of_the_size(widths: tuple[int, ...], size: tuple[int, int]) -> None:
    module = simple_pose(keypoints=5, widths=widths, neck=8, channels=1).eval()
    assert module(torch.zeros(2, 1, *size)).shape == (2, 5, size[0] // 4, size[1] // 4)


def test_its_size_and_its_head() -> None:
    module = simple_pose()
    assert sum(item.numel() for item in module.parameters()) == 71_733
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


def test_each_axis_has_a_bin_for_every_part_of_a_pixel() -> None:
    module = simcc_pose().eval()
    across, along = module(torch.zeros(2, 3, 128, 96))
    assert (across.shape, along.shape) == ((2, 17, 192), (2, 17, 256))
    assert sum(item.numel() for item in module.parameters()) == 133_201
    narrow = simcc_pose(keypoints=5, height=32, width=48, splitting=1.5, widths=(8, 8, 8, 8), channels=1)
    assert [item.shape for item in narrow(torch.zeros(1, 1, 32, 48))] == [(1, 5, 72), (1, 5, 48)]
    torch.export.export(narrow.eval(), (torch.zeros(1, 1, 32, 48),))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"height": 100}, "height and width are 100 and 96; multiples of 16"),
        ({"splitting": 0}, "splitting is 0"),
        ({"splitting": 1.3}, "whole numbers"),
    ],
)
def test_sizes_that_give_no_bins_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        simcc_pose(**options)  # type: ignore[arg-type]


def test_landmarks_start_in_the_middle_and_see_where_things_are() -> None:
    torch.manual_seed(0)
    module = face_landmarks(keypoints=5, height=64, width=48).eval()
    dot = torch.zeros(2, 3, 64, 48)
    dot[0, :, 8:16, 8:16] = dot[1, :, 40:48, 24:32] = 3.0
    with torch.no_grad():
        found = module(dot)
    assert found.shape == (2, 10)
    assert float((found - 0.5).abs().max()) < 0.2
    with torch.no_grad():
        moved = module.train()(dot)  # with norms of this batch, the features are alive
    assert not torch.allclose(moved[0], moved[1], atol=1e-2), "the place of the dot does not matter"
    assert pose.protected(module) == ["head"]
    assert sum(item.numel() for item in face_landmarks().parameters()) == 470_968


@pytest.mark.parametrize(
    ("options", "said"), [({"width": 100}, "multiples of 16"), ({"widths": (8,)}, "at least two are needed")]
)
def test_sizes_that_do_not_halve_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        face_landmarks(**options)  # type: ignore[arg-type]


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
