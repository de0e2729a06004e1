"""ByteTrack: match the sure detections first, then the unsure ones with what is left (arXiv:2110.06864).

With ``appearance`` and ``camera_motion`` it is BoT-SORT's association (Aharon et al., arXiv:2206.14651).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgecv.core.results import Detections
from edgecv.core.tensor import Array
from edgecv.track.assign import match_pairs
from edgecv.track.kalman import MODELS, States
from edgecv.track.motion import CameraMotion
from edgecv.track.overlap import Pairs, pairs_above
from edgecv.track.steps import Floats64, Ints, Measured, StepClock, answer, measured

Mask = npt.NDArray[np.bool_]
_SECOND_THRESH, _UNCONFIRMED_THRESH, _SAME_TRACK = 0.5, 0.7, 0.15


@dataclass(frozen=True)
class ByteTrackOptions:
    """The paper's parameters; costs are 1 - overlap.

    Detections from ``track_high_thresh`` on are sure, those from ``track_low_thresh`` on unsure; a new track
    needs ``new_track_thresh``. ``match_thresh`` is the highest cost of a sure pair, with the score fused in
    (``fuse_score``). A lost track is kept for ``track_buffer`` frames at the nominal rate ``fps``.
    ``boxes`` are given back ``filtered``, as in the paper, or as ``observed``. ``model`` is what the filter
    sees of a box: centre, aspect and height (xyah), centre and size (xywh), or corners (xyxy).
    A new track is predicted from the start on; without ``predict_new`` only once it is confirmed, as in the
    paper's code.
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
    model: Literal["xyah", "xywh", "xyxy"] = "xyah"
    boxes: Literal["filtered", "observed"] = "filtered"
    predict_new: bool = True
    camera_motion: bool = False
    appearance: bool = False
    proximity_thresh: float = 0.5
    appearance_thresh: float = 0.25
    smoothing: float = 0.9


