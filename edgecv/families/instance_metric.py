"""How good masks of objects are: COCO's average precision by the overlap of masks, and whether two results match."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.figures import AccuracyFigures
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections
from edgecv.errors import DataError, ToolchainError
from edgecv.families.box_parts import IOU_THRESHOLDS, Crowd, Floats, Ints, object_parts
from edgecv.families.detection_metric import SURE_SCORE
from edgecv.families.instance_truth import InstanceTruth, mask_codec, result_rles
from edgecv.families.ranked import RankedParts
from edgecv.vision.boxes import iou

METRICS: tuple[str, ...] = ("mask_ap", "mask_ap50")

_QUIET = logging.getLogger("edgecv.families.instance").debug
_NAMES = ("mask_ap", "mask_ap50", "mask_ap75", "mask_ar100")


def partners_of(one: Detections, other: Detections, *, min_iou: float = 0.5) -> npt.NDArray[np.int64]:
    """For each object of ``one``, in order, the row of its partner in ``other``, or -1; `(N,)`.

    The partner is the object of the same class whose mask overlaps most, with an IoU of at least ``min_iou``, and that
    is still free. Two empty masks are held against each other by their boxes. Both are of pictures of one size.
    """
    partners = np.full(len(one), -1, dtype=np.int64)
    free = set(range(len(other)))
    for row in range(len(one)):
        like = [place for place in free if other.class_ids[place] == one.class_ids[row]]
        shares = {place: _alike(one, row, other, place) for place in like}
        best = max(shares, key=lambda place: (shares[place], -place), default=None)
        if best is not None and shares[best] >= min_iou:
            partners[row] = best
            free.remove(best)
    return partners


def _alike(one: Detections, row: int, other: Detections, place: int) -> float:
    if one.masks[row].width or other.masks[place].width:
        return one.masks[row].iou(other.masks[place])
    return float(iou(one.boxes[row : row + 1], other.boxes[place : place + 1])[0, 0])


class MaskPrecision:
    """COCO's average precision by masks (T.-Y. Lin et al., 2014): ``mask_ap`` over IoU 0.50:0.95, ``mask_ap50`` at 0.5.

    It counts all objects of a picture, up to 100 of each class: for a figure to compare with published ones, set the
    score threshold to 0.01 or less.
    """

    def __init__(self, spec: FamilySpec, name: str) -> None:
        _evaluator()  # fail before the work, not after
        self._labels, self._name = spec.labels, name
        self._truths: list[InstanceTruth] = []
        self._results: list[_Scored] = []
        self._shares: list[float] = []

    def update(self, result: Detections, truth: InstanceTruth) -> None:
        """Count one picture.

        Raises:
            DataError: ``truth`` is no `InstanceTruth`, is of another size than the picture, or has a class without a
                label; or the result has no masks.
        """
        if not isinstance(truth, InstanceTruth):
            raise DataError(f"the truth of a picture is {type(truth).__name__}; instance needs an InstanceTruth")
        wrong = truth.class_ids[(truth.class_ids < 0) | (truth.class_ids >= len(self._labels))]
        if wrong.size:
            raise DataError(f"a true class is {wrong[0]}; allowed are 0..{len(self._labels) - 1}, one per label")
        if len(result.masks) != len(result):
            raise DataError(f"{len(result)} objects were found with {len(result.masks)} masks; each needs one")
        if result.masks and result.masks[0].picture != truth.size:
            raise DataError(
                f"the true masks are of a picture of {truth.size[1]} x {truth.size[0]} pixels, the picture has "
                f"{result.masks[0].picture[1]} x {result.masks[0].picture[0]}; correct the annotations' sizes"
            )
        scored = _Scored(result.scores, result.class_ids, result_rles(result.masks))
        self._truths.append(truth)
        self._results.append(scored)
        self._shares.append(_f1(scored, truth))

    def compute(self) -> AccuracyFigures:
        """The metric (0..1; 0 where nothing is there to be found).

        ``per_sample`` holds each picture's F1 at a mask IoU of 0.5 of the objects with a score of at least
        `edgecv.families.detection_metric.SURE_SCORE` (1 where nothing is there and nothing was found): average
        precision itself has no value for one picture. ``extras``: mask_ap, mask_ap50, mask_ap75, mask_ar100, and f1,
        the mean of ``per_sample``.

        Raises:
            DataError: there was no picture.
        """
        if not self._truths:
            raise DataError("there is no picture to compute a precision from; give an evaluation set of at least one")
        figures = self._coco() | {"f1": float(np.mean(self._shares))}
        return AccuracyFigures(
            metric=self._name,
            value=figures[self._name],
            samples=len(self._shares),
            extras=figures,
            per_sample=tuple(self._shares),
        )

    def parts(self) -> RankedParts:
        """What every picture brings to the metric, to compute it again with pictures counted any number of times."""
        thresholds = IOU_THRESHOLDS[:1] if self._name == "mask_ap50" else IOU_THRESHOLDS

        def overlaps(picture: int, found: Ints, true: Ints, crowd: Crowd) -> Floats:
            return _overlaps(self._results[picture], found, self._truths[picture], true, crowd)

        return object_parts(self._results, self._truths, overlaps, thresholds=thresholds)

    def _coco(self) -> dict[str, float]:
        coco, evaluator = _evaluator()
        if not any(len(truth) for truth in self._truths):
            return dict.fromkeys(_NAMES, 0.0)
        truth = coco(self._truth_tables(), print_function=_QUIET)
        rows = [
            {"image_id": image + 1, "category_id": int(index) + 1, "segmentation": code, "score": float(score)}
            for image, result in enumerate(self._results)
            for score, index, code in zip(result.scores, result.class_ids, result.codes, strict=True)
        ]
        if not rows:
            return dict.fromkeys(_NAMES, 0.0)
        judge = evaluator(truth, truth.loadRes(rows), "segm", print_function=_QUIET)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        stats = [max(0.0, float(value)) for value in judge.stats]
        return dict(zip(_NAMES, (stats[0], stats[1], stats[2], stats[8]), strict=True))

    def _truth_tables(self) -> dict[str, Any]:
        notes: list[dict[str, Any]] = []
        for image, truth in enumerate(self._truths):
            for row, code in enumerate(truth.rles()):
                box = truth.boxes[row].astype(float).tolist()
                notes.append(
                    {
                        "id": len(notes) + 1,
                        "image_id": image + 1,
                        "category_id": int(truth.class_ids[row]) + 1,
                        "segmentation": code,
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "area": float(truth.area[row]),
                        "iscrowd": int(truth.crowd[row]),
                    }
                )
        sizes = [truth.size for truth in self._truths]
        return {
            "images": [{"id": image + 1, "height": size[0], "width": size[1]} for image, size in enumerate(sizes)],
            "categories": [{"id": index + 1, "name": label} for index, label in enumerate(self._labels)],
            "annotations": notes,
        }


class _Scored:
    """What was found in one picture, masks as run-length codes."""

    def __init__(self, scores: npt.NDArray[np.float32], class_ids: Ints, codes: list[dict[str, Any]]) -> None:
        self.scores, self.class_ids, self.codes = scores, class_ids, codes


def _overlaps(result: _Scored, found: Ints, truth: InstanceTruth, true: Ints, crowd: Crowd) -> Floats:
    """IoU `(D, G)` of masks; of a crowd the share of what was found that lies on it."""
    if not len(found) or not len(true):
        return np.zeros((len(found), len(true)))
    codes = truth.rles()
    wanted = [codes[int(row)] for row in true]
    shares = mask_codec().iou([result.codes[int(row)] for row in found], wanted, [int(many) for many in crowd])
    return np.asarray(shares, dtype=np.float64).reshape(len(found), len(true))


def _f1(result: _Scored, truth: InstanceTruth) -> float:
    """Harmonic mean of precision and recall of one picture; what lies on a crowd is not held against it."""
    hits = spare = 0
    sure = np.flatnonzero(result.scores >= SURE_SCORE)
    for index in np.unique(result.class_ids[sure]):
        found = sure[result.class_ids[sure] == index]
        true = np.flatnonzero(truth.class_ids == index)
        shares = _overlaps(result, found, truth, true, truth.crowd[true])
        many = truth.crowd[true]
        free = ~many
        for row in shares[np.argsort(-result.scores[found], kind="stable")]:
            mine = np.where(free, row, 0.0)
            if mine.size and mine.max() >= 0.5:
                free[mine.argmax()] = False
                hits += 1
            elif not (row[many] >= 0.5).any():
                spare += 1
    total = hits + spare + int((~truth.crowd).sum())
    return 2 * hits / total if total else 1.0


def _evaluator() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise ToolchainError(
            "average precision needs faster-coco-eval, which is not installed; pip install faster-coco-eval"
        ) from error
    return COCO, COCOeval_faster
