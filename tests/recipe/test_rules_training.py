"""Rules of steps that train: what learns from labels, what from the teacher alone, and in which order things freeze."""

from __future__ import annotations

from typing import Any

import pytest

from edgecv.core.plain import to_plain
from edgecv.core.recipe import Finetune
from edgecv.core.steps import Augment
from edgecv.recipe.rules import broken_rules
from edgecv.recipe.typed import validate

PICTURES = {"kind": "images", "path": "x"}
COCO = {"kind": "coco", "path": "x"}
CLASSES = {"kind": "imagefolder", "path": "x"}


def plain(kind: str, step: dict[str, Any], train: dict[str, Any]) -> dict[str, Any]:
    """The parts of a recipe that these rules read."""
    truths = COCO if kind == "detection" else CLASSES
    return {"family": {"kind": kind, "labels": ["a", "b"]}, "data": {"eval": truths, "train": train}, "steps": [step]}


FINETUNE = {"finetune": {"epochs": 1, "distill": 1.0}}


@pytest.mark.parametrize(
    "step",
    [
        FINETUNE,
        {"quantize": {"method": "qat"}},
        {"quantize": {"method": "qat", "distill": {"weight": 1.0, "features": ["backbone.*"]}}},
        {"finetune": {"epochs": 0}},
        {"prune": {"speedup": 1.3, "importance": "output"}},
        {"prune": {"speedup": 1.3, "importance": "magnitude", "repair": True}},
    ],
)
@pytest.mark.parametrize("train", [PICTURES, COCO])
def test_detectors_learn_from_the_teacher_on_any_pictures(step: dict[str, Any], train: dict[str, Any]) -> None:
    assert broken_rules(plain("detection", step, train)) == []


@pytest.mark.parametrize("step", [{"finetune": {"epochs": 1}}, {"quantize": {"method": "qat", "distill": 0}}])
def test_a_family_without_a_loss_needs_its_teacher(step: dict[str, Any]) -> None:
    ((where, message),) = broken_rules(plain("detection", step, COCO))
    assert where == ("steps", 0, *step)
    assert "learns from the original network alone" in message
    assert "distill: 1.0" in message


def test_importance_by_the_loss_needs_labels() -> None:
    """What a cut changes at the outputs is seen on any pictures; what it changes of the loss is not."""
    ((where, _),) = broken_rules(plain("detection", {"prune": {"speedup": 1.3, "importance": "taylor"}}, PICTURES))
    assert where == ("data", "train", "kind")


def test_detectors_whose_head_has_a_loss_learn_from_boxes() -> None:
    def found(head: str, step: dict[str, Any], train: dict[str, Any]) -> dict[Any, str]:
        recipe = plain("detection", step, train)
        recipe["family"]["head"] = head
        return dict(broken_rules(recipe))

    alone = {"finetune": {"epochs": 1}}
    assert found("yolo", alone, COCO) == {}
    assert found("yolo", FINETUNE, PICTURES) == {}
    assert "every step that trains has distill: 1.0" in found("yolo", alone, PICTURES)["data", "train", "kind"]
    assert "every step that trains has distill: 1.0" in str(found("detr", {"quantize": {"method": "qat"}}, PICTURES))
    message = found("yunet", alone, COCO)["steps", 0, "finetune"]
    assert "detection, head yunet, learns from the original network alone" in message


def test_two_stage_networks_learn_from_labels_in_finetune_alone() -> None:
    def found(step: dict[str, Any], train: dict[str, Any] = COCO) -> list[str]:
        recipe = plain("detection", step, train)
        recipe["family"]["head"] = "rcnn"
        return [message for _, message in broken_rules(recipe)]

    assert found({"finetune": {"epochs": 1}}) == []
    assert found({"finetune": {"epochs": 1, "distill": 1.0, "batch_size": 1}}, PICTURES) == []
    assert found({"quantize": {"method": "qat", "batch_size": 1}}) == []
    assert "every step that trains has distill: 1.0" in found({"finetune": {"epochs": 1}}, PICTURES)[0]
    mixed = found({"finetune": {"epochs": 1, "distill": 0.5, "batch_size": 1}})
    assert "learns from labels (distill: 0) or from the original network (distill: 1.0)" in mixed[0]
    assert "batch_size is 64, and the graph of head rcnn takes one picture" in found(FINETUNE)[0]
    assert "set batch_size: 1, or method: ptq" in found({"quantize": {"method": "qat"}})[0]
    assert "and distill is 0" in found({"quantize": {"method": "qat", "distill": 0, "batch_size": 1}})[0]


