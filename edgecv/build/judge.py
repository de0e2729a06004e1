"""The accuracy limit held against a torch module, before anything is compiled: what the repair ladder climbs by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edgecv import families
from edgecv.build.judge_pictures import MOST_PICTURES, JudgePictures
from edgecv.build.plan import metric_name
from edgecv.core.figures import AccuracyFigures
from edgecv.core.kinds import lower_is_better, metric_unit
from edgecv.core.protocols import Graded, Parts, PartsMetric, Reader
from edgecv.core.recipe import Recipe
from edgecv.core.results import Detections, Poses
from edgecv.data.readers import LabelledReader
from edgecv.data.selection import truths_of
from edgecv.errors import DataError
from edgecv.families.box_parts import IOU_THRESHOLDS
from edgecv.families.detection_metric import matches
from edgecv.measure.accuracy import even_indices
from edgecv.measure.gate import judge_drop, judge_parts
from edgecv.optimize.repair import Judged
from edgecv.vision.clips import picture_size
from edgecv.vision.image import preprocess

SURE = 0.4
"""Without labels an object of at least this score (or the recipe's threshold, if higher) must be found by both."""
COUNTED = 32
"""Pictures of a set whose objects are counted, at most."""
UNLIKE_PER_LOST = 5.0
"""Without labels so many times the allowed drop may come out otherwise than in float.

What int8 changes was mostly unsure: about as many answers become right as wrong. Measured where labels are at hand:
ResNet-20 on CIFAR-10 with 8 and 6 bits for activations changes 2 and 8 % of its answers and loses 0 and 0.7 points of
top-1. SINet's classes overlap with those of float by 0.89 and, with some layers float, by 0.96; on other pictures that
loses 6 and 0 points of mIoU. Of boxes by metric ap, on 150 made-up scenes with 6 and 5 bits: a YOLO has 2.0 and 5.5 %
of them elsewhere and loses 0.5 and 1.6 points of AP; SSD 0.9 and 6.2 %, 0.5 and 1.8; FCOS 2.1 and 8.3 %, 0.3 and 2.2;
RetinaNet 4.0 and 10.6 %, 0.5 and 1.9; RT-DETR 7.2 and 18.6 %, 2.5 and 7.7; YOLOX on COCO about 4 % and 0.8. At an IoU
of 0.5 alone hardly any of the first four's were elsewhere.
"""
STRINGS_UNLIKE_PER_LOST = 2.0
"""The same for whole strings: a change of one letter spoils a right one and mends a wrong one seldom. LPRNet on plates
changes 5.1 % of them and loses 2.7 points.
"""


@dataclass(frozen=True)
class Scored:
    """The task metric of one module, in a form that can be compared with another's in pairs."""

    figures: AccuracyFigures
    parts: Parts | None


def score_module(recipe: Recipe, reader: Reader, module: Any, *, limit: int = MOST_PICTURES) -> Scored:
    """The recipe's task metric of a torch ``module`` on at most ``limit`` pictures of ``reader``, one at a time.

    Raises:
        DataError: the data set is empty or its truths do not fit the family.
        UsageError: the family has no such metric.
    """
    return _scored(
        recipe, ((_answer(recipe, module, sample.image), sample.truth) for sample in _samples(reader, limit))
    )


def make_judge(recipe: Recipe, pictures: JudgePictures, reference: Any) -> Callable[[Any], Judged]:
    """A judge of modules against the float ``reference`` module, by the recipe's ``budgets.accuracy.max_drop``.

    Where the pictures have no labels, answers are held against the float network's: of detectors the sure objects
    (`SURE`) that both find, of other families how like the two are (`Graded`) or whether they agree (`Family.agree`).
    The float network has 1 by that, and `UNLIKE_PER_LOST` times the drop is allowed (of whole strings
    `STRINGS_UNLIKE_PER_LOST`).

    Raises:
        DataError: there is no picture, the truths do not fit the family, or there are none for a metric in dB.
        UsageError: the family has no such metric.
    """
    budget = recipe.budgets.accuracy
    max_drop = budget.max_drop if budget is not None else None
    if not pictures.labelled:
        name = metric_name(recipe)
        if metric_unit(name) != "share":
            raise DataError(
                f"the repair ladder has no pictures with a truth, and {name} is not a share that likeness to the float "
                "network could stand for; add data.train with truths, or set repair: off"
            )
        allowed = None if max_drop is None else _unlike_per_lost(recipe) * max_drop
        return _likeness(recipe, pictures.reader, reference, allowed)
    before = score_module(recipe, pictures.reader, reference)
    return lambda module: _judged(before, score_module(recipe, pictures.reader, module), max_drop)


def make_gate(
    recipe: Recipe, pictures: JudgePictures, evaluation: LabelledReader, reference: Any
) -> Callable[[Any], Judged] | None:
    """What the accuracy gate will say, by the labels of the ``evaluation`` set; None where ``pictures`` have labels or
    that set has none.

    It may only say whether the ladder is needed at all: settings that were chosen by it would suit its pictures by
    luck.
    """
    if pictures.labelled or next(iter(truths_of(evaluation)), None) is None:
        return None
    budget = recipe.budgets.accuracy
    max_drop = budget.max_drop if budget is not None else None

    def gate(module: Any) -> Judged:
        before, after = (score_module(recipe, evaluation, item) for item in (reference, module))
        return _judged(before, after, max_drop)

    return gate


def sure_objects(recipe: Recipe, module: Any, reader: Reader) -> float | None:
    """How many objects (or poses) ``module`` is sure of (`SURE`) in a picture of ``reader``, on the mean; None of a
    family whose answers are not lists of such.
    """
    sure, counts = max(SURE, recipe.family.score_threshold), list[int]()
    for sample in _samples(reader, COUNTED):
        answer = _answer(recipe, module, sample.image)
        if not isinstance(answer, (Detections, Poses)):
            return None
        counts.append(int((answer.scores >= sure).sum()))
    return sum(counts) / len(counts)


def measure_words(recipe: Recipe, pictures: JudgePictures) -> str:
    """What the judge of `make_judge` measures, in words."""
    if pictures.labelled:
        return f"{metric_name(recipe)} by their labels"
    limit = f"of which {_unlike_per_lost(recipe):g} times budgets.accuracy.max_drop is allowed to be lost"
    return f"likeness to the float network's answers, {limit}"


def _unlike_per_lost(recipe: Recipe) -> float:
    return STRINGS_UNLIKE_PER_LOST if metric_name(recipe) == "exact" else UNLIKE_PER_LOST


def likeness(recipe: Recipe, one: Any, other: Any) -> float:
    """How like two answers to one picture are, 0..1; of two detections (decoded down to half of what is sure) the
    share of sure objects of either that the other has as well, be it with half the score.

    Half the score will do, so that an object on the border of the threshold does not count as lost. For metric ap,
    which wants boxes in their places, the share is the mean over its IoU thresholds; for ap50 that at 0.5.
    """
    if isinstance(one, Graded):
        return one.likeness(other)
    if not isinstance(one, Detections) or not isinstance(other, Detections):
        return float(families.get(recipe.family.kind).agree(one, other))
    sure = max(SURE, recipe.family.score_threshold)
    places = IOU_THRESHOLDS if metric_name(recipe) == "ap" else IOU_THRESHOLDS[:1]
    found = total = 0
    for mine, theirs in ((one, other), (other, one)):
        strong, weak = mine.scores >= sure, theirs.scores >= sure / 2
        sought = mine.boxes[strong], mine.class_ids[strong], theirs.boxes[weak], theirs.class_ids[weak]
        found += sum(int((matches(*sought, min_iou=float(place)) >= 0).sum()) for place in places)
        total += len(sought[0]) * len(places)
    return found / total if total else 1.0


def _likeness(recipe: Recipe, reader: Reader, reference: Any, max_drop: float | None) -> Callable[[Any], Judged]:
    """A judge by `likeness` to ``reference``; ``max_drop`` is what may be lost of it."""
    lowest = min(recipe.family.score_threshold, max(SURE, recipe.family.score_threshold) / 2)
    wide = replace(recipe, family=replace(recipe.family, score_threshold=lowest))
    wanted = [_answer(wide, reference, sample.image) for sample in _samples(reader)]

    def judge(module: Any) -> Judged:
        answers = (_answer(wide, module, sample.image) for sample in _samples(reader))
        like = [likeness(recipe, one, other) for one, other in zip(wanted, answers, strict=True)]
        return Judged(sum(like) / len(like), judge_drop([1.0] * len(like), like, max_drop=max_drop))

    return judge


def _judged(before: Scored, after: Scored, max_drop: float | None) -> Judged:
    if before.parts is not None and after.parts is not None:
        return Judged(after.figures.value, judge_parts(before.parts, after.parts, max_drop=max_drop))
    one, other = before.figures, after.figures
    drop = judge_drop(one.per_sample, other.per_sample, max_drop=max_drop, errors=lower_is_better(one.metric))
    return Judged(after.figures.value, drop)


def _scored(recipe: Recipe, pairs: Any) -> Scored:
    metric = families.get(recipe.family.kind).metric(recipe.family, metric_name(recipe))
    for answer, truth in pairs:
        metric.update(answer, truth)
    return Scored(metric.compute(), metric.parts() if isinstance(metric, PartsMetric) else None)


def _samples(reader: Reader, limit: int = MOST_PICTURES) -> Any:
    return (reader[index] for index in even_indices(len(reader), limit))


def _answer(recipe: Recipe, module: Any, image: Any) -> Any:
    """The decoded answer of a torch module to one picture."""
    import torch

    values = preprocess(image, recipe.model.input, layout="NCHW")
    with torch.no_grad():
        made = module(torch.from_numpy(values[None]))
    outputs = [item.numpy() for item in ((made,) if isinstance(made, torch.Tensor) else made)]
    picture = picture_size(image)
    return families.get(recipe.family.kind).decode(outputs, recipe.family, recipe.model.input, picture=picture)
