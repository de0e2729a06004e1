"""OC-SORT: trust observations more than predictions (Cao et al., arXiv:2203.14360).

Three changes to SORT: the direction of motion between observations counts in the matching (OCM), a track
that was lost is first sought at its last observation (OCR), and when it is found again its filter is
run anew along the straight line between the two observations (ORU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgecv.core.results import Detections
from edgecv.core.tensor import Array
from edgecv.track.assign import match_pairs
from edgecv.track.kalman import XYSR, States, moved_boxes
from edgecv.track.motion import CameraMotion
from edgecv.track.overlap import Pairs, pairs_above
from edgecv.track.steps import Floats64, Ints, Measured, StepClock, answer, measured

_LEAST_WORTH = 1e-6
"""What a possible pair is worth at least, however wrong its direction."""


@dataclass(frozen=True)
class OcSortOptions:
    """The paper's parameters. ``delta_t`` frames back an observation gives the direction, ``inertia`` is its weight.

    With ``use_byte`` detections between ``low_thresh`` and ``det_thresh`` get a second chance. ``boxes`` are given back
    as ``observed``, as in the paper, or ``filtered``.
    """

    det_thresh: float = 0.5
    iou_threshold: float = 0.3
    max_age: int = 30
    min_hits: int = 3
    delta_t: int = 3
    inertia: float = 0.2
    use_byte: bool = False
    low_thresh: float = 0.1
    boxes: Literal["observed", "filtered"] = "observed"
    fps: float = 30.0
    camera_motion: bool = False


class OcSort:
    """See the module; implements `edgecv.core.stream.Tracker`."""

    def __init__(self, options: OcSortOptions | None = None) -> None:
        self._options = options or OcSortOptions()
        self.reset()

    def reset(self) -> None:
        """See `edgecv.core.stream.Tracker.reset`."""
        slots = self._options.delta_t + 1
        self._states, self._saved = States.empty(), States.empty()  # saved: as they were when last seen
        self._ids: Ints = np.zeros(0, np.int64)
        self._missed: Floats64 = np.zeros(0)
        self._streak: Ints = np.zeros(0, np.int64)
        # Observations of the last frames, frame n in slot n % slots, and whether there was one.
        self._recent: Floats64 = np.zeros((slots, 4, 0))
        self._known = np.zeros((slots, 0), dtype=bool)
        self._last: Floats64 = np.zeros((4, 0))
        self._direction: Floats64 = np.zeros((2, 0))
        self._new = np.zeros(
            0, dtype=bool
        )  # not seen again yet; as in the paper's code the way there gives no direction
        self._next_id, self._frames = 1, 0
        self._clock = StepClock(self._options.fps)
        self._motion = CameraMotion() if self._options.camera_motion else None

    def update(self, detections: Detections, captured_s: float, image: Array | None = None) -> Detections:
        """See `edgecv.core.stream.Tracker.update`."""
        options = self._options
        steps = self._clock.steps(captured_s)
        self._frames += 1
        self._predict(steps, image)
        lowest = min(options.low_thresh, options.det_thresh) if options.use_byte else options.det_thresh
        given = measured(detections, lowest)
        sure = given.scores >= options.det_thresh
        earlier = self._earlier()
        found, used = self._associate(given, sure, earlier)

        self._streak[self._missed > steps] = 0
        if len(given.rows):
            self._correct(found, given.boxes, earlier, steps)
        kept = self._missed <= options.max_age
        if not kept.all():
            found = found[kept]
            self._keep(kept.nonzero()[0])
        fresh = (sure & ~used).nonzero()[0]
        if len(fresh):
            found = np.concatenate([found, fresh])
            self._add(given.boxes.take(fresh, axis=1))
        shown = found >= 0
        if self._frames > options.min_hits:
            shown &= self._streak >= options.min_hits
        boxes = self._states.boxes(XYSR)[:, shown] if options.boxes == "filtered" else None
        return answer(detections, given.rows[found[shown]], self._ids[shown], boxes)

    def _predict(self, steps: float, image: Array | None) -> None:
        if self._motion is not None and image is not None:
            affine = self._motion.update(image)
            self._states.warp(affine, XYSR)
            self._last = moved_boxes(self._last, affine)
        area, growth = self._states.position[2], self._states.velocity[2]
        growth[area + steps * growth <= 0] = 0.0  # a shrinking area must not become negative
        self._states.predict(XYSR, steps)
        self._missed += steps
        self._known[self._frames % len(self._known)] = False

    def _earlier(self) -> Floats64:
        """The observation ``delta_t`` frames back, or the nearest later one, or the last there was: `(4, T)`."""
        earlier = self._last.copy()
        for age in range(1, self._options.delta_t + 1):  # the oldest one overwrites the newer ones
            slot = (self._frames - age) % len(self._known)
            np.copyto(earlier, self._recent[slot], where=self._known[slot])
        return earlier

    def _associate(self, given: Measured, sure: Array, earlier: Floats64) -> tuple[Ints, Array]:
        """The detection of each track, -1 without one, and which detections are used up."""
        options = self._options
        found = np.repeat(-1, len(self._ids))
        used = np.zeros(len(given.rows), dtype=bool)
        least = max(options.iou_threshold, 0.0)

        def take(pairs: Pairs, worth: Floats64) -> None:
            best = match_pairs(pairs.rows, pairs.columns, worth)
            best = best[pairs.overlap[best] >= least]
            found[pairs.rows[best]] = pairs.columns[best]
            used[pairs.columns[best]] = True

        # As in the paper's code pairs that overlap too little take part in the first matching and are dropped after it.
        pairs = pairs_above(self._states.boxes(XYSR), given.boxes, 0.0)
        of_sure = pairs.of(sure[pairs.columns]) if options.use_byte else pairs
        bonus = self._agreement(of_sure, earlier, given.boxes) * given.scores[of_sure.columns] * options.inertia
        take(of_sure, np.maximum(of_sure.overlap + bonus, _LEAST_WORTH))
        if options.use_byte:
            again = pairs.of(~sure[pairs.columns] & (found < 0)[pairs.rows] & (pairs.overlap >= least))
            take(again, again.overlap)
        tracks, left = (found < 0).nonzero()[0], (sure & ~used).nonzero()[0]
        if len(tracks) and len(left):
            pairs = pairs_above(self._last.take(tracks, axis=1), given.boxes.take(left, axis=1), least)
            take(Pairs(tracks[pairs.rows], left[pairs.columns], pairs.overlap), pairs.overlap)
        return found, used

    def _agreement(self, pairs: Pairs, earlier: Floats64, boxes: Floats64) -> Floats64:
        """How well a move from each pair's earlier observation to its box fits the track's direction: -0.5..0.5."""
        towards = _unit(_centres(boxes).take(pairs.columns, axis=1) - _centres(earlier).take(pairs.rows, axis=1))
        towards *= self._direction.take(pairs.rows, axis=1)
        cosine = towards[0] + towards[1]  # 0, and so no agreement, for a track without a direction
        agreement: Floats64 = 0.5 - np.arccos(np.minimum(np.maximum(cosine, -1.0), 1.0)) / np.pi
        return agreement

    def _correct(self, found: Ints, boxes: Floats64, earlier: Floats64, steps: float) -> None:
        slot = self._frames % len(self._known)
        seen = np.greater_equal(found, 0, out=self._known[slot])
        again = (seen & (self._missed > 1.5 * max(steps, 1.0))).nonzero()[0]
        if len(again):
            self._replay(again, boxes.take(found[again], axis=1), self._missed[again])
        self._states.update(XYSR, boxes, found)
        boxes = boxes.take(found, axis=1)  # from here on in the order of the tracks; -1 takes any
        np.copyto(self._direction, _unit(_centres(boxes) - _centres(earlier)), where=seen & ~self._new)
        self._new &= ~seen
        self._recent[slot] = boxes
        np.copyto(self._last, boxes, where=seen)
        self._missed[seen] = 0.0
        self._streak += seen
        np.copyto(self._saved.values, self._states.values, where=seen)

    def _replay(self, tracks: Ints, boxes: Floats64, gaps: Floats64) -> None:
        """Run filters from their last observations along straight lines to ``boxes``, as if seen all the way there.

        ``gaps`` `(K,)` are the steps since then. All are run together and end together: the longest starts first.
        """
        counts = np.maximum(1.0, np.round(gaps))
        order = (-counts).argsort(kind="stable")
        tracks, boxes, counts = tracks[order], boxes.take(order, axis=1), counts[order]
        steps = gaps[order] / counts
        values, start = self._saved.values.take(tracks, axis=2), self._last.take(tracks, axis=1)
        way = (boxes - start) / counts
        single = bool((steps == 1.0).all())
        for left in range(int(counts[0]) - 1, 0, -1):
            running = int(np.searchsorted(-counts, -left))  # those with more than ``left`` steps
            states = States(values[:, :, :running])
            states.predict(XYSR, 1.0 if single else steps[:running])
            states.update(XYSR, (start + way * (counts - left))[:, :running])
        States(values).predict(XYSR, 1.0 if single else steps)
        self._states.values[:, :, tracks] = values

    def _add(self, boxes: Floats64) -> None:
        count = boxes.shape[1]
        new = States.of(XYSR, boxes)
        self._states.add(new)
        self._saved.add(new)
        self._ids = np.concatenate([self._ids, np.arange(self._next_id, self._next_id + count)])
        self._next_id += count
        self._missed = np.concatenate([self._missed, np.zeros(count)])
        self._streak = np.concatenate([self._streak, np.zeros(count, np.int64)])
        slots = len(self._known)
        known = np.zeros((slots, count), dtype=bool)
        known[self._frames % slots] = True
        self._known = np.concatenate([self._known, known], axis=1)
        self._recent = np.concatenate([self._recent, np.broadcast_to(boxes, (slots, 4, count))], axis=2)
        self._last = np.concatenate([self._last, boxes], axis=1)
        self._direction = np.concatenate([self._direction, np.zeros((2, count))], axis=1)
        self._new = np.concatenate([self._new, np.ones(count, dtype=bool)])

    def _keep(self, kept: Ints) -> None:
        self._states.keep(kept)
        self._saved.keep(kept)
        self._ids, self._missed, self._streak = self._ids[kept], self._missed[kept], self._streak[kept]
        self._recent, self._known = self._recent.take(kept, axis=2), self._known.take(kept, axis=1)
        self._last, self._direction = self._last.take(kept, axis=1), self._direction.take(kept, axis=1)
        self._new = self._new[kept]


def _centres(boxes: Floats64) -> Floats64:
    centres: Floats64 = (boxes[:2] + boxes[2:]) * 0.5
    return centres


def _unit(vectors: Floats64) -> Floats64:
    """Vectors `(2, N)` of length 1 (0 stays 0)."""
    unit: Floats64 = vectors / (np.sqrt(vectors[0] ** 2 + vectors[1] ** 2) + 1e-6)
    return unit
