"""How good a detector is: average precision over a data set, and whether two sets of boxes match."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.figures import AccuracyFigures
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections, DetectionTruth
from edgecv.errors import DataError, ToolchainError
from edgecv.families.box_parts import IOU_THRESHOLDS, box_parts
from edgecv.families.ranked import RankedParts
from edgecv.vision.boxes import iou

METRICS: tuple[str, ...] = ("ap", "ap50")

SURE_SCORE = 0.25
"""Objects of at least this score count for the F1 of a picture."""

_FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")
"""COCO's first nine figures, in its order."""
_ALWAYS = ("ap", "ap50", "ap75", "ar1", "ar10", "ar100")

_QUIET = logging.getLogger("edgecv.families.detection").debug


def matches(
    boxes: npt.NDArray[Any],
    classes: npt.NDArray[Any],
    other_boxes: npt.NDArray[Any],
    other_classes: npt.NDArray[Any],
    *,
    min_iou: float = 0.5,
) -> npt.NDArray[np.int64]:
    """For each box `(N, 4)`, in order, the row of its partner among the others `(M, 4)`, or -1; `(N,)`.

    The partner is the box of the same class with the largest IoU of at least ``min_iou`` that is still free.
    """
    partners = np.full(len(boxes), -1, dtype=np.int64)
    if len(boxes) == 0 or len(other_boxes) == 0:
        return partners
    overlaps = iou(boxes, other_boxes)
    overlaps[classes[:, np.newaxis] != other_classes] = 0
    for row in range(len(boxes)):
        best = int(overlaps[row].argmax())
        if overlaps[row, best] >= min_iou:
            partners[row] = best
            overlaps[:, best] = 0
    return partners


class AveragePrecision:
    """COCO's average precision: ``ap`` over IoU 0.50:0.95, ``ap50`` at 0.50 (T.-Y. Lin et al., 2014).

    It counts all detections of a picture, up to 100: for a figure to compare with published ones, set
    the score threshold to 0.01 or less.
    """

    def __init__(self, spec: FamilySpec, name: str) -> None:
        _evaluator()  # fail before the work, not after
        self._labels = spec.labels
        self._name = name
        self._truths: list[DetectionTruth] = []
        self._results: list[Detections] = []

    def update(self, result: Detections, truth: DetectionTruth) -> None:
        """Count one picture.

        Raises:
            DataError: ``truth`` is no `DetectionTruth`, or has a class without a label.
        """
        if not isinstance(truth, DetectionTruth):
            raise DataError(f"the truth of a picture is {type(truth).__name__}; detection needs a DetectionTruth")
        wrong = truth.class_ids[(truth.class_ids < 0) | (truth.class_ids >= len(self._labels))]
        if wrong.size:
            raise DataError(f"a true class is {wrong[0]}; allowed are 0..{len(self._labels) - 1}, one per label")
        self._truths.append(truth)
        self._results.append(result)

    def compute(self) -> AccuracyFigures:
        """The metric (0..1; 0 where nothing is there to be found).

        ``per_sample`` holds each picture's F1 at IoU 0.5 of the detections with a score of at least `SURE_SCORE`
        (1 where nothing is there and nothing was found): average precision itself has no value for one
        picture. ``extras``: ap, ap50, ap75; ap_small, ap_medium and ap_large (objects of less than 32 x 32 and of
        more than 96 x 96 pixels, and those between; left out where there are none); ar1, ar10 and ar100, the average
        recall with so many detections of a picture; and f1, the mean of ``per_sample``.

        Raises:
            DataError: there was no picture.
        """
        if not self._truths:
            raise DataError("there is no picture to compute a precision from; give an evaluation set of at least one")
        figures = self._coco()
        shares = tuple(_f1(result, truth) for result, truth in zip(self._results, self._truths, strict=True))
        figures["f1"] = float(np.mean(shares))
        return AccuracyFigures(
            metric=self._name,
            value=figures[self._name],
            samples=len(shares),
            extras=figures,
            per_sample=shares,
        )

    def parts(self) -> RankedParts:
        """What every picture brings to the metric, to compute it again with pictures counted any number of times."""
        thresholds = IOU_THRESHOLDS[:1] if self._name == "ap50" else IOU_THRESHOLDS
        return box_parts(self._results, self._truths, thresholds=thresholds)

    def _coco(self) -> dict[str, float]:
        coco, evaluator = _evaluator()
        if not any(len(truth.class_ids) for truth in self._truths):
            return dict.fromkeys(_ALWAYS, 0.0)
        truth = coco(self._truth_tables(), print_function=_QUIET)
        found = truth.loadRes(self._result_rows())
        judge = evaluator(truth, found, "bbox", print_function=_QUIET)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        figures = dict(zip(_FIGURES, map(float, judge.stats), strict=False))
        # -1 says that there is nothing of this size to be found.
        return {name: max(0.0, value) for name, value in figures.items() if value >= 0 or name in _ALWAYS}

    def _truth_tables(self) -> dict[str, Any]:
        notes: list[dict[str, Any]] = []
        for image, truth in enumerate(self._truths):
            for row, box in enumerate(truth.boxes.astype(float).tolist()):
                wide, high = box[2] - box[0], box[3] - box[1]
                notes.append(
                    {
                        "id": len(notes) + 1,
                        "image_id": image + 1,
                        "category_id": int(truth.class_ids[row]) + 1,
                        "bbox": [box[0], box[1], wide, high],
                        "area": wide * high if truth.area is None else float(truth.area[row]),
                        "iscrowd": 0 if truth.crowd is None else int(truth.crowd[row]),
                    }
                )
        return {
            "images": [{"id": image + 1} for image in range(len(self._truths))],
            "categories": [{"id": index + 1, "name": label} for index, label in enumerate(self._labels)],
            "annotations": notes,
        }

    def _result_rows(self) -> list[dict[str, Any]]:
        rows = []
        for image, result in enumerate(self._results):
            for box, score, index in zip(
                result.boxes.astype(float).tolist(), result.scores.tolist(), result.class_ids.tolist(), strict=True
            ):
                sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                rows.append({"image_id": image + 1, "category_id": index + 1, "bbox": sides, "score": score})
        return rows


