"""The accuracy gate held against a torch module, before anything is compiled: what the repair ladder climbs by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgecv import families
from edgecv.build.plan import metric_name
from edgecv.core.figures import AccuracyFigures
from edgecv.core.protocols import Parts, PartsMetric, Reader
from edgecv.core.recipe import Recipe
from edgecv.measure.accuracy import even_indices
from edgecv.measure.gate import judge_drop, judge_parts
from edgecv.optimize.repair import Judged
from edgecv.vision.image import preprocess

MOST_PICTURES = 1000
"""A rung is judged on an even pick of so many evaluation pictures; the compiled file is judged on all of them."""


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
    import torch

    family = families.get(recipe.family.kind)
    metric = family.metric(recipe.family, metric_name(recipe))
    for index in even_indices(len(reader), limit):
        sample = reader[index]
        values = preprocess(sample.image, recipe.model.input, layout="NCHW")
        with torch.no_grad():
            made = module(torch.from_numpy(values[None]))
        outputs = [item.numpy() for item in ((made,) if isinstance(made, torch.Tensor) else made)]
        picture = (sample.image.shape[0], sample.image.shape[1])
        metric.update(family.decode(outputs, recipe.family, recipe.model.input, picture=picture), sample.truth)
    return Scored(metric.compute(), metric.parts() if isinstance(metric, PartsMetric) else None)


def make_judge(
    recipe: Recipe, reader: Reader, reference: Any, *, limit: int = MOST_PICTURES
) -> Callable[[Any], Judged]:
    """A judge of modules against the float ``reference`` module, by the recipe's ``budgets.accuracy.max_drop``.

    Raises:
        DataError: the data set is empty or its truths do not fit the family.
        UsageError: the family has no such metric.
    """
    budget = recipe.budgets.accuracy
    max_drop = budget.max_drop if budget is not None else None
    before = score_module(recipe, reader, reference, limit=limit)

    def judge(module: Any) -> Judged:
        after = score_module(recipe, reader, module, limit=limit)
        if before.parts is not None and after.parts is not None:
            return Judged(after.figures.value, judge_parts(before.parts, after.parts, max_drop=max_drop))
        drop = judge_drop(before.figures.per_sample, after.figures.per_sample, max_drop=max_drop)
        return Judged(after.figures.value, drop)

    return judge
