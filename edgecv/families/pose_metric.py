"""How good a pose network is: COCO's average precision over keypoints, correct keypoints, normalised mean error."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.figures import AccuracyFigures
from edgecv.core.protocols import Parts
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Poses
from edgecv.errors import DataError, ToolchainError
from edgecv.families.box_parts import IOU_THRESHOLDS
from edgecv.families.heads.common import Option, is_list, is_number, setting
from edgecv.families.pose_parts import ShareParts, oks_parts, similarity
from edgecv.families.pose_truth import COCO_KEYPOINTS, PoseTruth

__all__ = ["METRICS", "METRIC_OPTIONS", "KeypointMetric", "sigmas_of", "sizes_of"]

METRICS: tuple[str, ...] = ("oks_ap", "oks_ap50", "pck", "nme_auc")
_OKS = ("oks_ap", "oks_ap50")

COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip
"""How far apart people put COCO's keypoints, in square roots of the person's area."""

_SIZES = ("box", "keypoints", "area")
_QUIET = logging.getLogger("edgecv.families.pose").debug


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 < value <= 1


def _is_size(value: Any) -> bool:
    return value in _SIZES or is_list(value, lambda item: isinstance(item, int) and item >= 0, length=2)


METRIC_OPTIONS: Mapping[str, Option] = {
    "sigmas": Option(
        (), lambda value: is_list(value, lambda item: is_number(item) and item > 0), "a number a keypoint"
    ),
    "pck_share": Option(0.1, _is_share, "a number above 0, at most 1"),
    "pck_size": Option("box", _is_size, f"{', '.join(_SIZES)} or the numbers of two keypoints"),
    "nme_limit": Option(0.1, _is_share, "a number above 0, at most 1"),
}
"""``sigmas``: those of `oks_ap` (COCO's for 17 keypoints); ``pck_share`` and ``pck_size``: a keypoint is correct within
that share of that size: the longer side of the true box or of the one around the labelled keypoints, the square root of
the area, or the distance of two keypoints (of the eyes, of shoulder and hip, ...). ``nme_limit``: the mean error of a
face, in units of that size, from which it counts as failed."""


class KeypointMetric:
    """COCO's average precision over keypoints (``oks_ap``, ``oks_ap50``), the share of correct ones (``pck``), or how
    far faces lie below a mean error (``nme_auc``): the area under the curve of how many have an error up to e, for e
    from 0 to ``nme_limit``, divided by the limit (Sagonas et al., "300 Faces In-The-Wild Challenge", 2016). 1 is best.

    Pictures of single persons that were cut out are judged one by one: a pose that fits the neighbour is wrong there.
    """

    def __init__(self, spec: FamilySpec, name: str) -> None:
        if name in _OKS:
            _evaluator()  # fail before the work, not after
        self._spec, self._name = spec, name
        self._results: list[Poses] = []
        self._truths: list[PoseTruth] = []

    def update(self, result: Poses, truth: PoseTruth) -> None:
        """Count one picture.

        Raises:
            DataError: ``truth`` is no `PoseTruth`, or the numbers of keypoints differ.
        """
        if not isinstance(truth, PoseTruth):
            raise DataError(f"the truth of a picture is {type(truth).__name__}; pose needs data of kind coco-keypoints")
        if len(truth) and len(result) and truth.keypoints.shape[1] != result.keypoints.shape[1]:
            counts = truth.keypoints.shape[1], result.keypoints.shape[1]
            raise DataError(f"the truth has {counts[0]} keypoints, the model {counts[1]}")
        self._results.append(result)
        self._truths.append(truth)

    def compute(self) -> AccuracyFigures:
        """The metric, 0..1, over all pictures.

        ``per_sample``: of `oks_ap` the mean similarity of each picture's persons to the poses most like them, of `pck`
        and `nme_auc` each picture's share (all 1 where no person is labelled). ``extras``: pck, nme (mean distance of
        labelled keypoints in units of ``pck_size``; 1 where a person has no pose), nme_auc and nme_failures (the share
        of persons with an nme above ``nme_limit``) and, for `oks_ap`, oks_ap, oks_ap50, oks_ap75, oks_ar20 and
        oks_mean.

        Raises:
            DataError: there is no labelled person, or nobody knows the sigmas.
        """
        if not any((~truth.ignored).any() for truth in self._truths):
            raise DataError("there is no labelled person to judge by; give a set with keypoints")
        shares, errors = self._shares()
        faces = self._face_shares(errors)
        every = np.array([error for picture in errors for error in picture] or [0.0])
        figures = {
            "pck": float(shares.right.sum() / max(1, shares.total.sum())),
            "nme": float(every.mean()),
            "nme_auc": float(faces.right.sum() / max(1, faces.total.sum())),
            "nme_failures": float((every > self._limit).mean()),
        }
        own = faces if self._name == "nme_auc" else shares
        per_sample = np.where(own.total > 0, own.right / np.maximum(own.total, 1), 1.0)
        if self._name in _OKS:
            figures.update(self._coco())
            per_sample = np.array([self._likeness(*pair) for pair in zip(self._results, self._truths, strict=True)])
            figures["oks_mean"] = float(per_sample.mean())
        return AccuracyFigures(
            self._name,
            figures[self._name],
            len(self._truths),
            extras=figures,
            per_sample=tuple(float(value) for value in per_sample),
        )

    def parts(self) -> Parts:
        """What every picture brings to the metric, to compute it again with pictures counted any number of times."""
        if self._name not in _OKS:
            shares, errors = self._shares()
            return shares if self._name == "pck" else self._face_shares(errors)
        thresholds = IOU_THRESHOLDS[:1] if self._name == "oks_ap50" else IOU_THRESHOLDS
        return oks_parts(self._results, self._truths, self._sigmas(), thresholds=thresholds)

    def _sigmas(self) -> npt.NDArray[np.float64]:
        count = next(truth.keypoints.shape[1] for truth in self._truths if len(truth))
        return sigmas_of(self._spec, count)

    def _likeness(self, result: Poses, truth: PoseTruth) -> float:
        judged = ~truth.ignored
        if not judged.any():
            return 1.0
        if not len(result):
            return 0.0
        return float(similarity(result.keypoints, truth, self._sigmas())[:, judged].max(axis=0).mean())

    @property
    def _limit(self) -> float:
        return float(setting(METRIC_OPTIONS, self._spec, "nme_limit"))

    def _face_shares(self, errors: list[list[float]]) -> ShareParts:
        """How far the errors lie below the limit, as shares of it: their mean is the area under the curve."""
        below = [sum(max(0.0, 1 - error / self._limit) for error in picture) for picture in errors]
        return ShareParts(np.array(below, dtype=np.float64), np.array([float(len(picture)) for picture in errors]))

    def _shares(self) -> tuple[ShareParts, list[list[float]]]:
        """Correct and labelled keypoints of each picture, and the normalised mean errors of its persons."""
        share = float(setting(METRIC_OPTIONS, self._spec, "pck_share"))
        right: list[int] = []
        total: list[int] = []
        errors: list[list[float]] = []
        for result, truth in zip(self._results, self._truths, strict=True):
            picture_right = picture_total = 0
            errors.append([])
            sizes = sizes_of(truth, setting(METRIC_OPTIONS, self._spec, "pck_size"))
            for row in np.flatnonzero(~truth.ignored & (sizes > 0)):
                labelled = truth.labelled[row]
                picture_total += int(labelled.sum())
                if not len(result):
                    errors[-1].append(1.0)
                    continue
                away = result.keypoints[:, labelled, :2] - truth.keypoints[row, labelled, :2]
                distance = np.linalg.norm(away, axis=-1)
                best = distance[int(distance.mean(axis=1).argmin())]  # the pose nearest to the person
                picture_right += int((best <= share * sizes[row]).sum())
                errors[-1].append(float(best.mean() / sizes[row]))
            right.append(picture_right)
            total.append(picture_total)
        return ShareParts(np.array(right, dtype=np.float64), np.array(total, dtype=np.float64)), errors

    def _coco(self) -> dict[str, float]:
        coco, evaluator = _evaluator()
        sigmas, rows = self._sigmas(), self._result_rows()
        if not rows:
            return dict.fromkeys(("oks_ap", "oks_ap50", "oks_ap75", "oks_ar20"), 0.0)
        truth = coco(self._truth_tables(), print_function=_QUIET)
        judge = evaluator(
            truth, truth.loadRes(rows), "keypoints", print_function=_QUIET, kpt_oks_sigmas=sigmas.tolist()
        )
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        stats = [max(0.0, float(value)) for value in judge.stats]
        return {"oks_ap": stats[0], "oks_ap50": stats[1], "oks_ap75": stats[2], "oks_ar20": stats[5]}

    def _truth_tables(self) -> dict[str, Any]:
        notes: list[dict[str, Any]] = []
        for image, truth in enumerate(self._truths):
            for row, box in enumerate(truth.boxes.astype(float).tolist()):
                notes.append(
                    {
                        "id": len(notes) + 1,
                        "image_id": image + 1,
                        "category_id": 1,
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "area": float(truth.area[row]),
                        "iscrowd": int(truth.crowd[row]),
                        "ignore": int(truth.ignored[row]),
                        "keypoints": truth.keypoints[row].astype(float).ravel().tolist(),
                        "num_keypoints": int(truth.labelled[row].sum()),
                    }
                )
        return {
            "images": [{"id": image + 1} for image in range(len(self._truths))],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": notes,
        }

    def _result_rows(self) -> list[dict[str, Any]]:
        rows = []
        for image, result in enumerate(self._results):
            for points, score in zip(result.keypoints.astype(float), result.scores.tolist(), strict=True):
                rows.append(
                    {"image_id": image + 1, "category_id": 1, "keypoints": points.ravel().tolist(), "score": score}
                )
        return rows


def sigmas_of(spec: FamilySpec, count: int) -> npt.NDArray[np.float64]:
    """The sigmas of ``count`` keypoints: the option's, or COCO's for 17.

    Raises:
        DataError: there are not so many, or none for keypoints other than COCO's.
    """
    given = tuple(setting(METRIC_OPTIONS, spec, "sigmas"))
    if not given and count == len(COCO_KEYPOINTS):
        given = COCO_SIGMAS
    if len(given) != count:
        raise DataError(
            f"option sigmas has {len(given)} numbers for {count} keypoints; the similarity needs one for each. Set "
            "family.options.sigmas, or judge by pck"
        )
    return np.array(given, dtype=np.float64)


def sizes_of(truth: PoseTruth, rule: Any) -> npt.NDArray[np.float64]:
    """How large each true person is, `(N,)` in pixels, as the option ``pck_size`` says; 0 where that cannot be told.

    Raises:
        DataError: one of two named keypoints does not exist.
    """
    if rule == "box":
        return np.asarray((truth.boxes[:, 2:] - truth.boxes[:, :2]).max(axis=1, initial=0.0), dtype=np.float64)
    if rule == "area":
        return np.sqrt(truth.area.astype(np.float64))
    if rule != "keypoints":
        one, other = (int(number) for number in rule)
        if max(one, other) >= truth.keypoints.shape[1] and len(truth):
            raise DataError(f"pck_size is {[one, other]}; there are {truth.keypoints.shape[1]} keypoints, from 0")
        both = truth.labelled[:, one] & truth.labelled[:, other]
        distance = np.linalg.norm(truth.keypoints[:, one, :2] - truth.keypoints[:, other, :2], axis=-1)
        spans: npt.NDArray[np.float64] = np.asarray(distance * both, dtype=np.float64)
        return spans
    return extents(truth.keypoints)


def extents(keypoints: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The longer side of the box around each pose's keypoints with a third value above 0, at least 1: `(N,)`."""
    seen = keypoints[..., 2:3] > 0
    low = np.where(seen, keypoints[..., :2], np.inf).min(axis=1, initial=np.inf)
    high = np.where(seen, keypoints[..., :2], -np.inf).max(axis=1, initial=-np.inf)
    sides: npt.NDArray[np.float64] = np.nan_to_num((high - low).max(axis=1), neginf=0.0, posinf=0.0)
    return np.maximum(sides, 1.0)


def _evaluator() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise ToolchainError(
            "oks_ap needs faster-coco-eval, which is not installed; pip install faster-coco-eval"
        ) from error
    return COCO, COCOeval_faster
