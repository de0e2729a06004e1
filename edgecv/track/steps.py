"""What all trackers share: checking a frame's detections, and how many nominal frames have passed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecv.core.results import Detections
from edgecv.errors import DataError

Floats64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_MAX_STEPS = 300.0


@dataclass
class StepClock:
    """Times of frames -> steps of ``1 / fps`` seconds since the frame before.

    A time that stands still is a step of 0; a long gap counts as at most 300 steps.
    """

    fps: float
    _last_s: float | None = None

    def steps(self, captured_s: float) -> float:
        """Steps since the last call (1 at the first).

        Raises:
            DataError: the time is no number, or lies before the last one.
        """
        if not math.isfinite(captured_s):
            raise DataError(f"the frame's time is {captured_s}; a number of seconds is needed")
        last_s, self._last_s = self._last_s, captured_s
        if last_s is None:
            return 1.0
        if captured_s < last_s:
            self._last_s = last_s
            raise DataError(f"the frame's time {captured_s:.6f} s lies before the last one, {last_s:.6f} s")
        passed = (captured_s - last_s) * self.fps
        # Cameras jitter by parts of a millisecond; what is nearly a whole step is one.
        whole = round(passed)
        return min(_MAX_STEPS, float(whole) if whole >= 1 and abs(passed - whole) < 0.02 else float(passed))


@dataclass(frozen=True)
class Measured:
    """The N detections of a frame that a tracker looks at.

    ``rows`` are theirs in the frame's `Detections`; ``boxes`` `(4, N)` (rows x1, y1, x2, y2) and ``scores`` `(N,)`
    are float64.
    """

    rows: Ints
    boxes: Floats64
    scores: Floats64


def measured(found: Detections, least_score: float) -> Measured:
    """What of ``found`` a tracker can take: scores of at least ``least_score``, finite boxes not turned inside out."""
    values = np.empty((5, len(found.scores)))
    values[:4], values[4] = found.boxes.T, found.scores
    sound = np.isfinite(values).all(axis=0)
    sound &= values[2] > values[0]
    sound &= values[3] > values[1]
    sound &= values[4] >= least_score
    rows: Ints = sound.nonzero()[0]
    if len(rows) < len(sound):
        values = values.take(rows, axis=1)
    return Measured(rows, values[:4], values[4])


def answer(found: Detections, rows: Ints, ids: Ints, boxes: Floats64 | None = None) -> Detections:
    """The detections ``rows`` with their track ids, in the order of the ids; ``boxes`` `(4, N)` replace theirs."""
    order = ids.argsort(kind="stable")
    rows = rows[order]
    return Detections(
        found.boxes[rows] if boxes is None else boxes.T.astype(np.float32, order="C")[order],
        found.scores[rows],
        found.class_ids[rows],
        found.labels,
        ids[order],
        None if found.keypoints is None else found.keypoints[rows],
        None if found.embeddings is None else found.embeddings[rows],
        found.skeleton,
        tuple(found.second[row] for row in rows) if found.second else (),
        tuple(found.masks[row] for row in rows) if found.masks else (),
    )
