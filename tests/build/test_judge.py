"""How the repair ladder's rungs are judged: by labels where there are some, else by likeness to the float network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.build.judge import (
    SURE,
    UNLIKE_PER_LOST,
    likeness,
    make_gate,
    make_judge,
    measure_words,
    score_module,
    sure_objects,
)
from edgecv.build.judge_pictures import JudgePictures
from edgecv.core.contract import InputContract
from edgecv.core.recipe import AccuracyBudget, Budgets, Data, DataSpec, FamilySpec, ModelSpec, Recipe
from edgecv.core.results import Detections
from edgecv.optimize.repair import acceptable
from tests.data.memory_reader import MemoryReader

LABELS = ("dark", "light")


def recipe(family: FamilySpec, *, max_drop: float | None = 0.01) -> Recipe:
    return Recipe(
        recipe=1,
        name="r",
        model=ModelSpec("python:m:f", InputContract((4, 4), color="gray", mean=(0.0,), std=(1.0,))),
        family=family,
        data=Data(DataSpec("sklearn-digits")),
        targets=("host-onnxruntime",),
        budgets=Budgets(accuracy=AccuracyBudget("top1" if family.kind == "classification" else "ap", max_drop)),
    )


CLASSES = recipe(FamilySpec("classification", LABELS))
OBJECTS = recipe(FamilySpec("detection", LABELS, head="yolox", score_threshold=0.05))


class Threshold(nn.Module):
    """Light from a mean brightness of ``edge`` (0..255) on."""

    def __init__(self, edge: float) -> None:
        super().__init__()
        self.edge = edge / 255

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        level = image.mean(dim=(1, 2, 3))
        return torch.stack([self.edge - level, level - self.edge], dim=1)


def grays(levels: Sequence[int]) -> MemoryReader:
    images = [np.full((4, 4), level, dtype=np.uint8) for level in levels]
    return MemoryReader(images, [int(level >= 128) for level in levels])


def pictures(*, labelled: bool) -> JudgePictures:
    return JudgePictures(grays(range(0, 256, 2)), labelled, "the training set")  # type: ignore[arg-type]


def test_labels_decide_where_there_are_labels() -> None:
    held = pictures(labelled=True)
    judge = make_judge(CLASSES, held, Threshold(139))
    same, better, worse = judge(Threshold(139)), judge(Threshold(127)), judge(Threshold(180))
    assert same.value == pytest.approx(1 - 6 / 128)
    assert (same.drop.drop, better.value) == (0, 1)
    assert better.drop.drop < 0 < worse.drop.drop
    assert worse.drop.max_drop == 0.01
    assert acceptable(better)
    assert not acceptable(worse)
    assert measure_words(CLASSES, held) == "top1 by their labels"


def test_without_labels_the_float_network_is_the_measure() -> None:
    held = pictures(labelled=False)
    judge = make_judge(CLASSES, held, Threshold(139))
    same, otherwise = judge(Threshold(139)), judge(Threshold(127))
    assert (same.value, same.drop.drop) == (1, 0)
    assert otherwise.value == pytest.approx(1 - 6 / 128)  # better by the labels, which it does not know
    assert otherwise.drop.max_drop == pytest.approx(UNLIKE_PER_LOST * 0.01)
    assert not acceptable(judge(Threshold(180)))
    assert "likeness to the float network" in measure_words(CLASSES, held)


def test_the_gate_goes_by_the_labels_of_the_evaluation_set() -> None:
    held, evaluation = pictures(labelled=False), grays(range(1, 256, 2))
    gate = make_gate(CLASSES, held, evaluation, Threshold(139))  # type: ignore[arg-type]
    assert gate is not None
    better, worse = gate(Threshold(127)), gate(Threshold(180))
    assert better.drop.drop < 0 < worse.drop.drop, "it is better by the labels, which the judge does not know"
    assert better.drop.max_drop == 0.01
    assert acceptable(better)
    assert not acceptable(worse)
    assert make_gate(CLASSES, pictures(labelled=True), evaluation, Threshold(139)) is None  # type: ignore[arg-type]
    nameless = MemoryReader(evaluation.images, [None] * len(evaluation))  # type: ignore[list-item]
    assert make_gate(CLASSES, held, nameless, Threshold(139)) is None  # type: ignore[arg-type]


def test_of_whole_strings_less_may_change() -> None:
    words = recipe(FamilySpec("text", ("a", "b", "_")))
    words = replace(words, budgets=Budgets(accuracy=AccuracyBudget("exact", 0.01)))
    assert "of which 2 times budgets" in measure_words(words, pictures(labelled=False))
    assert "of which 5 times budgets" in measure_words(CLASSES, pictures(labelled=False))


def test_without_a_limit_everything_is_acceptable() -> None:
    for labelled in (True, False):
        judge = make_judge(recipe(CLASSES.family, max_drop=None), pictures(labelled=labelled), Threshold(128))
        assert acceptable(judge(Threshold(255)))


def test_an_even_pick_of_the_pictures_is_scored() -> None:
    assert len(score_module(CLASSES, grays(range(256)), Threshold(128), limit=10).figures.per_sample) == 10


def found(*objects: tuple[float, float, int]) -> Detections:
    """Boxes of 10 x 10 at (left, score, class)."""
    boxes = np.array([[left, 0, left + 10, 10] for left, _, _ in objects], dtype=np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in objects], dtype=np.float32)
    return Detections(boxes, scores, np.array([index for _, _, index in objects], dtype=np.int64), LABELS)


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        (found((0, 0.9, 0), (50, 0.5, 1)), 1.0),
        (found((2, 0.45, 0), (50, SURE / 2, 1)), 1.0),  # moved a little; half as sure is found still
        (found((0, 0.9, 0)), 2 / 3),  # one of three sure objects of both has no partner
        (found((0, 0.9, 0), (50, 0.5, 0)), 2 / 4),  # another class is lost and made up
        (found((0, 0.9, 0), (50, 0.5, 1), (90, 0.6, 0)), 4 / 5),
        (found((0, 0.9, 0), (50, 0.5, 1), (90, 0.3, 0)), 1.0),  # what is not sure does not count
        (found(), 0.0),
    ],
)
def test_detections_are_alike_by_their_sure_objects(other: Detections, wanted: float) -> None:
    coarse = replace(OBJECTS, budgets=Budgets(accuracy=AccuracyBudget("ap50", 0.01)))
    assert likeness(coarse, found((0, 0.8, 0), (50, 0.5, 1)), other) == pytest.approx(wanted)


def test_where_the_metric_wants_boxes_in_their_places_moved_boxes_are_less_alike() -> None:
    one = found((0, 0.8, 0), (50, 0.5, 1))
    assert likeness(OBJECTS, one, one) == 1
    assert likeness(OBJECTS, one, found((0, 0.8, 0))) == pytest.approx(2 / 3)
    # An overlap of 8 / 12 is one at the thresholds 0.5 to 0.65 alone.
    assert likeness(OBJECTS, one, found((2, 0.8, 0), (50, 0.5, 1))) == pytest.approx((1 + 0.4) / 2)
    assert likeness(OBJECTS, one, found((0.3, 0.8, 0), (50, 0.5, 1))) == pytest.approx((1 + 0.9) / 2)


def test_two_empty_pictures_are_alike() -> None:
    assert likeness(OBJECTS, found(), found()) == 1


def test_a_recipes_higher_threshold_counts() -> None:
    strict: Any = recipe(FamilySpec("detection", LABELS, head="yolox", score_threshold=0.7))
    assert likeness(strict, found((0, 0.65, 0)), found()) == 1
    assert likeness(strict, found((0, 0.75, 0)), found((0, 0.4, 0))) == 1
    assert likeness(strict, found((0, 0.75, 0)), found((0, 0.3, 0))) == 0


class Lamps(nn.Module):
    """YOLOX outputs `(N, 21, 7)` for 32 x 32: one object in the light, as sure as it is bright; another never is."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        output = torch.zeros(len(image), 21, 7)
        output[:, 0, 4] = image.mean(dim=(1, 2, 3))
        output[:, 20, 4] = SURE - 0.01
        output[:, :, 5] = 1
        return output


def test_sure_objects_are_counted() -> None:
    small = InputContract((32, 32), color="gray", mean=(0.0,), std=(1.0,))
    objects = replace(OBJECTS, model=ModelSpec("python:m:f", small))
    pictures: Any = grays([250, 200, 150, 20])
    assert sure_objects(objects, Lamps(), pictures) == 0.75
    strict = replace(objects, family=replace(objects.family, score_threshold=0.7))
    assert sure_objects(strict, Lamps(), pictures) == 0.5
    assert sure_objects(CLASSES, Threshold(128), pictures) is None, "of one class a picture there is nothing to count"
