"""The heads for torchvision's one-stage detectors against torchvision's own forward, with the same random weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, ModelSpec
from edgecv.core.results import Detections
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ModelError
from edgecv.families import detection
from edgecv.families.heads.anchors import anchor_boxes

torch = pytest.importorskip("torch")
models = pytest.importorskip("torchvision.models")
sources = pytest.importorskip("edgecv.models.sources")

LABELS = ("a", "b", "c")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


LAST = ("cls_logits", "bbox_reg", "bbox_ctrness", "_head.module_list")


def picture(size: tuple[int, int]) -> Any:
    """Coloured noise with coarse and fine grain, `(3, H, W)` from 0 to 1."""
    generator = torch.Generator().manual_seed(3)
    grains = [torch.rand(1, 3, side, side, generator=generator) for side in (3, 11, 40)]
    spread = [torch.nn.functional.interpolate(grain, size=size, mode="bilinear") for grain in grains]
    return torch.cat(spread).mean(0)


def normalised(size: tuple[int, int]) -> Any:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((picture(size) - mean) / std)[None]


def awake(model: Any, size: tuple[int, int]) -> Any:
    """Random weights whose logits are of about 1 and whose offsets are of about 0.5, whatever the depth."""
    generator = torch.Generator().manual_seed(0)
    last, sizes = {}, {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            fan = layer.weight[0].numel()
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * (1.4 / fan**0.5)
            if any(part in name for part in LAST) and layer.bias is not None:
                layer.bias.data = torch.randn(layer.bias.shape, generator=generator) * 0.3
                last[name] = layer
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    graph = sources.raw_detector(model, options={}, source="")
    with torch.no_grad():  # the norms learn what goes through them
        graph.train()(torch.cat([normalised(size), normalised(size).flip(3)]))
    model.eval()
    for name, layer in last.items():
        sizes[name] = torch.tensor(0.0)  # the loudest of the levels that share the layer
        layer.register_forward_hook(
            lambda _, __, made, name=name: sizes.update({name: torch.maximum(sizes[name], made.std())})
        )
    with torch.no_grad():
        graph.eval()(normalised(size))
    for name, layer in last.items():
        assert sizes[name] > 0
        layer.weight.data *= (0.5 if "bbox" in name or "regression" in name else 1.0) / sizes[name]
        layer._forward_hooks.clear()
    return model


def both(
    name: str, size: tuple[int, int], head: str, *, threshold: float, **options: Any
) -> tuple[Detections, dict[str, np.ndarray]]:
    """What the head makes of our graph's outputs, and what torchvision finds in the same random picture."""
    contract = InputContract(size=size, mean=MEAN, std=STD)
    own: dict[str, Any] = (
        {"image_mean": MEAN, "image_std": STD}
        if name.startswith("ssd")
        else {"min_size": min(size), "max_size": max(size), "topk_candidates": 10**6}
    )
    model = models.get_model(
        name, weights=None, weights_backbone=None, num_classes=4, score_thresh=threshold, nms_thresh=0.5, **own
    )
    model.topk_candidates, model.detections_per_img = 10**6, 10**6
    awake(model, size)
    spec = ModelSpec(f"torchvision:{name}", contract)
    graph = sources.build_module(spec, num_classes=4, base=Path())
    graph.load_state_dict(model.state_dict())
    with torch.no_grad():
        (wanted,) = model([picture(size)])
        outputs = [item.numpy() for item in graph(normalised(size))]
    family = FamilySpec(
        "detection",
        LABELS,
        background=True,
        head=head,
        score_threshold=threshold,
        iou_threshold=0.5,
        max_detections=10**6,
        options=options,
    )
    shapes = [TensorSpec(f"o{place}", item.shape, "float32") for place, item in enumerate(outputs)]
    assert detection.problems(family, shapes) == []
    return detection.decode(outputs, family, contract), {key: value.numpy() for key, value in wanted.items()}


def check(found: Detections, wanted: dict[str, np.ndarray]) -> None:
    """Equally many; in order of score boxes within half a pixel, scores within 0.001, the same classes."""
    whole = (wanted["boxes"][:, 2] > wanted["boxes"][:, 0]) & (wanted["boxes"][:, 3] > wanted["boxes"][:, 1])
    # Ours leaves out what lies outside, and what RetinaNet and FCOS find of class 0, which no object ever had.
    wanted = {key: value[whole & (wanted["labels"] > 0)] for key, value in wanted.items()}
    assert len(wanted["scores"]) > 20, "a test that expects little shows little"
    assert len(found) == len(wanted["scores"])
    np.testing.assert_allclose(found.scores, wanted["scores"], atol=1e-3)
    np.testing.assert_allclose(found.boxes, wanted["boxes"], atol=0.5)
    np.testing.assert_array_equal(found.class_ids, wanted["labels"] - 1)
    assert len(set(found.class_ids.tolist())) > 1


def test_ssdlite_is_torchvision_s() -> None:
    options = {"multi_label": True, "clip_boxes": True}
    check(*both("ssdlite320_mobilenet_v3_large", (320, 320), "ssd", threshold=0.6, **options))


