"""The ready recipes of two-stage networks: outputs fit their heads, labels stand where the weights count them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecv.models.load import build_model, check_outputs, output_specs
from edgecv.models.two_stage import TwoStage
from edgecv.recipe.load import load_recipe

NETS = {
    "detection/faster-rcnn-mobilenet-v3": [(1, 150, 360), (1, 150, 90)],
    "detection/faster-rcnn-resnet50": [(1, 100, 360), (1, 100, 90)],
    "instance/mask-rcnn-resnet50": [(1, 20, 4), (1, 20), (1, 20), (1, 20, 28, 28)],
    "pose/keypoint-rcnn-resnet50": [(1, 10, 4), (1, 10), (1, 170, 56, 56)],
}
SMALL = "detection/faster-rcnn-mobilenet-v3"


def built(name: str, root: Path) -> list[tuple[int, ...]]:
    """Shapes of the outputs of a recipe's network with random weights, which its family takes."""
    path = root / f"recipes/{name}.yaml"
    recipe = load_recipe(path, check_files=False).recipe
    module = build_model(recipe.model, family=recipe.family, base=path.parent, seed=0)
    assert isinstance(module, TwoStage)
    eps = recipe.model.options.get("norm_eps")
    if eps is not None:
        assert {part.eps for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)} == {eps}
    with torch.no_grad():
        specs = output_specs(module(torch.zeros(1, 3, *recipe.model.input.size)))
    check_outputs(specs, family=recipe.family, source=recipe.model.source)
    return [spec.shape for spec in specs]


def test_the_small_network_fits_its_head(root: Path) -> None:
    assert built(SMALL, root) == NETS[SMALL]


@pytest.mark.build
@pytest.mark.parametrize("name", [name for name in NETS if name != SMALL])
def test_the_network_fits_its_head(name: str, root: Path) -> None:
    assert built(name, root) == NETS[name]


@pytest.mark.parametrize("name", [name for name in NETS if not name.startswith("pose")])
def test_labels_are_numbered_as_in_coco(name: str, root: Path, shared_data: Path) -> None:
    labels = load_recipe(root / f"recipes/{name}.yaml", check_files=False).recipe.family.labels
    tables: dict[str, Any] = json.loads((shared_data / "coco-mini/instances.json").read_text())
    assert [labels[item["id"] - 1] for item in tables["categories"]] == [item["name"] for item in tables["categories"]]