class ByteTrack:
    """See the module; implements `edgecv.core.stream.Tracker`."""

    def __init__(self, options: ByteTrackOptions | None = None) -> None:
        self._options = options or ByteTrackOptions()
        self._model = MODELS[self._options.model]
        # Overlaps below which no pair can be matched in any step; a score is at most 1.
        highest = max(self._options.match_thresh, _SECOND_THRESH, _UNCONFIRMED_THRESH)
        proximity = self._options.proximity_thresh
        self._least = 1.0 - highest
        self._least_with_looks = min(self._least, 1.0 - proximity) if proximity < 1.0 else -1.0
        self.reset()

    def reset(self) -> None:
        """See `edgecv.core.stream.Tracker.reset`."""
        self._states = States.empty()
        self._ids: Ints = np.zeros(0, np.int64)  # 0 until the track is confirmed
        self._lost: Mask = np.zeros(0, dtype=bool)
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
        self._states.hold_size(self._model, self._lost)
        confirmed = self._ids > 0
        self._states.predict(self._model, steps if options.predict_new else np.where(confirmed, steps, 0.0))
        given = measured(detections, min(options.track_low_thresh, options.track_high_thresh))
        looks = None
        if options.appearance and detections.embeddings is not None:
            looks = _unit(detections.embeddings[given.rows])
        sure = given.scores >= options.track_high_thresh
        found, used = self._associate(given, sure, confirmed, looks)

        if len(given.rows):
            self._correct(found, given.boxes, looks)
        hit = found >= 0
        self._lost = confirmed & ~hit
        self._seen[hit] = self._now
        if not confirmed.all():
            self._name((hit & ~confirmed).nonzero()[0])
        kept = hit | (confirmed & (self._now - self._seen <= options.track_buffer))
        boxes, shown = self._states.boxes(self._model), hit.nonzero()[0]
        doubles = self._doubles(shown, (kept & self._lost).nonzero()[0], boxes)
        if len(doubles):
            kept[doubles] = False
            shown = shown[kept[shown]]
        rows, ids, boxes = found[shown], self._ids[shown], boxes.take(shown, axis=1)
        self._keep(kept)
        fresh = (sure & ~used & (given.scores >= options.new_track_thresh)).nonzero()[0]
        if len(fresh):
            self._add(given.boxes.take(fresh, axis=1), None if looks is None else looks[fresh])
            if self._frames == 1:
                rows, ids, boxes = fresh, self._ids, self._states.boxes(self._model)
        return answer(detections, given.rows[rows], ids, boxes if options.boxes == "filtered" else None)

    def _associate(self, given: Measured, sure: Mask, confirmed: Mask, looks: Floats64 | None) -> tuple[Ints, Mask]:
        """The detection of each track, -1 without one, and which detections are used up."""
        options = self._options
        found, used = np.repeat(-1, len(self._ids)), np.zeros(len(given.rows), dtype=bool)
        least = self._least if looks is None else self._least_with_looks
        pairs = pairs_above(self._states.boxes(self._model), given.boxes, least)
        if not len(pairs.rows):
            return found, used
        plain = 1.0 - pairs.overlap
        cost = self._cost(pairs, plain, given, looks)
        of_confirmed, of_sure = confirmed[pairs.rows], sure[pairs.columns]

        def take(chosen: Mask, costs: Floats64, limit: float) -> None:
            chosen &= costs < limit
            places = chosen.nonzero()[0]
            if len(places):
                best = match_pairs(pairs.rows[places], pairs.columns[places], limit - costs[places])
                rows, columns = pairs.rows[places[best]], pairs.columns[places[best]]
                found[rows] = columns
                used[columns] = True

        take(of_confirmed & of_sure, cost, options.match_thresh)
        if not of_sure.all():
            waiting = (found < 0) & confirmed & ~self._lost
            take(waiting[pairs.rows] & ~of_sure, plain, _SECOND_THRESH)
        if not of_confirmed.all():
            take(of_sure & ~of_confirmed & ~used[pairs.columns], cost, _UNCONFIRMED_THRESH)
        return found, used

    def _cost(self, pairs: Pairs, plain: Floats64, given: Measured, looks: Floats64 | None) -> Floats64:
        """The cost of each pair in the steps for sure detections."""
        options = self._options
        cost = 1.0 - pairs.overlap * given.scores[pairs.columns] if options.fuse_score else plain
        if looks is None or self._looks is None:
            return cost
        alike = np.einsum("kd,kd->k", self._looks[pairs.rows], looks[pairs.columns])
        distance = np.maximum(0.0, 1.0 - alike) / 2.0
        distance[(distance > options.appearance_thresh) | (plain > options.proximity_thresh)] = 1.0
        best: Floats64 = np.minimum(cost, distance)
        return best

    def _correct(self, found: Ints, boxes: Floats64, looks: Floats64 | None) -> None:
        self._states.update(self._model, boxes, found)
        if looks is not None and self._looks is not None:
            tracks, share = (found >= 0).nonzero()[0], self._options.smoothing
            self._looks[tracks] = _unit(share * self._looks[tracks] + (1 - share) * looks[found[tracks]])

    def _name(self, tracks: Ints) -> None:
        """Tracks that are seen a second time get their ids."""
        if len(tracks):
            self._ids[tracks] = self._new_ids(len(tracks))

    def _new_ids(self, count: int) -> Ints:
        self._next_id += count
        return np.arange(self._next_id - count, self._next_id)

    def _add(self, boxes: Floats64, looks: Floats64 | None) -> None:
        """New tracks. Only those of the first frame are confirmed at once, the others when seen again."""
        count, first = boxes.shape[1], len(self._ids)
        self._states.add(States.of(self._model, boxes))
        ids = self._new_ids(count) if self._frames == 1 else np.zeros(count, np.int64)
        self._ids = np.concatenate([self._ids, ids])
        self._lost = np.concatenate([self._lost, np.zeros(count, dtype=bool)])
        self._born = np.concatenate([self._born, np.full(count, self._now)])
        self._seen = np.concatenate([self._seen, np.full(count, self._now)])
        if looks is None and self._looks is not None:
            looks = np.zeros((count, self._looks.shape[1]))  # looks like nobody until it is seen with features
        if looks is not None:
            known = np.zeros((first, looks.shape[1])) if self._looks is None else self._looks
            self._looks = np.concatenate([known, looks])

    def _doubles(self, tracked: Ints, lost: Ints, boxes: Floats64) -> Ints:
        """Of each tracked and lost track that lie on each other the younger one."""
        if not len(lost):
            return lost
        pairs = pairs_above(boxes.take(lost, axis=1), boxes.take(tracked, axis=1), 1 - _SAME_TRACK)
        if not len(pairs.rows):
            return pairs.rows
        pairs = pairs.of(pairs.overlap > 1 - _SAME_TRACK)
        one, other = tracked[pairs.columns], lost[pairs.rows]
        ages = self._seen - self._born
        return np.where(ages[one] > ages[other], other, one)

    def _keep(self, stays: Mask) -> None:
        kept = stays.nonzero()[0]
        if len(kept) == len(stays):
            return
        self._states.keep(kept)
        self._ids, self._lost = self._ids[kept], self._lost[kept]
        self._born, self._seen = self._born[kept], self._seen[kept]
        if self._looks is not None:
            self._looks = self._looks[kept]


def _unit(vectors: Array) -> Floats64:
    values = np.asarray(vectors, dtype=np.float64)
    unit: Floats64 = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return unit
