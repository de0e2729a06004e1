"""What all trackers share: checking a frame's detections, and how many nominal frames have passed."""

from __future__ import annotations

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
        if not np.isfinite(captured_s):
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
        return min(_MAX_STEPS, float(whole) if whole >= 1 and abs(passed - whole) < 0.02 else passed)


def usable(found: Detections) -> Ints:
    """Rows of ``found`` that a tracker can take: finite boxes that are not turned inside out, finite scores."""
    boxes = found.boxes
    sound = np.isfinite(boxes).all(axis=1) & np.isfinite(found.scores)
    with np.errstate(invalid="ignore"):
        sound &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    rows: Ints = np.flatnonzero(sound)
    return rows


def answer(found: Detections, rows: Ints, ids: Ints, boxes: Floats64 | None = None) -> Detections:
    """The detections ``rows`` with their track ids, in the order of the ids; ``boxes`` replace the measured ones."""
    order = np.argsort(ids, kind="stable")
    tracked = found.select(rows[order])
    return Detections(
        tracked.boxes if boxes is None else boxes[order].astype(np.float32),
        tracked.scores,
        tracked.class_ids,
        tracked.labels,
        ids[order].astype(np.int64),
        tracked.keypoints,
        tracked.embeddings,
        tracked.skeleton,
        tracked.second,
    )
