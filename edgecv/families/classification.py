"""Image classification: one score per class, one answer per picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.figures import AccuracyFigures, Interval
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Classification
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families.graph_heads import output_layers

KIND = "classification"
HEAD_NAMES: tuple[str, ...] = ()
METRICS: tuple[str, ...] = ("top1", "top5")


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why outputs of this shape are no scores of ``spec.labels``, in words; empty when they are.

    Allowed is one output of shape (1, C) or, channels first or last, (1, C, 1, 1) and (1, 1, 1, C),
    where C is the number of labels, plus 1 with ``spec.background``.
    """
    if len(outputs) != 1:
        names = ", ".join(output.name for output in outputs)
        return [f"the model has {len(outputs)} outputs ({names}); classification needs exactly one"]
    shape = outputs[0].shape
    wanted = _width(spec)
    if shape in {(1, wanted), (1, wanted, 1, 1), (1, 1, 1, wanted)}:
        return []
    classes = f"{len(spec.labels)} labels" + (" + 1 for the background" if spec.background else "")
    found = f"the output {outputs[0].name!r} has shape {shape}; {classes} need (1, {wanted}) or (1, {wanted}, 1, 1)."
    if not spec.background and math.prod(shape) == wanted + 1:
        found += " Set family.background: true if output 0 stands for none of the labels."
    elif spec.background and math.prod(shape) == wanted - 1:
        found += " Set family.background: false if every output has a label."
    else:
        found += " Give one label for each output."
    return [found]


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> Classification:
    """Scores of one picture, ``outputs[0]`` float32 `(1, C)` (or with two more axes of length 1) -> the classes.

    Logits go through softmax over all outputs, the background too, so the scores of the labels add up
    to at most 1. Classes are ranked before the softmax, equal ones in the order of the labels.

    Raises:
        ModelError: the outputs do not fit the labels, or hold NaN or infinity.
    """
    wanted = _width(spec)
    if len(outputs) != 1 or outputs[0].size != wanted:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise ModelError(f"the model gave outputs of shape {shapes}; {len(spec.labels)} labels need one (1, {wanted})")
    values = np.asarray(outputs[0], dtype=np.float32).reshape(-1)
    if not np.isfinite(values).all():
        broken = int(wanted - np.isfinite(values).sum())
        raise ModelError(
            f"{broken} of {wanted} scores are NaN or infinite: a layer overflows. Check the picture's "
            "normalisation and the weights; fp16 overflows above 65504, keep such layers in fp32."
        )
    first = 1 if spec.background else 0
    order = np.argsort(-values[first:], kind="stable")[: min(spec.top_k, len(spec.labels))]
    scores = _softmax(values) if spec.outputs == "logits" else values
    return Classification(scores=scores[first:].copy(), class_ids=order.astype(np.int64), labels=spec.labels)


def agree(one: Classification, other: Classification) -> bool:
    """Whether both name the same best class."""
    return one.best == other.best


def metric(spec: FamilySpec, name: str) -> "Accuracy":
    """Counts right answers; ``name`` is one of `METRICS`.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"classification has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return Accuracy(spec, name)


class Accuracy:
    """Top-1 and top-5: the share of pictures whose true class is the best one, or among the best five."""

    def __init__(self, spec: FamilySpec, name: str) -> None:
        self._classes = len(spec.labels)
        self._name = name
        self._ranks: list[int] = []
        self._truths: list[int] = []

    def update(self, result: Classification, truth: Any) -> None:
        """Count one picture; ``truth`` is its class index, 0 for the first label.

        Raises:
            DataError: ``truth`` is no class index.
        """
        index = int(truth)
        if not 0 <= index < self._classes:
            raise DataError(f"the true class is {truth!r}; allowed are 0..{self._classes - 1}, one per label")
        self._ranks.append(_rank(result, index))
        self._truths.append(index)

    def compute(self) -> AccuracyFigures:
        """The share of right answers (0..1) with its Wilson interval at 95 %; ``per_sample`` holds 0 or 1.

        ``extras``: top1 and top5, ``worst_class_recall`` and ``mean_class_recall`` (both of top-1, over the
        classes that occur).

        Raises:
            DataError: there was no picture.
        """
        if not self._ranks:
            raise DataError("there is no picture to compute an accuracy from; give an evaluation set with at least one")
        ranks = np.array(self._ranks)
        right = {"top1": ranks < 1, "top5": ranks < 5}
        truths = np.array(self._truths)
        seen = np.bincount(truths, minlength=self._classes)
        recalls = np.bincount(truths[right["top1"]], minlength=self._classes)[seen > 0] / seen[seen > 0]
        chosen = right[self._name]
        return AccuracyFigures(
            metric=self._name,
            value=float(chosen.mean()),
            samples=len(ranks),
            interval=wilson(int(chosen.sum()), len(ranks)),
            extras={
                "top1": float(right["top1"].mean()),
                "top5": float(right["top5"].mean()),
                "worst_class_recall": float(recalls.min()),
                "mean_class_recall": float(recalls.mean()),
            },
            per_sample=tuple(chosen.astype(float).tolist()),
        )


def wilson(right: int, total: int, *, level: float = 0.95) -> Interval:
    """Score interval of a share ``right / total`` (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927); total >= 1."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half), level=level)


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """Mean cross entropy of torch ``outputs`` `(N, C)` or `(N, C, 1, 1)` against class indices `(N,)`; a scalar tensor.

    Label smoothing as in C. Szegedy et al., "Rethinking the Inception Architecture", 2016.
    """
    import torch.nn.functional as functional

    scores = outputs.flatten(1).float()
    targets = truths.long() + (1 if spec.background else 0)
    if spec.outputs == "probabilities":
        # Cross entropy starts with log-softmax, and softmax(log p) = p for probabilities that add up to 1.
        scores = scores.clamp_min(1e-12).log()
    return functional.cross_entropy(scores, targets, label_smoothing=label_smoothing)


def protected(module: Any) -> list[str]:
    """Names of the Linear and Conv2d submodules of a torch ``module`` that make the scores.

    The graph is followed back from the output; where the module cannot be traced, the last Linear or
    Conv2d in the order of definition is taken.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind="scores")


def _width(spec: FamilySpec) -> int:
    return len(spec.labels) + (1 if spec.background else 0)


def _softmax(values: FloatArray) -> FloatArray:
    powers = np.exp(values.astype(np.float64) - float(values.max()))
    shares: FloatArray = (powers / powers.sum()).astype(np.float32)
    return shares


def _rank(result: Classification, truth: int) -> int:
    """Place of the true class, 0 for the best: from ``class_ids`` where it is there, else by score."""
    place = np.flatnonzero(result.class_ids == truth)
    if place.size:
        return int(place[0])
    score = result.scores[truth]
    ahead = int((result.scores > score).sum() + (result.scores[:truth] == score).sum())
    return max(ahead, len(result.class_ids))
