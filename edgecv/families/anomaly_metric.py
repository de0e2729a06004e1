"""How well defects are told from good pictures, and their pixels from good ones: areas under curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.figures import AccuracyFigures
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Array, FloatArray
from edgecv.errors import DataError
from edgecv.families.anomaly_map import AnomalyMap, AnomalyTruth

Values = npt.NDArray[np.float64]

FORM = "two groups"
METRICS: tuple[str, ...] = ("auroc",)
PRO_LIMIT = 0.3
"""PRO is integrated up to this share of false alarms among good pixels, as in the literature."""
_CHUNK_ELEMENTS = 1 << 21
_BITS = 20
"""Bins of pixel scores: the highest bits of a float, so that two scores in one bin differ by 0.05 % at most."""


@dataclass(frozen=True)
class ScoreParts:
    """What every picture brings to the area under the ROC curve: ``scores`` and whether it is ``defect``, `(N,)`."""

    scores: Values
    defect: npt.NDArray[np.bool_]

    @property
    def samples(self) -> int:
        """Number of pictures."""
        return len(self.scores)

    @property
    def work(self) -> int:
        """How many numbers one count of the pictures goes through."""
        return 4 * self.samples

    def values(self, counts: npt.NDArray[np.integer]) -> Values:
        """The area `(R,)`, 0..1, with every picture counted as ``counts`` `(R, samples)` says.

        The chance that a defective picture scores higher than a good one, equal scores counting half. 0.5 where a
        draw has only good or only defective pictures, which tells nothing.
        """
        areas = np.full(len(counts), 0.5)
        step = max(1, _CHUNK_ELEMENTS // max(1, self.samples))
        order, groups = self._order
        for start in range(0, len(counts), step):
            rows = counts[start : start + step][:, order].astype(np.float64)
            bad = np.add.reduceat(rows * self.defect[order], groups, axis=1)
            good = np.add.reduceat(rows * ~self.defect[order], groups, axis=1)
            below = good.cumsum(axis=1) - good
            won = (bad * (below + 0.5 * good)).sum(axis=1)
            pairs = bad.sum(axis=1) * good.sum(axis=1)
            np.divide(won, pairs, out=areas[start : start + step], where=pairs > 0)
        return areas

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays that `from_arrays` takes."""
        return {"form": np.array(FORM), "scores": self.scores, "defect": self.defect}

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> ScoreParts:
        """What `arrays` gave.

        Raises:
            KeyError: an array is missing.
        """
        return ScoreParts(arrays["scores"].astype(np.float64), arrays["defect"].astype(bool))

    @cached_property
    def _order(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pictures by rising score, and where each group of equal scores begins."""
        order = np.argsort(self.scores, kind="stable")
        ranked = self.scores[order]
        return order, np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def placements(scores: Values, defect: npt.NDArray[np.bool_]) -> Values:
    """The share 0..1 of the other group that each picture is told from rightly; either group's mean is the area."""
    found = np.empty(len(scores))
    for own in (False, True):
        other = np.sort(scores[defect != own])
        mine = scores[defect == own]
        below = (np.searchsorted(other, mine, "left") + np.searchsorted(other, mine, "right")) / (2.0 * len(other))
        found[defect == own] = below if own else 1.0 - below
    return found


class PixelCurves:
    """Pixels of all pictures counted by score: their ROC curve and the per-region overlap, in memory that stays small.

    Every defective region (8-connected) counts the same in PRO, whatever its size (Bergmann et al., MVTec AD,
    CVPR 2019, and "Uninformed Students", arXiv:1911.02357).
    """

    def __init__(self) -> None:
        self._good, self._bad = np.zeros(1 << _BITS), np.zeros(1 << _BITS)
        self._overlap = np.zeros(1 << _BITS)
        self._regions = 0

    def add(self, values: FloatArray, mask: npt.NDArray[np.uint8] | None) -> None:
        """Count one picture's pixels `(H, W)`; without a ``mask`` all of them are good."""
        bins = _bins(values)
        if mask is None:
            self._good += np.bincount(bins.ravel(), minlength=1 << _BITS)
            return
        spoiled = mask > 0
        self._good += np.bincount(bins[~spoiled], minlength=1 << _BITS)
        self._bad += np.bincount(bins[spoiled], minlength=1 << _BITS)
        count, regions = cv2.connectedComponents(spoiled.astype(np.uint8), connectivity=8)
        sizes = np.bincount(regions.ravel(), minlength=count)
        weights = 1.0 / sizes[regions[spoiled]]
        self._overlap += np.bincount(bins[spoiled], weights=weights, minlength=1 << _BITS)
        self._regions += count - 1

    def figures(self) -> dict[str, float]:
        """``pixel_auroc`` and ``pro`` (0..1); empty where there are no good or no defective pixels."""
        if not self._regions or not self._good.any():
            return {}
        used = np.flatnonzero(self._good + self._bad)[::-1]  # from the highest score down
        good, bad, overlap = (part[used] for part in (self._good, self._bad, self._overlap))
        false = np.concatenate([[0.0], good.cumsum() / good.sum()])
        true = np.concatenate([[0.0], bad.cumsum() / bad.sum()])
        covered = np.concatenate([[0.0], overlap.cumsum() / self._regions])
        auroc = _area(true, false)
        inside = false <= PRO_LIMIT
        edge = float(np.interp(PRO_LIMIT, false, covered))
        area = _area(np.append(covered[inside], edge), np.append(false[inside], PRO_LIMIT))
        return {"pixel_auroc": auroc, "pro": area / PRO_LIMIT}


class DefectMetric:
    """Area under the ROC curve over pictures; over pixels, and per region (PRO), where masks are known."""

    def __init__(self, spec: FamilySpec) -> None:
        self._threshold = spec.score_threshold
        self._scores: list[float] = []
        self._defect: list[bool] = []
        self._curves = PixelCurves()

    def update(self, result: AnomalyMap, truth: Any) -> None:
        """Count one picture.

        Raises:
            DataError: ``truth`` is no `AnomalyTruth`, or its mask has another size than the result.
        """
        if not isinstance(truth, AnomalyTruth):
            raise DataError(
                f"the truth of a picture is {type(truth).__name__}; anomaly needs to know whether it shows a defect. "
                "Use data of kind anomaly, defects or textures"
            )
        if truth.mask is not None and truth.mask.shape != result.values.shape:
            have, size = (f"{shape[1]} x {shape[0]}" for shape in (truth.mask.shape, result.values.shape))
            raise DataError(f"a defect's mask has {have} pixels and its picture {size}; they must be the same")
        self._scores.append(result.score)
        self._defect.append(truth.defect)
        if truth.mask is not None or not truth.defect:
            self._curves.add(result.values, truth.mask)

    def compute(self) -> AccuracyFigures:
        """``auroc``, 0 to 1; ``per_sample`` is each picture's `placements`.

        ``extras``: ``pixel_auroc`` and ``pro`` where there are masks; at the threshold ``false_alarms``, the share
        of good pictures that are called defective, and ``missed``, the share of defective ones that are not.

        Raises:
            DataError: there are no good or no defective pictures.
        """
        scores, defect = np.array(self._scores), np.array(self._defect, dtype=bool)
        if not len(scores) or defect.all() or not defect.any():
            raise DataError(
                f"{int(defect.sum())} of {len(defect)} pictures show a defect; AUROC compares good pictures with "
                "defective ones and needs both in data.eval"
            )
        alarm = scores > self._threshold
        extras = {
            **self._curves.figures(),
            "false_alarms": float(alarm[~defect].mean()),
            "missed": float((~alarm[defect]).mean()),
        }
        value = float(self.parts().values(np.ones((1, len(scores)), dtype=np.int64))[0])
        told = tuple(float(item) for item in placements(scores, defect))
        return AccuracyFigures("auroc", value, len(scores), extras=extras, per_sample=told)

    def parts(self) -> ScoreParts:
        """Every picture's score and whether it shows a defect."""
        return ScoreParts(np.array(self._scores, dtype=np.float64), np.array(self._defect, dtype=bool))


def _area(heights: Values, places: Values) -> float:
    """The area below straight lines between points at rising ``places``."""
    return float(((heights[1:] + heights[:-1]) / 2 * np.diff(places)).sum())


def _bins(values: FloatArray) -> npt.NDArray[np.int64]:
    """The bin of each value; a higher value never has a lower bin."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    negative = bits >> 31 == 1
    ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> np.uint32(32 - _BITS)).astype(np.int64)
