"""ByteTrack: match the sure detections first, then the unsure ones with what is left (arXiv:2110.06864).

With ``appearance`` and ``camera_motion`` it is BoT-SORT's association (Aharon et al., arXiv:2206.14651).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgecv.core.results import Detections
from edgecv.core.tensor import Array
from edgecv.track.assign import match
from edgecv.track.kalman import XYAH, XYWH, BoxModel, States
from edgecv.track.motion import CameraMotion
from edgecv.track.steps import Floats64, Ints, StepClock, answer, usable
from edgecv.vision.boxes import iou

_TRACKED, _LOST = 0, 1
_SECOND_THRESH, _UNCONFIRMED_THRESH, _SAME_TRACK = 0.5, 0.7, 0.15


@dataclass(frozen=True)
class ByteTrackOptions:
    """The paper's parameters; costs are 1 - overlap.

    Detections from ``track_high_thresh`` on are sure, those from ``track_low_thresh`` on unsure; a new track
    needs ``new_track_thresh``. ``match_thresh`` is the highest cost of a sure pair, with the score fused in
    (``fuse_score``). A lost track is kept for ``track_buffer`` frames at the nominal rate ``fps``.
    ``appearance`` uses `Detections.embeddings`: a pair may also match by cosine distance up to
    ``appearance_thresh`` where the boxes' cost is at most ``proximity_thresh``.
    """

    track_high_thresh: float = 0.5
    track_low_thresh: float = 0.1
    new_track_thresh: float = 0.6
    match_thresh: float = 0.8
    track_buffer: int = 30
    fuse_score: bool = True
    fps: float = 30.0
    model: Literal["xyah", "xywh"] = "xyah"
    camera_motion: bool = False
    appearance: bool = False
    proximity_thresh: float = 0.5
    appearance_thresh: float = 0.25
    smoothing: float = 0.9


class ByteTrack:
    """See the module; implements `edgecv.core.stream.Tracker`."""

    def __init__(self, options: ByteTrackOptions | None = None) -> None:
        self._options = options or ByteTrackOptions()
        self._model: BoxModel = XYAH if self._options.model == "xyah" else XYWH
        self.reset()

    def reset(self) -> None:
        """See `edgecv.core.stream.Tracker.reset`."""
        self._states = States.empty()
        self._ids: Ints = np.zeros(0, np.int64)  # 0 until the track is confirmed
        self._state: Ints = np.zeros(0, np.int64)
        self._born: Floats64 = np.zeros(0)
        self._seen: Floats64 = np.zeros(0)
        self._looks: Floats64 | None = None
        self._next_id, self._frames, self._now = 1, 0, 0.0
        self._clock = StepClock(self._options.fps)
        self._motion = CameraMotion() if self._options.camera_motion else None

    def update(self, detections: Detections, captured_s: float, image: Array | None = None) -> Detections:
        """See `edgecv.core.stream.Tracker.update`."""
        options = self._options
        steps = self._clock.steps(captured_s)
        self._now += steps
        self._frames += 1
        if self._motion is not None and image is not None:
            self._states.warp(self._motion.update(image), self._model)
        self._predict(steps)
        rows = usable(detections)
        scores = detections.scores[rows].astype(np.float64)
        boxes = detections.boxes[rows].astype(np.float64)
        looks = _unit(detections.embeddings[rows]) if options.appearance and detections.embeddings is not None else None
        sure = np.flatnonzero(scores >= options.track_high_thresh)
        unsure = np.flatnonzero((scores >= options.track_low_thresh) & (scores < options.track_high_thresh))
        predicted = self._states.boxes(self._model)
        owner = np.full(len(rows), -1, dtype=np.int64)

        confirmed = np.flatnonzero(self._ids > 0)
        found = self._pair(confirmed, sure, predicted, boxes, scores, looks, limit=options.match_thresh)
        owner[found[1]] = found[0]
        left = np.setdiff1d(confirmed, found[0])
        tracked = left[self._state[left] == _TRACKED]
        second = self._pair(tracked, unsure, predicted, boxes, None, None, limit=_SECOND_THRESH)
        owner[second[1]] = second[0]
        lost = np.setdiff1d(tracked, second[0])

        free = sure[owner[sure] < 0]
        unconfirmed = np.flatnonzero(self._ids == 0)
        third = self._pair(unconfirmed, free, predicted, boxes, scores, looks, limit=_UNCONFIRMED_THRESH)
        owner[third[1]] = third[0]
        gone = np.setdiff1d(unconfirmed, third[0])

        taken = np.flatnonzero(owner >= 0)
        self._correct(owner[taken], boxes[taken], None if looks is None else looks[taken])
        self._state[lost] = _LOST
        self._name(third[0])
        fresh = sure[(owner[sure] < 0) & (scores[sure] >= options.new_track_thresh)]
        owner[fresh] = self._add(boxes[fresh], None if looks is None else looks[fresh])
        kept = self._survivors(gone)
        ids = np.zeros(len(rows), dtype=np.int64)
        taken = np.flatnonzero(owner >= 0)
        ids[taken] = np.where(kept[owner[taken]], self._ids[owner[taken]], 0)
        shown = np.flatnonzero(ids > 0)
        filtered = self._states.boxes(self._model)[owner[shown]]
        self._keep(kept)
        return answer(detections, rows[shown], ids[shown], filtered)

    def _predict(self, steps: float) -> None:
        # A lost box must not go on growing or shrinking.
        self._states.velocity[self._state == _LOST, 3] = 0.0
        self._states.predict(self._model, steps)

    def _pair(
        self,
        tracks: Ints,
        found: Ints,
        predicted: Floats64,
        boxes: Floats64,
        scores: Floats64 | None,
        looks: Floats64 | None,
        *,
        limit: float,
    ) -> tuple[Ints, Ints]:
        """Pairs of ``tracks`` and detections ``found`` at a cost below ``limit``: track rows, detection rows."""
        if not len(tracks) or not len(found):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        overlap = iou(predicted[tracks], boxes[found]).astype(np.float64)
        cost = 1.0 - (overlap * scores[found] if scores is not None and self._options.fuse_score else overlap)
        if looks is not None and self._looks is not None:
            distance = np.maximum(0.0, 1.0 - self._looks[tracks] @ looks[found].T) / 2.0
            distance[
                (distance > self._options.appearance_thresh) | (1.0 - overlap > self._options.proximity_thresh)
            ] = 1
            cost = np.minimum(cost, distance)
        one, other = match(limit - cost)
        return tracks[one], found[other]

    def _correct(self, tracks: Ints, boxes: Floats64, looks: Floats64 | None) -> None:
        self._states.update(self._model, tracks, boxes)
        self._state[tracks] = _TRACKED
        self._seen[tracks] = self._now
        if looks is not None and self._looks is not None:
            share = self._options.smoothing
            self._looks[tracks] = _unit(share * self._looks[tracks] + (1 - share) * looks)

    def _name(self, tracks: Ints) -> None:
        """A track that is seen a second time gets its id."""
        self._ids[tracks] = np.arange(self._next_id, self._next_id + len(tracks))
        self._next_id += len(tracks)

    def _add(self, boxes: Floats64, looks: Floats64 | None) -> Ints:
        """New tracks; their rows. Only those of the first frame are confirmed at once."""
        count, first = len(boxes), len(self._ids)
        self._states = self._states.joined(States.of(self._model, boxes))
        self._ids = np.concatenate([self._ids, np.zeros(count, np.int64)])
        self._state = np.concatenate([self._state, np.full(count, _TRACKED)])
        self._born = np.concatenate([self._born, np.full(count, self._now)])
        self._seen = np.concatenate([self._seen, np.full(count, self._now)])
        if looks is None and self._looks is not None:
            looks = np.zeros((count, self._looks.shape[1]))  # looks like nobody until it is seen with features
        if looks is not None:
            known = np.zeros((first, looks.shape[1])) if self._looks is None else self._looks
            self._looks = np.concatenate([known, looks])
        rows = np.arange(first, first + count)
        if self._frames == 1:
            self._name(rows)
        return rows

    def _survivors(self, gone: Ints) -> Array:
        """Mask of the tracks that go on: not unconfirmed and missed, not lost for too long, no second of another."""
        kept = np.ones(len(self._ids), dtype=bool)
        kept[gone] = False
        kept &= (self._state == _TRACKED) | (self._now - self._seen <= self._options.track_buffer)
        tracked = np.flatnonzero(kept & (self._state == _TRACKED) & (self._ids > 0))
        lost = np.flatnonzero(kept & (self._state == _LOST))
        if len(tracked) and len(lost):
            boxes = self._states.boxes(self._model)
            ages = self._seen - self._born
            for one, other in zip(*np.nonzero(iou(boxes[tracked], boxes[lost]) > 1 - _SAME_TRACK), strict=True):
                older = ages[tracked[one]] > ages[lost[other]]
                kept[lost[other] if older else tracked[one]] = False
        return kept

    def _keep(self, kept: Array) -> None:
        if kept.all():
            return
        self._states = self._states.keep(kept)
        self._ids, self._state = self._ids[kept], self._state[kept]
        self._born, self._seen = self._born[kept], self._seen[kept]
        if self._looks is not None:
            self._looks = self._looks[kept]


def _unit(vectors: Array) -> Floats64:
    values = np.asarray(vectors, dtype=np.float64)
    unit: Floats64 = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return unit
