"""How well text is found: the ICDAR measure at IoU 0.5, with pieces that nobody has to find."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.core.figures import AccuracyFigures
from edgecv.errors import DataError
from edgecv.families.pose_parts import ShareParts
from edgecv.families.textdet_result import TextRegions, TextTruth, pairs
from edgecv.vision.polygons import area, overlap

METRICS: tuple[str, ...] = ("hmean",)

_ON_IGNORED = 0.5
"""Findings that lie by more than this share on an ignored piece count neither as right nor as wrong."""


class HarmonicMean:
    """``hmean``: 2 P R / (P + R) of precision and recall over all pictures (D. Karatzas et al., ICDAR 2015 competition

    on robust reading, task 4.1): a finding is right that has more than half of its union in common with a true piece,
    each of which is found once at most.
    """

    def __init__(self) -> None:
        self._counts: list[tuple[int, int, int]] = []

    def update(self, result: TextRegions, truth: Any) -> None:
        """Count one picture.

        Raises:
            DataError: ``truth`` is no `TextTruth`.
        """
        if not isinstance(truth, TextTruth):
            raise DataError(
                f"the truth of a picture is {type(truth).__name__}; text-detection needs data of kind textdet, icdar "
                "or scenes-text"
            )
        true = [np.array(polygon) for polygon in truth.polygons]
        ignored = [polygon for polygon, mark in zip(true, truth.ignored, strict=True) if mark]
        wanted = [polygon for polygon, mark in zip(true, truth.ignored, strict=True) if not mark]
        found = [polygon for polygon in result.polygons if not _is_ignored(polygon, ignored)]
        self._counts.append((len(pairs(wanted, found)), len(wanted), len(found)))

    def compute(self) -> AccuracyFigures:
        """``hmean`` 0..1 over all pictures, with ``precision`` and ``recall`` beside it; ``per_sample`` is each

        picture's own (1 where nothing is there and nothing was found).

        Raises:
            DataError: there was no picture, or no piece of text that has to be found in any.
        """
        if not self._counts:
            raise DataError("there is no picture to find text in; give an evaluation set of at least one")
        right, wanted, found = (int(total) for total in np.array(self._counts).sum(axis=0))
        if not wanted:
            raise DataError("no picture has a piece of text that has to be found: all are ignored. Check the truths.")
        extras = {"precision": right / found if found else 0.0, "recall": right / wanted}
        each = tuple(2 * hits / (true + seen) if true + seen else 1.0 for hits, true, seen in self._counts)
        return AccuracyFigures("hmean", 2 * right / (wanted + found), len(each), extras=extras, per_sample=each)

    def parts(self) -> ShareParts:
        """What every picture brings: 2 P R / (P + R) is twice the right findings over all true and found pieces."""
        counts = np.array(self._counts, dtype=np.int64).reshape(-1, 3)
        return ShareParts(2 * counts[:, 0], counts[:, 1] + counts[:, 2])


def _is_ignored(polygon: Any, ignored: list[Any]) -> bool:
    own = area(polygon)
    return any(overlap(polygon, other) > _ON_IGNORED * own for other in ignored)