@pytest.mark.build
def test_ssd300_is_torchvision_s() -> None:
    options = {
        "feature_maps": [[38, 38], [19, 19], [10, 10], [5, 5], [3, 3], [1, 1]],
        "scales": [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        "aspect_ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        "steps": [8, 16, 32, 64, 100, 300],
        "multi_label": True,
        "clip_boxes": True,
    }
    check(*both("ssd300_vgg16", (300, 300), "ssd", threshold=0.6, **options))


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"])
def test_retinanet_is_torchvision_s(name: str) -> None:
    """160 x 96 is no multiple of 64 and 128: the coarse maps' cells are less than a stride apart."""
    sizes = {"sizes": [[side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))] for side in (32, 64, 128, 256, 512)]}
    if name.endswith("v2"):
        sizes = {}  # the defaults are torchvision's
    check(*both(name, (96, 160), "retinanet", threshold=0.6, **sizes))


def test_fcos_is_torchvision_s() -> None:
    check(*both("fcos_resnet50_fpn", (96, 160), "fcos", threshold=0.6))


def test_anchors_are_torchvision_s() -> None:
    tools = pytest.importorskip("torchvision.models.detection.anchor_utils")
    image_list = pytest.importorskip("torchvision.models.detection.image_list")
    sizes, ratios = ((20, 31), (64.5, 80)), (0.5, 1.0, 3.0)
    maker = tools.AnchorGenerator(sizes, (ratios,) * 2)
    pictures = image_list.ImageList(torch.zeros(1, 3, 100, 72), [(100, 72)])
    (corners,) = maker(pictures, [torch.zeros(1, 1, 13, 9), torch.zeros(1, 1, 4, 3)])
    ours = anchor_boxes((100, 72), (8, 32), sizes, ratios)
    given = np.concatenate([ours[:, :2] - ours[:, 2:] / 2, ours[:, :2] + ours[:, 2:] / 2], axis=1)
    np.testing.assert_allclose(given, corners.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("head", "options", "shapes", "words"),
    [
        ("retinanet", {"strides": [8, 16]}, [(1, 9, 4), (1, 9, 4)], "2 strides and 5 lists of sizes"),
        ("retinanet", {}, [(1, 9, 4), (1, 9, 7)], "needs offsets (1, P, 4) and logits (1, P, 4)"),
        ("retinanet", {"sizes": [[0]]}, [(1, 9, 4), (1, 9, 4)], "allowed is a list for each map"),
        ("fcos", {}, [(1, 9, 4), (1, 9, 4)], "centre-ness (1, P, 1)"),
        ("fcos", {"strides": []}, [(1, 9, 4), (1, 9, 4), (1, 9, 1)], "allowed is a list of whole numbers"),
        ("ssd", {"steps": [8]}, [(1, 9, 4), (1, 9, 4)], "6 feature_maps and 1 steps"),
    ],
)
def test_what_does_not_fit_is_said(head: str, options: dict[str, Any], shapes: Any, words: str) -> None:
    spec = FamilySpec("detection", LABELS, background=True, head=head, options=options)
    (problem,) = detection.problems(spec, [TensorSpec(f"o{i}", shape, "float32") for i, shape in enumerate(shapes)])
    assert words in problem


@pytest.mark.parametrize(("head", "width"), [("retinanet", 2), ("fcos", 3)])
def test_a_wrong_number_of_boxes_is_said(head: str, width: int) -> None:
    spec = FamilySpec("detection", LABELS, background=True, head=head)
    outputs = [np.zeros((1, 9, columns), dtype=np.float32) for columns in (4, 4, 1)[:width]]
    with pytest.raises(ModelError, match="gave 9 boxes; for this input size there are"):
        detection.decode(outputs, spec, InputContract(size=(64, 64)))


def test_outputs_come_in_any_order() -> None:
    spec = FamilySpec("detection", ("a", "b"), head="fcos", score_threshold=0.01, options={"strides": [8]})
    contract, random = InputContract(size=(16, 16)), np.random.default_rng(0)
    boxes, logits, centres = (random.random((1, 4, width)).astype(np.float32) for width in (4, 2, 1))
    one = detection.decode([boxes, logits, centres], spec, contract)
    other = detection.decode([centres, logits, boxes], spec, contract)
    assert len(one) > 2
    np.testing.assert_array_equal(one.boxes, other.boxes)


def test_norm_eps_is_set_and_checked() -> None:
    contract = InputContract(size=(64, 64))
    source = "torchvision:retinanet_resnet50_fpn"
    graph = sources.build_module(ModelSpec(source, contract, options={"norm_eps": 0.0}), num_classes=4, base=Path())
    assert {layer.eps for layer in graph.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.0}
    with pytest.raises(ModelError, match="norm_eps is -1"):
        sources.build_module(ModelSpec(source, contract, options={"norm_eps": -1}), num_classes=4, base=Path())
    plain = ModelSpec("torchvision:resnet18", contract, options={"norm_eps": 0.0})
    with pytest.raises(ModelError, match="are for detectors; torchvision:resnet18 is none"):
        sources.build_module(plain, num_classes=4, base=Path())


def test_the_heads_need_no_torch() -> None:
    assert "torch" not in vars(sys.modules["edgecv.families.heads.retinanet"])
