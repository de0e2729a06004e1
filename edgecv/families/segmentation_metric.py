"""How well classes of pixels are found: counts of every picture, from which each metric follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.figures import AccuracyFigures
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Array
from edgecv.errors import DataError
from edgecv.families.segmentation_map import NO_CLASS, ClassMap, MaskTruth

Ints = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

FORM = "pixel counts"
METRICS: tuple[str, ...] = ("miou", "pixel_accuracy", "dice")


@dataclass(frozen=True)
class PixelParts:
    """What every picture brings to a metric over pixels, each `(N, C)` int64.

    ``right``: pixels of a class that are found as such; ``found``: pixels found as the class; ``true``: pixels that
    are of the class. Only judged pixels count. ``metric`` is one of `METRICS`.
    """

    metric: str
    right: Ints
    found: Ints
    true: Ints

    @property
    def samples(self) -> int:
        """Number of pictures."""
        return len(self.right)

    @property
    def work(self) -> int:
        """How many numbers one count of the pictures goes through."""
        return int(3 * self.right.size)

    def values(self, counts: npt.NDArray[np.integer]) -> Values:
        """The metric `(R,)`, 0..1, with every picture counted as ``counts`` `(R, samples)` says.

        1 where no pixel is judged. Matrix products of whole numbers below 2^53, so that the sums are exact.
        """
        weights = counts.astype(np.float64)
        return metric_values(self.metric, *(weights @ part.astype(np.float64) for part in self._parts()))

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays that `from_arrays` takes."""
        return {
            "form": np.array(FORM),
            "metric": np.array(self.metric),
            "right": self.right,
            "found": self.found,
            "true": self.true,
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> PixelParts:
        """What `arrays` gave.

        Raises:
            KeyError: an array is missing.
        """
        return PixelParts(
            str(arrays["metric"]), *(arrays[name].astype(np.int64) for name in ("right", "found", "true"))
        )

    def _parts(self) -> tuple[Ints, Ints, Ints]:
        return self.right, self.found, self.true


def metric_values(metric: str, right: Values, found: Values, true: Values) -> Values:
    """A metric `(R,)`, 0..1, from pixel counts of each class `(R, C)`; 1 where no pixel is judged.

    ``miou``: right / (found + true - right), ``dice``: 2 right / (found + true), both the mean over the classes
    that occur in the truth (a class that is found and never there takes its pixels away from those that are);
    ``pixel_accuracy``: the share of right pixels.
    """
    if metric == "pixel_accuracy":
        return _shares(right.sum(axis=1), true.sum(axis=1), empty=1.0)
    each = class_values(metric, right, found, true)
    there = true > 0
    return _shares((each * there).sum(axis=1), there.sum(axis=1).astype(np.float64), empty=1.0)


def class_values(metric: str, right: Values, found: Values, true: Values) -> Values:
    """IoU (``miou``) or Dice coefficient (``dice``) of each class `(R, C)`, 0..1; 0 where it never occurs."""
    if metric == "dice":
        return _shares(2 * right, found + true)
    return _shares(right, found + true - right)


class PixelMetric:
    """Mean intersection over union, pixel accuracy or Dice, over the pixels of all pictures together.

    Pixels whose true class is `NO_CLASS`, or the class of the option ``void``, are not judged.
    """

    def __init__(self, spec: FamilySpec, name: str) -> None:
        self._labels, self._name = spec.labels, name
        void = spec.options.get("void")
        self._void = spec.labels.index(void) if void in spec.labels else None
        self._counts: list[tuple[Ints, Ints, Ints]] = []

    def update(self, result: ClassMap, truth: Any) -> None:
        """Count one picture.

        Raises:
            DataError: ``truth`` is no `MaskTruth`, is of another size than the result, or has a class without a label.
        """
        if not isinstance(truth, MaskTruth):
            raise DataError(f"the truth of a picture is {type(truth).__name__}; segmentation needs a MaskTruth")
        if truth.classes.shape != result.classes.shape:
            have, size = (f"{shape[1]} x {shape[0]}" for shape in (truth.classes.shape, result.classes.shape))
            raise DataError(f"a true mask has {have} pixels and its picture {size}; they must be the same")
        classes = len(self._labels)
        judged = truth.classes != NO_CLASS
        if self._void is not None:
            judged &= truth.classes != self._void
        true, found = truth.classes[judged], result.classes[judged]
        if true.size and int(true.max()) >= classes:
            raise DataError(f"a true class is {int(true.max())}; allowed are 0..{classes - 1}, one per label")
        self._counts.append((_count(true[true == found], classes), _count(found, classes), _count(true, classes)))

    def compute(self) -> AccuracyFigures:
        """The metric over all pixels; ``per_sample`` holds each picture's own.

        ``extras``: all three metrics, ``worst_class_iou``, and ``iou LABEL`` of the classes that occur.

        Raises:
            DataError: there was no picture, or no judged pixel in any.
        """
        if not self._counts:
            raise DataError("there is no picture to compute a metric from; give an evaluation set of at least one")
        parts = self.parts()
        if not parts.true.any():
            raise DataError("no pixel of any mask is judged: all have the ignored value. Check ignore_index and void.")
        total = [part.sum(axis=0, keepdims=True).astype(np.float64) for part in (parts.right, parts.found, parts.true)]
        extras = {name: float(metric_values(name, *total)[0]) for name in METRICS}
        ious = class_values("miou", *total)[0]
        there = [index for index in range(len(self._labels)) if total[2][0, index] > 0]
        extras["worst_class_iou"] = float(ious[there].min())
        extras |= {f"iou {self._labels[index]}": float(ious[index]) for index in there}
        each = metric_values(self._name, *(part.astype(np.float64) for part in (parts.right, parts.found, parts.true)))
        return AccuracyFigures(
            metric=self._name,
            value=extras[self._name],
            samples=parts.samples,
            extras=extras,
            per_sample=tuple(each.tolist()),
        )

    def parts(self) -> PixelParts:
        """What every picture brings to the metric, to compute it again with pictures counted any number of times."""
        right, found, true = (
            np.stack(part).reshape(len(self._counts), len(self._labels)) for part in zip(*self._counts, strict=True)
        )
        return PixelParts(self._name, right, found, true)


def _count(classes: npt.NDArray[np.uint8], total: int) -> Ints:
    counts: Ints = np.bincount(classes, minlength=NO_CLASS + 1)[:total].astype(np.int64)
    return counts


def _shares(part: Values, whole: Values, *, empty: float = 0.0) -> Values:
    return np.divide(part, whole, out=np.full_like(part, empty), where=whole > 0)
