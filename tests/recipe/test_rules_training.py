"""Rules of steps that train: what learns from labels, what from the teacher alone, and in which order things freeze."""

from __future__ import annotations

from typing import Any

import pytest

from edgecv.recipe.rules import broken_rules

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


def test_detectors_whose_head_has_a_loss_learn_from_boxes() -> None:
    def found(head: str, step: dict[str, Any], train: dict[str, Any]) -> dict[Any, str]:
        recipe = plain("detection", step, train)
        recipe["family"]["head"] = head
        return dict(broken_rules(recipe))

    alone = {"finetune": {"epochs": 1}}
    assert found("yolo", alone, COCO) == {}
    assert found("yolo", FINETUNE, PICTURES) == {}
    assert "every step that trains has distill: 1.0" in found("yolo", alone, PICTURES)["data", "train", "kind"]
    assert found("detr", {"quantize": {"method": "qat"}}, PICTURES) == {}
    message = found("detr", alone, COCO)["steps", 0, "finetune"]
    assert "detection, head detr, learns from the original network alone" in message


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
