"""OC-SORT: trust observations more than predictions (Cao et al., arXiv:2203.14360).

Three changes to SORT: the direction of motion between observations counts in the matching (OCM), a track
that was lost is first sought at its last observation (OCR), and when it is found again its filter is
run anew along the straight line between the two observations (ORU).
"""

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
class OcSortOptions:
    """The paper's parameters. ``delta_t`` frames back an observation gives the direction, ``inertia`` is its weight.

    With ``use_byte`` detections between ``low_thresh`` and ``det_thresh`` get a second chance.
    """

    det_thresh: float = 0.5
    iou_threshold: float = 0.3
    max_age: int = 30
    min_hits: int = 3
    delta_t: int = 3
    inertia: float = 0.2
    use_byte: bool = False
    low_thresh: float = 0.1
    fps: float = 30.0
    camera_motion: bool = False


class OcSort:
    """See the module; implements `edgecv.core.stream.Tracker`."""

    def __init__(self, options: OcSortOptions | None = None) -> None:
        self._options = options or OcSortOptions()
        self.reset()

    def reset(self) -> None:
        """See `edgecv.core.stream.Tracker.reset`."""
        self._states = self._saved = States.empty()
        self._ids: Ints = np.zeros(0, np.int64)
        self._missed: Floats64 = np.zeros(0)
        self._streak: Ints = np.zeros(0, np.int64)
        # Observations of the last frames, newest first; NaN where there was none.
        self._recent: Floats64 = np.zeros((0, self._options.delta_t + 1, 4))
        self._last: Floats64 = np.zeros((0, 4))
        self._direction: Floats64 = np.zeros((0, 2))
        self._next_id, self._frames = 1, 0
        self._clock = StepClock(self._options.fps)
        self._motion = CameraMotion() if self._options.camera_motion else None

    def update(self, detections: Detections, captured_s: float, image: Array | None = None) -> Detections:
        """See `edgecv.core.stream.Tracker.update`."""
        options = self._options
        steps = self._clock.steps(captured_s)
        self._frames += 1
        self._predict(steps, image)
        rows = usable(detections)
        scores = detections.scores[rows].astype(np.float64)
        boxes = detections.boxes[rows].astype(np.float64)
        sure = np.flatnonzero(scores >= options.det_thresh)
        owner = np.full(len(rows), -1, dtype=np.int64)
        predicted = self._states.boxes(XYSR)
        overlap = iou(predicted, boxes[sure]).astype(np.float64)
        bonus = self._agreement(boxes[sure]) * scores[sure] * options.inertia
        one, other = match(np.where(overlap >= options.iou_threshold, overlap + np.maximum(bonus, -overlap + 1e-6), 0))
        owner[sure[other]] = one
        left = np.setdiff1d(np.arange(len(self._ids)), one)
        if options.use_byte:
            unsure = np.flatnonzero((scores >= options.low_thresh) & (scores < options.det_thresh))
            left = self._again(left, unsure, predicted, boxes, owner)
        self._again(left, sure[owner[sure] < 0], self._last, boxes, owner)

        taken = np.flatnonzero(owner >= 0)
        self._streak[self._missed > steps] = 0
        self._correct(owner[taken], boxes[taken], steps)
        fresh = sure[owner[sure] < 0]
        owner[fresh] = np.arange(len(self._ids), len(self._ids) + len(fresh))
        self._add(boxes[fresh])
        ids = np.where(owner >= 0, np.append(self._ids, 0)[owner], 0)
        young = np.append(self._streak, 0)[owner] < options.min_hits
        shown = np.flatnonzero((owner >= 0) & ~(young & (self._frames > options.min_hits)))
        self._keep(self._missed <= options.max_age)
        return answer(detections, rows[shown], ids[shown])

    def _predict(self, steps: float, image: Array | None) -> None:
        if self._motion is not None and image is not None:
            affine = self._motion.update(image)
            self._states.warp(affine, XYSR)
            self._last = _moved(self._last, affine)
        # A shrinking area must not become negative.
        self._states.velocity[self._states.position[:, 2] + steps * self._states.velocity[:, 2] <= 0, 2] = 0.0
        self._states.predict(XYSR, steps)
        self._missed = self._missed + steps
        self._recent = np.roll(self._recent, 1, axis=1)
        self._recent[:, 0] = np.nan

    def _agreement(self, boxes: Floats64) -> Floats64:
        """How well a move from each track's earlier observation to each box fits its direction: `(T, N)`, -0.5..0.5."""
        if not len(boxes) or not len(self._ids):
            return np.zeros((len(self._ids), len(boxes)))
        towards = _directions(self._earlier(), boxes)
        cosine = np.clip(np.einsum("tnk,tk->tn", towards, self._direction), -1.0, 1.0)
        agreement: Floats64 = (np.pi / 2 - np.arccos(cosine)) / np.pi
        agreement[(self._direction == 0).all(axis=1)] = 0.0
        return agreement

    def _earlier(self) -> Floats64:
        """The observation ``delta_t`` frames back, or the nearest later one, or the last there was: `(T, 4)`."""
        earlier = self._last.copy()
        for age in range(1, self._options.delta_t + 1):  # the oldest one overwrites the newer ones
            there = ~np.isnan(self._recent[:, age, 0])
            earlier[there] = self._recent[there, age]
        return earlier

    def _again(self, tracks: Ints, found: Ints, places: Floats64, boxes: Floats64, owner: Ints) -> Ints:
        """Match what is left by plain overlap with ``places``; the tracks that are left then."""
        if not len(tracks) or not len(found):
            return tracks
        overlap = iou(places[tracks], boxes[found])
        one, other = match(np.where(overlap >= self._options.iou_threshold, overlap, 0.0))
        owner[found[other]] = tracks[one]
        return np.setdiff1d(tracks, tracks[one])

    def _correct(self, tracks: Ints, boxes: Floats64, steps: float) -> None:
        gaps = self._missed[tracks]
        for row in np.flatnonzero(gaps > 1.5 * max(steps, 1.0)):
            self._replay(int(tracks[row]), boxes[row], float(gaps[row]))
        earlier = self._earlier()[tracks]
        self._states.update(XYSR, tracks, boxes)
        before = _centres(earlier)
        self._direction[tracks] = _unit(_centres(boxes) - before)
        self._recent[tracks, 0] = boxes
        self._last[tracks] = boxes
        self._missed[tracks] = 0.0
        self._streak[tracks] += 1
        for name in ("position", "velocity", "covariance"):
            getattr(self._saved, name)[tracks] = getattr(self._states, name)[tracks]

    def _replay(self, track: int, box: Floats64, gap: float) -> None:
        """Run the filter from the last observation along a straight line to ``box``, as if it had been seen there."""
        state = self._saved.keep(slice(track, track + 1))
        count = max(1, round(gap))
        for step in range(1, count):
            state.predict(XYSR, gap / count)
            state.update(XYSR, [0], (self._last[track] + (box - self._last[track]) * step / count)[np.newaxis])
        state.predict(XYSR, gap / count)
        for name in ("position", "velocity", "covariance"):
            getattr(self._states, name)[track] = getattr(state, name)[0]

    def _add(self, boxes: Floats64) -> None:
        count = len(boxes)
        new = States.of(XYSR, boxes)
        self._states, self._saved = self._states.joined(new), self._saved.joined(new)
        self._ids = np.concatenate([self._ids, np.arange(self._next_id, self._next_id + count)])
        self._next_id += count
        self._missed = np.concatenate([self._missed, np.zeros(count)])
        self._streak = np.concatenate([self._streak, np.zeros(count, np.int64)])
        recent = np.full((count, self._options.delta_t + 1, 4), np.nan)
        recent[:, 0] = boxes
        self._recent = np.concatenate([self._recent, recent])
        self._last = np.concatenate([self._last, boxes])
        self._direction = np.concatenate([self._direction, np.zeros((count, 2))])

    def _keep(self, kept: Array) -> None:
        if kept.all():
            return
        self._states, self._saved = self._states.keep(kept), self._saved.keep(kept)
        self._ids, self._missed, self._streak = self._ids[kept], self._missed[kept], self._streak[kept]
        self._recent, self._last, self._direction = self._recent[kept], self._last[kept], self._direction[kept]


def _centres(boxes: Floats64) -> Floats64:
    centres: Floats64 = (boxes[..., :2] + boxes[..., 2:]) / 2
    return centres


def _unit(vectors: Floats64) -> Floats64:
    unit: Floats64 = vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-6)
    return unit


def _directions(starts: Floats64, ends: Floats64) -> Floats64:
    """Unit vectors `(T, N, 2)` from the centre of each of ``starts`` to that of each of ``ends``."""
    return _unit(_centres(ends)[np.newaxis] - _centres(starts)[:, np.newaxis])


def _moved(boxes: Floats64, affine: Floats64) -> Floats64:
    centre = _centres(boxes) @ affine[:, :2].T + affine[:, 2]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    return np.concatenate([centre - half, centre + half], axis=1)
