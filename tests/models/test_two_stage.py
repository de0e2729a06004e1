"""Two-stage networks in fixed shapes find what torchvision's own forward finds with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, ModelSpec
from edgecv.errors import ModelError
from edgecv.families import detection, pose
from edgecv.models.load import build_model
from edgecv.models.reference_two_stage import Kind
from edgecv.models.sources import build_module
from edgecv.models.two_stage import FixedShapes, TwoStage

from .two_stage_nets import CLASSES, KEYPOINTS, SIDE, fixed, network, picture

MANY = {"candidates": 400, "proposals": 200, "rounds": 24}
CONTRACT = InputContract(size=(SIDE, SIDE))


def found_by_torchvision(net: FasterRCNN, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the whole of torchvision's network says; the picture is normalised already and not resized."""
    net.transform = GeneralizedRCNNTransform(SIDE, SIDE, [0.0] * 3, [1.0] * 3, size_divisible=1)
    with torch.no_grad():
        result: dict[str, torch.Tensor] = net([image[0]])[0]
    return result


def pair(kind: Kind, **options: Any) -> tuple[FasterRCNN, TwoStage]:
    """torchvision's network and ours, with the same numbers of everything."""
    limits = {
        "rpn_pre_nms_top_n_test": MANY["candidates"],
        "rpn_post_nms_top_n_test": MANY["proposals"],
        "box_score_thresh": 0.02,
        "box_detections_per_img": 12,
    }
    net = network(kind, **{**limits, **options})
    return net, TwoStage(net, size=(SIDE, SIDE), shapes=FixedShapes(**{**MANY, "detections": 12})).eval()


def shares_found(one: torch.Tensor, other: torch.Tensor, *, near: float = 0.05) -> float:
    """Share of the boxes ``one`` that ``other`` has too."""
    return float(((one[:, None] - other[None]).abs().amax(2).amin(1) < near).float().mean())


def test_proposals_are_torchvisions() -> None:
    net, ours = pair("faster")
    image = picture(0)
    with torch.no_grad():
        features = ours.backbone(image)
        wanted = net.rpn(ImageList(image, [(SIDE, SIDE)]), features)[0][0]
        made, found = ours.propose(list(features.values()))
    kept = made[found.reshape(-1) > 0]
    assert len(wanted) > 50
    assert shares_found(wanted, kept) > 0.98
    assert shares_found(kept, wanted) > 0.98


def test_a_detector_finds_torchvisions_boxes() -> None:
    net, ours = pair("faster")
    spec = FamilySpec(
        "detection", ("a", "b", "c"), head="rcnn", score_threshold=0.02, iou_threshold=0.5, max_detections=12
    )
    shown = 0
    for seed in range(4):
        wanted = found_by_torchvision(net, picture(seed))
        with torch.no_grad():
            outputs = [output.numpy() for output in ours(picture(seed))]
        assert detection.problems(spec, detection_specs(outputs)) == []
        result = detection.decode(outputs, spec, CONTRACT)
        shown += len(result)
        assert shares_found(wanted["boxes"], torch.from_numpy(result.boxes)) > 0.9
        assert abs(float(wanted["scores"].max()) - float(result.scores.max())) < 1e-4
    assert shown > 20


def test_masks_are_torchvisions() -> None:
    net, ours = pair("mask")
    wanted = found_by_torchvision(net, picture(1))
    whole = net.roi_heads.has_mask()
    with torch.no_grad():
        boxes, scores, classes, masks = ours(picture(1))
    assert whole
    assert (boxes.shape, scores.shape, classes.shape, masks.shape) == ((1, 12, 4), (1, 12), (1, 12), (1, 12, 28, 28))
    assert shares_found(wanted["boxes"], boxes[0]) > 0.9
    image_list = ImageList(picture(1), [(SIDE, SIDE)])
    with torch.no_grad():
        features = ours.backbone(image_list.tensors)
        heads = net.roi_heads
        pooled = heads.mask_roi_pool(features, [boxes[0]], [(SIDE, SIDE)])
        planes = heads.mask_predictor(heads.mask_head(pooled)).sigmoid()
    same = planes[torch.arange(12), classes[0].long() + 1]
    torch.testing.assert_close(masks[0], same, atol=1e-4, rtol=0)
    assert scores[0].diff().max() <= 0