def _f1(result: Detections, truth: DetectionTruth) -> float:
    """Harmonic mean of precision and recall of one picture; what lies on a crowd is not held against it."""
    sure = result.select(np.flatnonzero(result.scores >= SURE_SCORE))
    crowd = np.zeros(len(truth.class_ids), dtype=bool) if truth.crowd is None else truth.crowd
    partners = matches(sure.boxes, sure.class_ids, truth.boxes[~crowd], truth.class_ids[~crowd])
    hits = int((partners >= 0).sum())
    spare = sure.select(np.flatnonzero(partners < 0))
    if crowd.any() and len(spare):
        spare = spare.select(~_on_crowd(spare, truth.boxes[crowd], truth.class_ids[crowd]))
    total = hits + len(spare) + int((~crowd).sum())
    return 2 * hits / total if total else 1.0


def _on_crowd(
    found: Detections, crowds: npt.NDArray[Any], classes: npt.NDArray[Any], *, min_share: float = 0.5
) -> npt.NDArray[np.bool_]:
    """Which boxes lie with more than half of their area in a crowd of their class."""
    low = np.maximum(found.boxes[:, np.newaxis, :2], crowds[:, :2])
    sides = np.clip(np.minimum(found.boxes[:, np.newaxis, 2:], crowds[:, 2:]) - low, 0, None)
    own = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    covered = sides.prod(axis=2) >= min_share * own[:, np.newaxis]
    inside: npt.NDArray[np.bool_] = (covered & (found.class_ids[:, np.newaxis] == classes)).any(axis=1)
    return inside


def _evaluator() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise ToolchainError(
            "average precision needs faster-coco-eval, which is not installed; pip install faster-coco-eval"
        ) from error
    return COCO, COCOeval_faster
