"""Pose: keypoints of one person in a crop, or of all persons of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.figures import AccuracyFigures
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Poses
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families.graph_heads import output_layers
from edgecv.vision.boxes import nms, to_corners, top_k
from edgecv.vision.image import geometry

KIND = "pose"
METRICS: tuple[str, ...] = ("pck",)

COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
COCO_SKELETON = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12),
    (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
_PCK_SHARE = 0.1

Points = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """One layout of outputs: ``count`` tells how many keypoints outputs of these shapes have (None: they do not fit),
    ``decode`` gives keypoints `(N, K, 3)` in network pixels, scores `(N,)` and boxes `(N, 4)` or None.
    """

    what: str
    count: Callable[[Sequence[tuple[int, ...]], InputContract], int | None]
    decode: Callable[[Sequence[FloatArray], FamilySpec, InputContract], tuple[Points, FloatArray, FloatArray | None]]


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why outputs of this shape are no keypoints of ``spec.head``, in words; empty when they are."""
    if spec.head not in HEADS:
        return [f"family pose needs a head; {spec.head!r} is none. Allowed: {', '.join(HEADS)}"]
    if spec.options:
        return [f"head {spec.head} has no option {sorted(spec.options)[0]!r}; it takes none"]
    shapes = [output.shape for output in outputs]
    found = HEADS[spec.head].count(shapes, _ANY)
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
    if head is None or head.count([output.shape for output in outputs], contract) is None:
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
    """Whether both see as many poses, with nearly all sure keypoints within a tenth of the pose's size."""
    if len(one) != len(other):
        return False
    if not len(one):
        return True
    sure = (one.keypoints[..., 2] > 0.3) & (other.keypoints[..., 2] > 0.3)
    if not sure.any():
        return True
    distance = np.linalg.norm(one.keypoints[..., :2] - other.keypoints[..., :2], axis=-1)
    return bool((distance <= _PCK_SHARE * _sizes(one.keypoints)[:, np.newaxis])[sure].mean() >= 0.9)


def metric(spec: FamilySpec, name: str) -> "CorrectKeypoints":
    """Counts right keypoints.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"pose has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return CorrectKeypoints()


class CorrectKeypoints:
    """PCK: the share of labelled keypoints within a tenth of the person's size (Yang and Ramanan, PAMI 2013)."""

    def __init__(self) -> None:
        self._right: list[float] = []

    def update(self, result: Poses, truth: Any) -> None:
        """Count one picture; ``truth`` is `Poses` with score 0 where a keypoint is not labelled.

        Each true person is held against the pose nearest to it.

        Raises:
            DataError: the numbers of keypoints differ.
        """
        if len(truth) and len(result) and truth.keypoints.shape[1] != result.keypoints.shape[1]:
            counts = truth.keypoints.shape[1], result.keypoints.shape[1]
            raise DataError(f"the truth has {counts[0]} keypoints, the model {counts[1]}")
        for person, size in zip(truth.keypoints, _sizes(truth.keypoints), strict=True):
            labelled = person[:, 2] > 0
            if not labelled.any():
                continue
            if not len(result):
                self._right.append(0.0)
                continue
            distance = np.linalg.norm(result.keypoints[:, labelled, :2] - person[labelled, :2], axis=-1)
            best = distance[int(distance.mean(axis=1).argmin())]
            self._right.append(float((best <= _PCK_SHARE * size).mean()))

    def compute(self) -> AccuracyFigures:
        """The mean share over all persons; ``per_sample`` is each person's.

        Raises:
            DataError: there was no labelled person.
        """
        if not self._right:
            raise DataError("there is no labelled person to compute PCK from; give a set with keypoints")
        return AccuracyFigures("pck", float(np.mean(self._right)), len(self._right), per_sample=tuple(self._right))


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """Not there yet.

    Raises:
        ModelError: always.
    """
    raise ModelError("edgecv cannot train pose models yet; take the steps prune and qat out of the recipe, ptq works")


def protected(module: Any) -> list[str]:
    """Names of the layers of a torch ``module`` that make the keypoints.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind=KIND)


def _sizes(keypoints: Points) -> FloatArray:
    """The larger side of the box around each pose's keypoints, at least 1: `(N,)`."""
    seen = keypoints[..., 2:3] > 0
    low = np.where(seen, keypoints[..., :2], np.inf).min(axis=1)
    high = np.where(seen, keypoints[..., :2], -np.inf).max(axis=1)
    sizes: FloatArray = np.maximum(np.nan_to_num((high - low).max(axis=1), neginf=0.0, posinf=0.0), 1.0)
    return sizes.astype(np.float32)


def _movenet_count(shapes: Sequence[tuple[int, ...]], contract: InputContract) -> int | None:
    fits = len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][:2] == (1, 1) and shapes[0][3] == 3
    return shapes[0][2] if fits else None


