"""Detectors with two outputs, scores and finished boxes: the Ultra-Light face detector and DETR."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.heads.common import (
    MULTI_LABEL,
    Candidates,
    Head,
    Shape,
    has_width,
    logit,
    pick,
    rows_of,
    setting,
    sigmoid,
    softmax,
    to_pixels,
)
from edgecv.vision.boxes import to_corners


def pair_of(outputs: Sequence[FloatArray], columns: int, *, boxes_first: bool) -> tuple[FloatArray, FloatArray]:
    """Rows of boxes `(N, 4)` and of scores `(N, columns)`, told apart by their width, else by the order."""
    if len(outputs) != 2:
        raise ModelError(f"the model gave {len(outputs)} outputs; boxes and scores are needed")
    one, other = outputs
    swap = not boxes_first
    if columns != 4:
        swap = not (has_width(one.shape, 4) and has_width(other.shape, columns))
    boxes, scores = (other, one) if swap else (one, other)
    rows, values = rows_of(boxes, 4), rows_of(scores, columns)
    if len(rows) != len(values):
        raise ModelError(
            f"the model gave {len(rows)} boxes and {len(values)} rows of scores; they must be equally many"
        )
    return rows, values


ULTRAFACE_OPTIONS = {"multi_label": MULTI_LABEL}

# --- ultraface


def _ultraface_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    columns = len(spec.labels) + 1
    if len(shapes) == 2 and any(
        has_width(one, 4) and has_width(other, columns) and math.prod(one) * columns == math.prod(other) * 4
        for one, other in (shapes, shapes[::-1])
    ):
        return []
    return [
        f"the model has outputs of shape {list(shapes)}; head 'ultraface' needs scores (1, N, {columns}) "
        "(labels + background) and boxes (1, N, 4)"
    ]


def _ultraface_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    """Probabilities with the background first, and boxes as x1, y1, x2, y2 in shares of the input."""
    boxes, values = pair_of(outputs, len(spec.labels) + 1, boxes_first=False)
    multi_label = setting(ULTRAFACE_OPTIONS, spec, "multi_label")
    rows, ids, scores = pick(values[:, 1:], spec.score_threshold, multi_label=multi_label)
    return Candidates(to_pixels(boxes[rows], contract), scores, ids)


# --- detr


def _detr_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    if len(shapes) == 2:
        for columns in (len(spec.labels) + 1, len(spec.labels)):
            for boxes, scores in (shapes, shapes[::-1]):
                if boxes[-1] == 4 and scores == (*boxes[:-1], columns):
                    return []
    return [
        f"the model has outputs of shape {list(shapes)}; head 'detr' needs logits (1, Q, {len(spec.labels) + 1}) (the "
        f"last one for no object; or {len(spec.labels)} without) and boxes (1, Q, 4). Give one label for each class."
    ]


def _detr_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    """Boxes as centre and size in shares of the input; a softmax with "no object" last, or a sigmoid without.

    With a sigmoid a query may stand for several classes (X. Zhu et al., "Deformable DETR", 2021).
    """
    labels = len(spec.labels)
    columns = {output.shape[-1] for output in outputs}
    width = labels + 1 if labels + 1 in columns and columns != {4, labels} else labels
    boxes, values = pair_of(outputs, width, boxes_first=False)
    if spec.outputs == "probabilities":
        rows, ids, scores = pick(values[:, :labels], spec.score_threshold, multi_label=width == labels)
    elif width == labels:
        rows, ids, logits = pick(values, logit(spec.score_threshold), multi_label=True)
        scores = sigmoid(logits)
    else:
        rows, ids, scores = pick(softmax(values)[:, :labels], spec.score_threshold)
    return Candidates(to_corners(to_pixels(boxes[rows], contract)), scores, ids)


HEADS = {
    "ultraface": Head(
        "Ultra-Light face detector: (1, N, 2) scores and (1, N, 4) boxes",
        _ultraface_problems,
        _ultraface_decode,
        ULTRAFACE_OPTIONS,
    ),
    "detr": Head(
        "DETR: (1, Q, C + 1) logits and (1, Q, 4) boxes",
        _detr_problems,
        _detr_decode,
        suppress=False,
        ranked=True,  # RT-DETR picks its queries by score
    ),
}
