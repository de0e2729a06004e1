"""The ready recipes of torchvision's and transformers' detectors build networks whose outputs fit their heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecv.models.load import build_model, check_outputs, load_model, output_specs
from edgecv.recipe.load import load_recipe

pytest.importorskip("torch")
NETS = {
    "ssdlite320-mobilenet-v3": [(1, 3234, 4), (1, 3234, 91)],
    "retinanet-resnet50": [(1, 61380, 4), (1, 61380, 91)],
    "fcos-resnet50": [(1, 6820, 4), (1, 6820, 91), (1, 6820, 1)],
    "rt-detr-r18": [(1, 300, 80), (1, 300, 4)],
    "detr-resnet50": [(1, 100, 92), (1, 100, 4)],
}


@pytest.mark.build
@pytest.mark.parametrize("name", NETS)
def test_the_network_fits_its_head(name: str, root: Path) -> None:
    import torch

    path = root / f"recipes/detection/{name}.yaml"
    recipe = load_recipe(path, check_files=False).recipe
    module = build_model(recipe.model, family=recipe.family, base=path.parent, seed=0)
    with torch.no_grad():
        specs = output_specs(module(torch.zeros(1, 3, *recipe.model.input.size)))
    assert [spec.shape for spec in specs] == NETS[name]
    check_outputs(specs, family=recipe.family, source=recipe.model.source)


@pytest.mark.build
def test_fcos_takes_the_published_file(root: Path, tmp_path: Path) -> None:
    """It was made with frozen batch norms, which count no batches; every other name is there and none is left over."""
    import torch
    from torchvision.models.detection import fcos_resnet50_fpn

    torch.manual_seed(1)
    published = fcos_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    published = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    parts = {"backbone.body.layer4.2.bn3.running_var", "backbone.fpn.extra_blocks.p6.weight"}
    parts |= {"head.classification_head.cls_logits.weight", "head.regression_head.bbox_ctrness.bias"}
    assert parts <= set(published)
    torch.save(published, tmp_path / "fcos.pth")
    path = root / "recipes/detection/fcos-resnet50.yaml"
    recipe = load_recipe(path, sets=[f"model.weights={tmp_path / 'fcos.pth'}"], check_files=False).recipe
    network = load_model(recipe.model, family=recipe.family, base=path.parent, cache=tmp_path, seed=0)
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in published.items())


@pytest.mark.parametrize("name", NETS)
def test_all_categories_of_coco_have_a_label(name: str, root: Path, shared_data: Path) -> None:
    recipe = load_recipe(root / f"recipes/detection/{name}.yaml", check_files=False).recipe
    tables: dict[str, Any] = json.loads((shared_data / "coco-mini/instances.json").read_text())
    known = {item["name"]: item["id"] for item in tables["categories"]}
    assert set(known) <= set(recipe.family.labels)
    numbered = {"ssdlite320-mobilenet-v3": 1, "retinanet-resnet50": 1, "fcos-resnet50": 1, "detr-resnet50": 0}
    if name in numbered:
        assert [recipe.family.labels[known[label] - numbered[name]] for label in known] == list(known)
