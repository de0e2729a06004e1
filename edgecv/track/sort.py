"""SORT: predict every box, match by overlap, keep what is seen again (Bewley et al., arXiv:1602.00763)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgecv.core.results import Detections
from edgecv.core.tensor import Array
from edgecv.track.assign import match_pairs
from edgecv.track.kalman import MODELS, States
from edgecv.track.motion import CameraMotion
from edgecv.track.overlap import pairs_above
from edgecv.track.steps import Floats64, Ints, StepClock, answer, measured


@dataclass(frozen=True)
class SortOptions:
    """Detections below ``det_thresh`` are not looked at; a pair overlaps by at least ``iou_threshold``.

    A track ends after ``max_age`` nominal frames without a detection and is shown after ``min_hits`` matches.
    ``fps`` is the nominal frame rate; ``camera_motion`` follows a moving camera.

    The defaults are the paper's rules where not said otherwise; for the others:
    ``model`` xysr is a filter in which a box keeps the ratio of its sides; xyxy follows one that changes it.
    ``boxes`` are given back ``filtered`` or as ``observed``.
    ``confirm`` by a ``streak``: the matches must be in a row, and all is shown in the first ``min_hits`` frames; by the
    ``total``: they need not, but a track that has too few ends when it is missed once.
    ``gate`` says whether pairs that overlap too little are taken out ``before`` the matching, which loses fewer
    objects, or ``after`` it, as in the paper's code.
    """

    det_thresh: float = 0.0
    iou_threshold: float = 0.3
    max_age: int = 1
    min_hits: int = 3
    fps: float = 30.0
    camera_motion: bool = False
    model: Literal["xysr", "xyxy"] = "xysr"
    boxes: Literal["filtered", "observed"] = "filtered"
    confirm: Literal["streak", "total"] = "streak"
    gate: Literal["before", "after"] = "before"


class Sort:
    """See the module; implements `edgecv.core.stream.Tracker`."""

    def __init__(self, options: SortOptions | None = None) -> None:
        self._options = options or SortOptions()
        self._model = MODELS[self._options.model]
        self.reset()

    def reset(self) -> None:
        """See `edgecv.core.stream.Tracker.reset`."""
        self._states = States.empty()
        self._ids: Ints = np.zeros(0, np.int64)
        self._missed: Floats64 = np.zeros(0)
        self._hits: Ints = np.zeros(0, np.int64)
        self._next_id, self._frames = 1, 0
        self._clock = StepClock(self._options.fps)
        self._motion = CameraMotion() if self._options.camera_motion else None

    def update(self, detections: Detections, captured_s: float, image: Array | None = None) -> Detections:
        """See `edgecv.core.stream.Tracker.update`."""
        options, states = self._options, self._states
        steps = self._clock.steps(captured_s)
        self._frames += 1
        if self._motion is not None and image is not None:
            states.warp(self._motion.update(image), self._model)
        states.predict(self._model, steps)
        self._missed += steps
        given = measured(detections, options.det_thresh)
        tracks, columns = self._match(given.boxes)
        found = np.repeat(-1, len(self._ids))
        found[tracks] = columns
        if len(given.rows):
            states.update(self._model, given.boxes, found)

        in_a_row = options.confirm == "streak"
        if in_a_row:
            self._hits[self._missed > steps] = 0
        self._missed[tracks] = 0.0
        self._hits[tracks] += 1
        kept = self._missed <= options.max_age
        if not in_a_row:
            kept &= (found >= 0) | (self._hits >= options.min_hits)
        if not kept.all():
            found = found[kept]
            self._keep(kept.nonzero()[0])
        used = np.zeros(len(given.rows), dtype=bool)
        used[columns] = True
        fresh = (~used).nonzero()[0]
        if len(fresh):
            found = np.concatenate([found, fresh])
            self._add(given.boxes.take(fresh, axis=1))
        seen = found >= 0
        if not in_a_row or self._frames > options.min_hits:
            seen &= self._hits >= options.min_hits
        shown = seen.nonzero()[0]
        boxes = states.boxes(self._model).take(shown, axis=1) if options.boxes == "filtered" else None
        return answer(detections, given.rows[found[shown]], self._ids[shown], boxes)

    def _match(self, boxes: Floats64) -> tuple[Ints, Ints]:
        """The tracks that have a detection, ascending, and their detections."""
        least = max(self._options.iou_threshold, 0.0)
        before = self._options.gate == "before"
        pairs = pairs_above(self._states.boxes(self._model), boxes, least if before else 0.0)
        best = match_pairs(pairs.rows, pairs.columns, pairs.overlap)
        if not before:
            best = best[pairs.overlap[best] >= least]
        return pairs.rows[best], pairs.columns[best]

    def _add(self, boxes: Floats64) -> None:
        count = boxes.shape[1]
        self._states.add(States.of(self._model, boxes))
        self._ids = np.concatenate([self._ids, np.arange(self._next_id, self._next_id + count)])
        self._next_id += count
        self._missed = np.concatenate([self._missed, np.zeros(count)])
        self._hits = np.concatenate([self._hits, np.zeros(count, np.int64)])

    def _keep(self, kept: Ints) -> None:
        self._states.keep(kept)
        self._ids, self._missed, self._hits = self._ids[kept], self._missed[kept], self._hits[kept]
