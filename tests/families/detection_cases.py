"""What the tests of detectors' heads share: decode with a check of the shapes first, and comparing with a list."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections
from edgecv.core.tensor import TensorSpec
from edgecv.families import detection

CONTRACT = InputContract(size=(64, 96))
LABELS = tuple("abcde")


def spec_of(head: str, *, labels: tuple[str, ...] = LABELS, options: dict[str, Any] | None = None, **values: Any):
    chosen: dict[str, Any] = {"score_threshold": 0.3, "iou_threshold": 1.0, "max_detections": 10_000, **values}
    return FamilySpec(kind="detection", labels=labels, head=head, options=options or {}, **chosen)


def run(spec: FamilySpec, *outputs: np.ndarray) -> Detections:
    """Decode, after the shapes were found to fit."""
    arrays = [np.ascontiguousarray(output, dtype=np.float32) for output in outputs]
    named = [TensorSpec(f"o{place}", array.shape, "float32") for place, array in enumerate(arrays)]
    assert detection.problems(spec, named) == []
    return detection.decode(arrays, spec, CONTRACT)


def check(found: Detections, wanted: list[tuple[Any, ...]]) -> None:
    """``wanted`` are (x1, y1, x2, y2, score, class) in network pixels, in any order, not yet cut."""
    cut = []
    for x1, y1, x2, y2, score, index in wanted:
        box = (np.clip(x1, 0, 96), np.clip(y1, 0, 64), np.clip(x2, 0, 96), np.clip(y2, 0, 64))
        if box[2] > box[0] and box[3] > box[1]:
            cut.append((*box, score, index))
    assert len(cut) > 3, "a test that expects nothing shows nothing"
    assert len(found) == len(cut)
    cut.sort(key=lambda row: -row[4])
    np.testing.assert_allclose(found.scores, [row[4] for row in cut], atol=1e-5)
    np.testing.assert_allclose(found.boxes, [row[:4] for row in cut], atol=2e-3)
    assert found.class_ids.tolist() == [row[5] for row in cut]


def s(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def around(cx: float, cy: float, w: float, h: float) -> tuple[float, float, float, float]:
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
