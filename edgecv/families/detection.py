"""Object detection: boxes with classes and scores. How the outputs are read is the head's (`FamilySpec.head`)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families.detection_loss import detection_loss, trains
from edgecv.families.detection_metric import METRICS, AveragePrecision, matches
from edgecv.families.graph_heads import output_layers
from edgecv.families.heads import HEADS
from edgecv.families.heads.common import Candidates, Head, Ints, Option, flag, is_number, option_problems
from edgecv.vision.boxes import nms, soft_nms, top_k
from edgecv.vision.image import Geometry, geometry

__all__ = [
    "HEAD_NAMES",
    "KIND",
    "METRICS",
    "agree",
    "decode",
    "loss",
    "metric",
    "problems",
    "protected",
    "sorts_rows",
    "trains",
]

KIND = "detection"
HEAD_NAMES: tuple[str, ...] = tuple(HEADS)

MAX_CANDIDATES = 30_000
"""Of more objects above the score threshold only the best go on to non-maximum suppression."""

SUPPRESSION: Mapping[str, Option] = {
    "agnostic": flag(False),
    "soft": flag(False),
    "soft_sigma": Option(0.5, lambda value: is_number(value) and value > 0, "a number above 0"),
}


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why the head, its options or outputs of these shapes do not fit, in words; empty when all do.

    Options that every head with non-maximum suppression takes: ``agnostic`` (boxes of all classes compete),
    ``soft`` (Soft-NMS) and ``soft_sigma``.
    """
    if spec.head not in HEADS:
        near = difflib.get_close_matches(spec.head, HEADS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return [f"family.head is {spec.head!r}; allowed for detection: {', '.join(HEADS)}.{hint}"]
    head = HEADS[spec.head]
    return option_problems(_options(head), spec) or head.problems(spec, [output.shape for output in outputs])


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> Detections:
    """Raw outputs of one picture -> its objects, best first, at most ``spec.max_detections``.

    Boxes (and keypoints, where the head has them) are pixels of a picture of (height, width) ``picture``,
    cut at its edges; None for the size of the network input. Boxes of which nothing is left are dropped.

    Raises:
        ModelError: the outputs do not fit the head, or scores are NaN.
    """
    if spec.head not in HEADS:
        raise ModelError(f"family.head is {spec.head!r}; allowed for detection: {', '.join(HEADS)}")
    head = HEADS[spec.head]
    # A wild network may give anything; what is not finite is dropped below.
    with np.errstate(over="ignore", invalid="ignore"):
        found = head.decode(outputs, spec, contract)
        rows, scores = kept(found, spec, suppress=head.suppress)
        return _placed(found, rows, scores, spec, contract, picture)


def agree(one: Detections, other: Detections) -> bool:
    """Whether at least 90 % of the objects of both have a partner: the same class, IoU of at least 0.5.

    With fewer than ten objects in each that is all of them.
    """
    total = len(one) + len(other)
    if total == 0:
        return True
    partners = matches(one.boxes, one.class_ids, other.boxes, other.class_ids)
    return 2 * int((partners >= 0).sum()) >= 0.9 * total


def metric(spec: FamilySpec, name: str) -> AveragePrecision:
    """Average precision as COCO defines it; ``name`` is one of `METRICS`. Truths are `core.results.DetectionTruth`.

    Raises:
        UsageError: there is no such metric.
        ToolchainError: faster-coco-eval is not installed.
    """
    if name not in METRICS:
        raise UsageError(f"detection has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return AveragePrecision(spec, name)


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """The loss of the heads that learn from labels, a scalar tensor (`edgecv.families.detection_loss`).

    ``outputs`` are torch tensors, batch first; ``truths`` one `DetectionTruth` for each picture, in pixels of the
    network's input. ``label_smoothing`` does not matter: scores are trained towards how well a box fits.

    Raises:
        ModelError: the head has no loss.
        DataError: the truths do not fit.
    """
    return detection_loss(outputs, truths, spec)


def sorts_rows(spec: FamilySpec) -> bool:
    """Whether the network itself picks and orders what it found, best first."""
    return spec.head in HEADS and HEADS[spec.head].ranked


def protected(module: Any) -> list[str]:
    """Names of the Linear and Conv2d submodules of a torch ``module`` that make its boxes and scores.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind="boxes")


def _options(head: Head) -> dict[str, Option]:
    return {**head.options, **SUPPRESSION} if head.suppress else dict(head.options)


def kept(found: Candidates, spec: FamilySpec, *, suppress: bool = True) -> tuple[Ints, FloatArray]:
    """Rows of the candidates that stay, best first, with their scores; ``suppress``: behind non-maximum suppression."""
    if not suppress:
        rows = top_k(found.scores, spec.max_detections)
        return rows, found.scores[rows]
    few = top_k(found.scores, MAX_CANDIDATES) if len(found.scores) > MAX_CANDIDATES else None
    boxes, scores, classes = found.boxes, found.scores, found.class_ids
    if few is not None:
        boxes, scores, classes = boxes[few], scores[few], classes[few]
    separate = None if spec.options.get("agnostic", False) or len(spec.labels) == 1 else classes
    if spec.options.get("soft", False):
        rows, values = soft_nms(
            boxes,
            scores,
            sigma=spec.options.get("soft_sigma", SUPPRESSION["soft_sigma"].default),
            class_ids=separate,
            score_threshold=spec.score_threshold,
            max_detections=spec.max_detections,
        )
    else:
        rows = nms(
            boxes, scores, iou_threshold=spec.iou_threshold, class_ids=separate, max_detections=spec.max_detections
        )
        values = scores[rows]
    return rows if few is None else few[rows], values


def _placed(
    found: Candidates,
    rows: Ints,
    scores: FloatArray,
    spec: FamilySpec,
    contract: InputContract,
    picture: tuple[int, int] | None,
) -> Detections:
    """The chosen candidates in pixels of the picture."""
    if len(rows) == 0:
        empty = Detections.empty(spec.labels)
        if found.keypoints is None:
            return empty
        none = np.zeros((0, *found.keypoints.shape[1:]), dtype=np.float32)
        return replace(empty, keypoints=none, skeleton=spec.skeleton)
    shape = picture or contract.size
    place = Geometry(shape, shape, shape, (0, 0)) if picture is None else geometry(picture, contract)
    boxes = place.boxes_to_picture(found.boxes[rows]).astype(np.float32)
    keypoints = None
    if found.keypoints is not None:
        keypoints = found.keypoints[rows].copy()
        keypoints[:, :, :2] = place.to_picture(keypoints[:, :, :2]).clip(0, (shape[1], shape[0]))
    result = Detections(boxes, scores, found.class_ids[rows], spec.labels, keypoints=keypoints, skeleton=spec.skeleton)
    whole = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # false where NaN
    return result if whole.all() else result.select(np.flatnonzero(whole))
