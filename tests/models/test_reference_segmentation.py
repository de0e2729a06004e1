"""The small U-Net: shapes, names, export, and the shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec, ModelSpec
from edgecv.data.readers import open_reader
from edgecv.families import segmentation
from edgecv.models.load import load_model
from edgecv.models.reference_segmentation import unet
from edgecv.recipe.load import load_recipe
from edgecv.vision.image import preprocess


@pytest.mark.parametrize(("levels", "size"), [(1, (6, 10)), (2, (12, 20)), (3, (40, 24))])
def test_the_map_has_half_the_size(levels: int, size: tuple[int, int]) -> None:
    module = unet(num_classes=4, width=4, levels=levels, channels=1).eval()
    assert module(torch.zeros(2, 1, *size)).shape == (2, 4, size[0] // 2, size[1] // 2)


def test_its_size() -> None:
    assert sum(item.numel() for item in unet(num_classes=5).parameters()) == 98_181


def test_what_is_beside_counts() -> None:
    """The skip connections reach the output: a change of one pixel is seen where it is."""
    torch.manual_seed(0)
    module = unet(num_classes=2, width=4).eval()
    one = torch.zeros(1, 3, 32, 32)
    other = one.clone()
    other[0, :, 16, 16] = 5.0
    with torch.no_grad():
        change = (module(one) - module(other)).abs().sum(dim=1)[0]
    assert change[8, 8] > 0
    assert change[8, 8] > change[0, 0]


def test_it_exports() -> None:
    torch.export.export(unet(num_classes=3, width=4).eval(), (torch.zeros(1, 3, 16, 16),))


@pytest.mark.build
def test_the_shipped_weights_know_the_scenes(root: Path) -> None:
    loaded = load_recipe(root / "recipes/segmentation/scenes-unet.yaml")
    recipe = loaded.recipe
    module = load_model(recipe.model, family=recipe.family, base=loaded.base, cache=Path(), seed=0)
    labels = recipe.family.labels
    reader = open_reader(DataSpec("scenes-masks", split="test", limit=250), base=root, labels=labels)
    metric = segmentation.metric(recipe.family, "miou")
    for index in range(len(reader)):
        sample = reader[index]
        with torch.no_grad():
            scores = module(torch.from_numpy(preprocess(sample.image, recipe.model.input)[None])).numpy()
        size = (sample.image.shape[0], sample.image.shape[1])
        metric.update(segmentation.decode([scores], recipe.family, recipe.model.input, picture=size), sample.truth)
    assert metric.compute().value >= 0.8


@pytest.mark.build
@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_networks_of_torchvision_give_one_map(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their dictionary is unwrapped, and no weights of a backbone are fetched."""

    def fetch(*args: object, **more: object) -> None:
        pytest.fail("weights were fetched")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    family = FamilySpec("segmentation", tuple(f"class {index}" for index in range(11)))
    spec = ModelSpec(f"torchvision:{name}", InputContract(size=(64, 96)))
    module = load_model(spec, family=family, base=Path(), cache=Path(), seed=0)
    outputs = module(torch.zeros(1, 3, 64, 96))
    assert outputs.shape == (1, 11, 64, 96)
    truths = torch.zeros(1, 64, 96, dtype=torch.uint8)
    assert segmentation.loss(outputs, truths, family, label_smoothing=0.0).item() > 0