def test_keypoints_are_torchvisions() -> None:
    net, ours = pair("keypoint")
    wanted = found_by_torchvision(net, picture(2))
    with torch.no_grad():
        outputs = [output.numpy() for output in ours(picture(2))]
    assert [output.shape for output in outputs] == [(1, 12, 4), (1, 12), (1, 12 * KEYPOINTS, 56, 56)]
    spec = FamilySpec("pose", ("person",), head="rois", background=True, score_threshold=0.02, iou_threshold=0.5)
    assert pose.problems(spec, detection_specs(outputs)) == []
    found = pose.decode(outputs, spec, CONTRACT)
    near = 0
    assert found.boxes is not None
    for row, box in enumerate(torch.from_numpy(found.boxes)):
        distance = (wanted["boxes"] - box).abs().amax(1)
        if distance.min() < 0.01:
            points = wanted["keypoints"][distance.argmin()][:, :2]
            near += int(((points - torch.from_numpy(found.keypoints[row, :, :2])).abs().amax(1) < 0.05).sum())
    assert near >= 0.9 * KEYPOINTS * len(found)


def detection_specs(outputs: list[Any]) -> tuple[Any, ...]:
    from edgecv.core.tensor import TensorSpec

    return tuple(TensorSpec(f"output{place}", item.shape, "float32") for place, item in enumerate(outputs))


def test_rows_without_a_box_have_score_nothing() -> None:
    ours = TwoStage(
        network("faster", rpn_score_thresh=0.999999),
        size=(SIDE, SIDE),
        shapes=FixedShapes(candidates=32, proposals=16),
    )
    with torch.no_grad():
        boxes, scores = ours(picture(0))
    assert boxes.shape == (1, 16, 12)
    assert not scores.any()
    assert bool(torch.isfinite(boxes).all())


def test_small_pictures_have_few_anchors() -> None:
    made = fixed(candidates=10_000, proposals=20_000)
    assert made.candidates == tuple(3 * high * wide for high, wide in made.cells)
    with torch.no_grad():
        assert made(picture(0))[1].shape == (1, sum(made.candidates), 3)


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_pruning_leaves_what_makes_the_outputs(kind: Kind) -> None:
    made = fixed(kind)
    names = set(detection.protected(made))
    assert {"rpn.head.cls_logits", "rpn.head.bbox_pred"} <= names
    assert {"roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"} <= names
    if kind == "mask":
        assert "roi_heads.mask_predictor.mask_fcn_logits" in names


def test_a_recipe_names_it_like_torchvision() -> None:
    contract = InputContract(size=(64, 64))
    spec = ModelSpec(
        "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn",
        input=contract,
        options={"candidates": 20, "proposals": 8, "norm_eps": 0.0, "box_nms_thresh": 0.4},
    )
    family = FamilySpec("detection", ("a", "b"), head="rcnn", background=True)
    made = build_model(spec, family=family, base=Path(), seed=0)
    assert isinstance(made, TwoStage)
    assert made.roi_heads.nms_thresh == 0.4
    assert {part.eps for part in made.modules() if isinstance(part, torch.nn.BatchNorm2d)} == {0.0}
    with torch.no_grad():
        assert [output.shape for output in made(torch.zeros(1, 3, 64, 64))] == [(1, 8, 8), (1, 8, 2)]
    from torchvision.models import get_model

    plain = get_model("fasterrcnn_mobilenet_v3_large_320_fpn", weights=None, weights_backbone=None, num_classes=3)
    assert made.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [("candidates", 0), ("proposals", 2.5), ("detections", True), ("rounds", -1), ("rounds", "4"), ("norm_eps", -1)],
)
def test_options_are_checked(name: str, value: Any) -> None:
    spec = ModelSpec("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", input=CONTRACT, options={name: value})
    with pytest.raises(ModelError, match=rf"options\.{name} is {value!r}; allowed"):
        build_module(spec, num_classes=3, base=Path())


def test_options_of_two_stages_are_refused_elsewhere() -> None:
    spec = ModelSpec("torchvision:shufflenet_v2_x0_5", input=CONTRACT, options={"proposals": 8})
    with pytest.raises(ModelError, match=r"options proposals are for two-stage networks"):
        build_module(spec, num_classes=3, base=Path())


def test_too_many_detections_are_refused() -> None:
    with pytest.raises(ModelError, match=r"detections is 50, and 4 proposals of 3 classes make only 12 boxes"):
        fixed("mask", proposals=4, detections=50)


def test_a_picture_that_is_too_small_is_refused() -> None:
    spec = ModelSpec("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", input=InputContract(size=(0, 8)))
    with pytest.raises(ModelError):
        build_module(spec, num_classes=3, base=Path())