def _movenet(
    outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract
) -> tuple[Points, FloatArray, FloatArray | None]:
    height, width = contract.size
    values = outputs[0].reshape(1, -1, 3)
    points = np.stack([values[..., 1] * width, values[..., 0] * height, values[..., 2]], axis=-1).astype(np.float32)
    return points, points[..., 2].mean(axis=1), None


def _heatmap_count(shapes: Sequence[tuple[int, ...]], contract: InputContract) -> int | None:
    fits = len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][0] == 1 and min(shapes[0][1:]) >= 2
    return None if not fits else min(shapes[0][1], shapes[0][3])


def _heatmap(
    outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract
) -> tuple[Points, FloatArray, FloatArray | None]:
    """The highest cell, moved a quarter cell towards its higher neighbour (Xiao et al., arXiv:1804.06208)."""
    maps = outputs[0][0]
    if maps.shape[0] > maps.shape[2]:  # channels last
        maps = np.ascontiguousarray(maps.transpose(2, 0, 1))
    count, rows, columns = maps.shape
    best = maps.reshape(count, -1).argmax(axis=1)
    y, x = np.divmod(best, columns)
    number = np.arange(count)
    inside = (x > 0) & (x < columns - 1) & (y > 0) & (y < rows - 1)
    left, right = maps[number, y, np.maximum(x - 1, 0)], maps[number, y, np.minimum(x + 1, columns - 1)]
    up, down = maps[number, np.maximum(y - 1, 0), x], maps[number, np.minimum(y + 1, rows - 1), x]
    shift_x, shift_y = 0.25 * np.sign(right - left) * inside, 0.25 * np.sign(down - up) * inside
    scale_x, scale_y = contract.size[1] / columns, contract.size[0] / rows
    # Cell i covers [i, i + 1) cells: its value stands at its centre.
    points = np.stack([(x + 0.5 + shift_x) * scale_x, (y + 0.5 + shift_y) * scale_y, maps[number, y, x]], axis=-1)
    found = points[np.newaxis].astype(np.float32)
    found[..., 2] = np.clip(found[..., 2], 0.0, 1.0)
    return found, found[..., 2].mean(axis=1), None


def _simcc_count(shapes: Sequence[tuple[int, ...]], contract: InputContract) -> int | None:
    fits = len(shapes) == 2 and all(len(shape) == 3 and shape[0] == 1 for shape in shapes)
    return shapes[0][1] if fits and shapes[0][1] == shapes[1][1] else None


def _simcc(
    outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract
) -> tuple[Points, FloatArray, FloatArray | None]:
    """One vector an axis, several bins a pixel (Li et al., arXiv:2107.03332); the x output comes first."""
    across, down = outputs[0][0], outputs[1][0]
    x, y = across.argmax(axis=1), down.argmax(axis=1)
    score = np.minimum(across.max(axis=1), down.max(axis=1))
    width, height = contract.size[1], contract.size[0]
    points = np.stack([x * width / across.shape[1], y * height / down.shape[1], np.clip(score, 0.0, 1.0)], axis=-1)
    found = points[np.newaxis].astype(np.float32)
    return found, found[..., 2].mean(axis=1), None


def _yolo_count(shapes: Sequence[tuple[int, ...]], contract: InputContract) -> int | None:
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != 1:
        return None
    width = min(shapes[0][1:])
    return (width - 5) // 3 if width > 5 and (width - 5) % 3 == 0 else None


def _yolo(
    outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract
) -> tuple[Points, FloatArray, FloatArray | None]:
    """``(1, 5 + 3K, N)`` or turned: box as centre and size, score, then x, y, score of each keypoint, in pixels."""
    table = outputs[0][0]
    if table.shape[0] < table.shape[1]:
        table = table.T
    rows = np.flatnonzero(table[:, 4] >= spec.score_threshold)
    rows = rows[top_k(table[rows, 4], 3000)]
    boxes, scores = to_corners(table[rows, :4]), table[rows, 4]
    kept = nms(boxes, scores, iou_threshold=spec.iou_threshold, max_detections=spec.max_detections)
    points = table[rows[kept], 5:].reshape(len(kept), -1, 3).astype(np.float32)
    return points, scores[kept], boxes[kept]


_ANY = InputContract(size=(1, 1))
HEADS: dict[str, Head] = {
    "movenet": Head("one output (1, 1, K, 3): y, x, score, 0..1", _movenet_count, _movenet),
    "heatmap": Head("one output (1, K, h, w) or (1, h, w, K): a map a keypoint", _heatmap_count, _heatmap),
    "simcc": Head("two outputs (1, K, x bins) and (1, K, y bins)", _simcc_count, _simcc),
    "yolo-pose": Head("one output (1, 5 + 3K, N): boxes, scores, keypoints", _yolo_count, _yolo),
}
"""By name; a new layout is one row."""

HEAD_NAMES: tuple[str, ...] = tuple(HEADS)
