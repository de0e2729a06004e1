"""SORT: predict every box, match by overlap, keep what is seen again (Bewley et al., arXiv:1602.00763)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecv.core.results import Detections
from edgecv.core.tensor import Array
from edgecv.track.assign import match
from edgecv.track.kalman import XYSR, States
from edgecv.track.motion import CameraMotion
from edgecv.track.steps import Floats64, Ints, StepClock, answer, usable
from edgecv.vision.boxes import iou


@dataclass(frozen=True)
class SortOptions:
    """Detections below ``det_thresh`` are not looked at; a pair overlaps by at least ``iou_threshold``.

    A track ends after ``max_age`` nominal frames without a detection and is shown after ``min_hits`` matches
    in a row. ``fps`` is the nominal frame rate; ``camera_motion`` follows a moving camera.
    """

    det_thresh: float = 0.0
    iou_threshold: float = 0.3
    max_age: int = 1
    min_hits: int = 3
    fps: float = 30.0
    camera_motion: bool = False


class Sort:
    """See the module; implements `edgecv.core.stream.Tracker`."""

    def __init__(self, options: SortOptions | None = None) -> None:
        self._options = options or SortOptions()
        self.reset()

    def reset(self) -> None:
        """See `edgecv.core.stream.Tracker.reset`."""
        self._states = States.empty()
        self._ids: Ints = np.zeros(0, np.int64)
        self._missed: Floats64 = np.zeros(0)
        self._streak: Ints = np.zeros(0, np.int64)
        self._next_id, self._frames = 1, 0
        self._clock = StepClock(self._options.fps)
        self._motion = CameraMotion() if self._options.camera_motion else None

    def update(self, detections: Detections, captured_s: float, image: Array | None = None) -> Detections:
        """See `edgecv.core.stream.Tracker.update`."""
        options = self._options
        steps = self._clock.steps(captured_s)
        self._frames += 1
        if self._motion is not None and image is not None:
            self._states.warp(self._motion.update(image), XYSR)
        self._states.predict(XYSR, steps)
        self._missed = self._missed + steps
        rows = usable(detections)
        rows = rows[detections.scores[rows] >= options.det_thresh]
        boxes = detections.boxes[rows].astype(np.float64)
        overlap = iou(self._states.boxes(XYSR), boxes)
        tracks, found = match(np.where(overlap >= options.iou_threshold, overlap, 0.0))
        self._streak[self._missed > steps] = 0
        self._states.update(XYSR, tracks, boxes[found])
        self._missed[tracks] = 0.0
        self._streak[tracks] += 1
        fresh = np.setdiff1d(np.arange(len(rows)), found)
        ids = np.concatenate([self._ids[tracks], np.arange(self._next_id, self._next_id + len(fresh))])
        streaks = np.concatenate([self._streak[tracks], np.zeros(len(fresh), np.int64)])
        shown = (streaks >= options.min_hits) | (self._frames <= options.min_hits)
        used = np.concatenate([found, fresh])
        owner = np.concatenate([tracks, np.arange(len(self._ids), len(self._ids) + len(fresh))])
        self._add(boxes[fresh])
        filtered = self._states.boxes(XYSR)[owner[shown]]
        self._drop(self._missed <= options.max_age)
        return answer(detections, rows[used[shown]], ids[shown], filtered)

    def _add(self, boxes: Floats64) -> None:
        count = len(boxes)
        self._states = self._states.joined(States.of(XYSR, boxes))
        self._ids = np.concatenate([self._ids, np.arange(self._next_id, self._next_id + count)])
        self._next_id += count
        self._missed = np.concatenate([self._missed, np.zeros(count)])
        self._streak = np.concatenate([self._streak, np.zeros(count, np.int64)])

    def _drop(self, kept: Array) -> None:
        self._states = self._states.keep(kept)
        self._ids, self._missed, self._streak = self._ids[kept], self._missed[kept], self._streak[kept]
