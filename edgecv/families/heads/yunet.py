"""YuNet: faces with five landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.heads.common import (
    STRIDES,
    Candidates,
    Head,
    Shape,
    check_scores,
    growth,
    pick,
    points,
    setting,
)
from edgecv.vision.boxes import to_corners

OPTIONS = {"strides": STRIDES}
_LANDMARKS = 5


def _keypoints(spec: FamilySpec) -> int:
    return len(spec.keypoints) or _LANDMARKS


def _problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    strides = setting(OPTIONS, spec, "strides")
    found = sorted(shape[-1] for shape in shapes if len(shape) == 3 and shape[0] == 1)
    wanted = sorted([len(spec.labels), 1, 4, 2 * _keypoints(spec)] * len(strides))
    if found == wanted and len(found) == len(shapes):
        return []
    return [
        f"the model has outputs of shape {list(shapes)}; head 'yunet' needs four for each of the strides "
        f"{list(strides)}: classes (1, N, {len(spec.labels)}), objectness (1, N, 1), boxes (1, N, 4) and keypoints "
        f"(1, N, {2 * _keypoints(spec)})"
    ]


def _four(outputs: Sequence[FloatArray], rows: int, spec: FamilySpec) -> list[FloatArray]:
    """Classes, objectness, boxes and keypoints of one stride, `(rows, ...)` each; alike ones in the order given."""
    widths = [len(spec.labels), 1, 4, 2 * _keypoints(spec)]
    found = []
    for place, width in enumerate(widths):
        fitting = [output for output in outputs if output.shape == (1, rows, width)]
        nth = widths[:place].count(width)
        if len(fitting) <= nth:
            raise ModelError(
                f"the model gave outputs of shape {[output.shape for output in outputs]}; one more of "
                f"(1, {rows}, {width}) is needed. Check the contract's size, the labels, the keypoints and the option "
                "'strides' of the head."
            )
        found.append(fitting[nth][0])
    return found


def _decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    """Outputs are told apart by their shapes: the stride by the number of cells, the meaning by the width.

    With one label classes and objectness look alike; the score is the root of their product, so
    they may change places.
    """
    parts = [_stride(outputs, stride, spec, contract) for stride in setting(OPTIONS, spec, "strides")]
    scores = np.concatenate([part.scores for part in parts])
    return Candidates(
        np.concatenate([part.boxes for part in parts]),
        scores,
        np.concatenate([part.class_ids for part in parts]),
        np.concatenate([part.keypoints for part in parts if part.keypoints is not None]),
    )


def _stride(outputs: Sequence[FloatArray], stride: int, spec: FamilySpec, contract: InputContract) -> Candidates:
    cells = points(contract.size, (stride,))
    classes, objectness, boxes, keypoints = _four(outputs, len(cells), spec)
    check_scores(objectness)
    # The root of a product of shares is at least the threshold only where each is at least its square.
    hopeful = np.flatnonzero(objectness[:, 0] >= spec.score_threshold**2)
    product = classes[hopeful].clip(0, 1) * objectness[hopeful].clip(0, 1)
    inner, ids, scores = pick(np.sqrt(product), spec.score_threshold)
    rows = hopeful[inner]
    box, corner = boxes[rows], cells[rows, :2]
    placed = np.concatenate([(box[:, :2] + corner) * stride, growth(box[:, 2:]) * stride], axis=1)
    count = _keypoints(spec)
    shifts = keypoints[rows].reshape(-1, count, 2)
    landmarks = np.empty((len(rows), count, 3), dtype=np.float32)
    landmarks[:, :, :2] = (shifts + corner[:, np.newaxis]) * stride
    landmarks[:, :, 2] = scores[:, np.newaxis]
    return Candidates(to_corners(placed), scores, ids, landmarks)


HEADS = {
    "yunet": Head(
        "YuNet face detector: classes, objectness, boxes and landmarks for each stride", _problems, _decode, OPTIONS
    )
}
