"""Two-stage detectors in fixed shapes (`edgecv.models.two_stage`): a box for each class of each proposal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.heads.common import Candidates, Head, Shape, flag, pick, setting

RCNN_OPTIONS = {"multi_label": flag(True)}


def _problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    labels = len(spec.labels)
    if len(shapes) == 2:
        for boxes, scores in (shapes, shapes[::-1]):
            if boxes == (*scores[:-1], 4 * labels) and len(boxes) == 3 and boxes[0] == 1 and scores[-1] == labels:
                return []
    return [
        f"the model has outputs of shape {list(shapes)}; head 'rcnn' needs boxes (1, K, {4 * labels}) and "
        f"probabilities (1, K, {labels}), a box and a score a label. Give one label for each class but the background."
    ]


def _decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    """Boxes are x1, y1, x2, y2 in pixels, scores probabilities; a proposal may stand for several classes."""
    found = _problems(spec, [output.shape for output in outputs])
    if found:
        raise ModelError(found[0])
    boxes, scores = sorted(outputs, key=lambda output: output.shape[-1], reverse=True)
    labels = len(spec.labels)
    multi_label = setting(RCNN_OPTIONS, spec, "multi_label")
    rows, ids, values = pick(scores.reshape(-1, labels), spec.score_threshold, multi_label=multi_label)
    shown = values > 0  # rows that suppression emptied, where the threshold is 0
    chosen = boxes.reshape(-1, labels, 4)[rows[shown], ids[shown]].astype(np.float32)
    return Candidates(chosen, values[shown], ids[shown])


HEADS = {
    "rcnn": Head(
        "Faster R-CNN in fixed shapes: (1, K, 4 C) boxes and (1, K, C) probabilities",
        _problems,
        _decode,
        RCNN_OPTIONS,
        ranked=True,
    ),
}
