"""Pose: keypoints of one person (hand, face, ...) in a crop, or of all persons of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Poses
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families.graph_heads import output_layers
from edgecv.families.heads.common import option_problems
from edgecv.families.pose_heads import HEADS
from edgecv.families.pose_loss import pose_loss, trains
from edgecv.families.pose_metric import METRIC_OPTIONS, METRICS, KeypointMetric, extents
from edgecv.families.pose_truth import COCO_KEYPOINTS
from edgecv.vision.image import geometry

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

KIND = "pose"
HEAD_NAMES: tuple[str, ...] = tuple(HEADS)

COCO_SKELETON = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12),
    (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
_NEAR_SHARE = 0.1
_SURE_SCORE = 0.3
_NEARLY_ALL = 0.9


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why the head, its options or outputs of these shapes do not fit, in words; empty when all do.

    Options of all heads are those of the metrics (`edgecv.families.pose_metric.METRIC_OPTIONS`); the heads' own stand
    in `edgecv.families.pose_heads`.
    """
    if spec.head not in HEADS:
        return [f"family pose needs a head; {spec.head!r} is none. Allowed: {', '.join(HEADS)}"]
    wrong = option_problems({**METRIC_OPTIONS, **HEADS[spec.head].options}, spec)
    if wrong:
        return wrong
    shapes = [output.shape for output in outputs]
    found = HEADS[spec.head].count(shapes, spec)
    if found is None:
        return [f"the outputs have shapes {shapes}; head {spec.head} needs {HEADS[spec.head].what}"]
    if spec.keypoints and len(spec.keypoints) != found:
        return [f"the outputs hold {found} keypoints, family.keypoints names {len(spec.keypoints)}; name each one"]
    return []


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> Poses:
    """Keypoints in pixels of a picture of (height, width) ``picture``, or of the network input's size.

    Raises:
        ModelError: the outputs do not fit the head, or hold NaN.
    """
    head = HEADS.get(spec.head)
    if head is None or head.count([output.shape for output in outputs], spec) is None:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise ModelError(f"the model gave outputs of shape {shapes}; head {spec.head!r} does not fit them")
    if any(bool(np.isnan(output).any()) for output in outputs):
        raise ModelError("the model gave NaN: a layer overflows. Check the normalisation and the weights.")
    points, scores, boxes = head.decode(outputs, spec, contract)
    place = geometry(picture or contract.size, contract)
    points[..., :2] = place.to_picture(points[..., :2])
    if boxes is not None:
        boxes = place.boxes_to_picture(boxes).astype(np.float32)
    count = points.shape[1]
    coco = count == len(COCO_KEYPOINTS)
    names = spec.keypoints or (COCO_KEYPOINTS if coco else tuple(str(index) for index in range(count)))
    skeleton = spec.skeleton or (COCO_SKELETON if coco else ())
    return Poses(points, scores.astype(np.float32), boxes, names, skeleton)


def agree(one: Poses, other: Poses) -> bool:
    """Whether at least 90 % of the poses of both have a partner, in whatever order they stand.

    Partners have nearly all keypoints that both are sure of within a tenth of the pose's size. With fewer than ten
    poses in each, all need one.
    """
    total = len(one) + len(other)
    if total == 0:
        return True
    away = np.linalg.norm(one.keypoints[:, None, :, :2] - other.keypoints[None, :, :, :2], axis=-1)
    sure = (one.keypoints[:, None, :, 2] > _SURE_SCORE) & (other.keypoints[None, :, :, 2] > _SURE_SCORE)
    near = (away <= _NEAR_SHARE * extents(one.keypoints)[:, None, None]) & sure
    count = sure.sum(axis=-1)
    cost = np.where(near.sum(axis=-1) >= _NEARLY_ALL * count, (away * sure).sum(axis=-1) / np.maximum(count, 1), np.inf)
    partners = 0
    while cost.size and np.isfinite(cost).any():
        row, column = np.unravel_index(int(cost.argmin()), cost.shape)
        cost[row], cost[:, column] = np.inf, np.inf
        partners += 1
    return 2 * partners >= _NEARLY_ALL * total


def metric(spec: FamilySpec, name: str) -> KeypointMetric:
    """Counts poses; ``name`` is one of `METRICS`, truths are `edgecv.families.pose_truth.PoseTruth`.

    Raises:
        UsageError: there is no such metric.
        ToolchainError: `oks_ap` is wanted and faster-coco-eval is not installed.
    """
    if name not in METRICS:
        raise UsageError(f"pose has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return KeypointMetric(spec, name)


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """The loss of the heads heatmap, simcc, regression and yolo-pose, a scalar tensor (`edgecv.families.pose_loss`).

    ``outputs`` are torch tensors, batch first; ``truths`` one `PoseTruth` for each picture, in pixels of the network's
    input. ``label_smoothing`` does not matter: labels are smooth by the option ``sigma``.

    Raises:
        ModelError: the head has no loss.
        DataError: the truths do not fit.
    """
    return pose_loss(outputs, truths, spec)


def sorts_rows(spec: FamilySpec) -> bool:
    """Whether the network itself picks and orders what it found, best first."""
    return spec.head == "rois"


def protected(module: Any) -> list[str]:
    """Names of the layers of a torch ``module`` that make the keypoints.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind=KIND)