@pytest.mark.parametrize(("kind", "data"), [("instance", "coco-masks"), ("pose", "coco-keypoints")])
def test_masks_and_keypoints_of_two_stage_networks_too(kind: str, data: str) -> None:
    def found(step: dict[str, Any], head: str = "rois") -> list[str]:
        recipe = plain(kind, step, {"kind": data, "path": "train.json"})
        recipe["data"]["eval"] = {"kind": data, "path": "eval.json"}
        recipe["family"]["head"] = head
        return [message for _, message in broken_rules(recipe)]

    assert found({"finetune": {"epochs": 1}}) == []
    assert "learns from labels (distill: 0)" in found({"finetune": {"epochs": 1, "distill": 0.5, "batch_size": 1}})[0]
    assert "the graph of head rois takes one picture" in found({"quantize": {"method": "qat"}})[0]
    if kind == "pose":
        assert found({"finetune": {"epochs": 1}}, "yolo-pose") == []
        assert "head movenet, learns from the original" in found({"finetune": {"epochs": 1}}, "movenet")[0]


@pytest.mark.parametrize(
    ("kind", "augment", "wanted"),
    [
        ("detection", {"mosaic": 0.5, "scale": [0.5, 2.0], "flip": True, "color": 0.2}, None),
        ("segmentation", "strong", None),
        ("restoration", "crop", "augment changes pictures by shift, which restoration does not take; allowed: none"),
        ("video", "crop-flip", "by flip, which video does not take; allowed: shift, scale, color"),
        ("depth", "strong", "by scale, which depth does not take; allowed: shift, flip, color"),
        ("classification", {"mosaic": 1.0}, "by mosaic, which classification does not take"),
        ("detection", {"scale": [2.0, 0.5]}, "augment.scale is [2.0, 0.5]; two factors from 0.1 to 10"),
        ("detection", {"scale": [0.0, 1.0]}, "augment.scale is [0.0, 1.0]"),
    ],
)
def test_changes_of_pictures_that_a_family_takes(kind: str, augment: Any, wanted: str | None) -> None:
    for step in (
        {"finetune": {"epochs": 1, "distill": 1.0, "augment": augment}},
        {"quantize": {"method": "qat", "distill": 1.0, "augment": augment}},
    ):
        found = [message for where, message in broken_rules(plain(kind, step, PICTURES)) if "augment" in message]
        assert len(found) == (wanted is not None)
        assert wanted is None or wanted in found[0]


def test_changes_of_pictures_read_back_as_they_were_written() -> None:
    plain_step = {"epochs": 1, "augment": {"flip": True, "scale": [0.5, 2.0], "mosaic": 0.25}}
    step, found = validate(Finetune, plain_step)
    assert found == []
    assert step.augment == Augment(flip=True, scale=(0.5, 2.0), mosaic=0.25)
    assert validate(Finetune, to_plain(step)) == (step, [])
    for value in ({"zoom": 2}, {"flip": "maybe"}, {"color": 3}, {"scale": [2]}, "turn"):
        assert validate(Finetune, {"epochs": 1, "augment": value})[1] != []


def test_classifiers_learn_from_pictures_without_labels_where_the_teacher_is_all() -> None:
    assert broken_rules(plain("classification", FINETUNE, PICTURES)) == []
    for step in (
        {"quantize": {"method": "qat", "distill": 0.5}},
        {"quantize": {"method": "ptq", "repair": "full"}},
        {"prune": {"speedup": 2.0, "importance": "taylor"}},
    ):
        found = dict(broken_rules(plain("classification", step, PICTURES)))
        assert "every step that trains has distill: 1.0" in found["data", "train", "kind"]


def test_ranges_do_not_freeze_before_norms() -> None:
    step = {"quantize": {"method": "qat", "freeze_norms": 0.8, "freeze_ranges": 0.5}}
    ((where, message),) = broken_rules(plain("classification", step, CLASSES))
    assert where == ("steps", 0, "quantize")
    assert "freeze_norms is 0.8 and freeze_ranges 0.5" in message
    step["quantize"]["freeze_ranges"] = 0.8
    assert broken_rules(plain("classification", step, CLASSES)) == []
