"""CLEAR MOT while the stream runs: how well tracked objects follow the truth, frame by frame, in numpy alone.

K. Bernardin and R. Stiefelhagen, "Evaluating Multiple Object Tracking Performance", 2008. The whole set of metrics,
by TrackEval, is in `edgecv.measure.tracking`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.results import Detections
from edgecv.track.assign import match
from edgecv.vision.boxes import iou

_KEEP = 1000.0


@dataclass
class ClearMot:
    """Counts of one sequence at an overlap of ``min_overlap``.

    A result that matches nothing and lies for half of its area on an ignored object (hidden, too far outside)
    counts neither way.
    """

    min_overlap: float = 0.5
    truths: int = 0
    matches: int = 0
    false_positives: int = 0
    switches: int = 0
    _last: dict[int, int] = field(default_factory=dict)
    _before: dict[int, int] = field(default_factory=dict)

    def update(
        self,
        found: Detections,
        boxes: npt.NDArray[Any],
        ids: npt.NDArray[np.int64],
        ignored: npt.NDArray[Any] | None = None,
    ) -> None:
        """Count one frame: tracked objects against true boxes `(N, 4)` with ids `(N,)` and ignored ones `(M, 4)`."""
        tracks = np.zeros(0, np.int64) if found.track_ids is None else found.track_ids
        overlap = iou(boxes, found.boxes).astype(np.float64)
        worth = np.where(overlap >= self.min_overlap, overlap, 0.0)
        for row, number in enumerate(ids):
            same = np.flatnonzero(tracks == self._before.get(int(number), -1))
            worth[row, same] += _KEEP * (worth[row, same] > 0)  # pairs of the last frame come first
        rows, columns = match(worth)
        self.truths += len(ids)
        self.matches += len(rows)
        left = np.setdiff1d(np.arange(len(tracks)), columns)
        if ignored is not None and len(ignored) and len(left):
            left = left[_covered(found.boxes[left], ignored) < self.min_overlap]
        self.false_positives += len(left)
        self._before = {}
        for row, column in zip(rows, columns, strict=True):
            number, track = int(ids[row]), int(tracks[column])
            self.switches += self._last.get(number, track) != track
            self._last[number] = self._before[number] = track

    @property
    def mota(self) -> float:
        """1 - (misses + false positives + switches) / true objects; can be below 0. NaN without any object."""
        if not self.truths:
            return float("nan")
        wrong = self.truths - self.matches + self.false_positives + self.switches
        return 1.0 - wrong / self.truths


def _covered(boxes: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The largest share of each box's area that lies on one of ``others``: `(N,)`."""
    low = np.maximum(boxes[:, np.newaxis, :2], others[np.newaxis, :, :2])
    high = np.minimum(boxes[:, np.newaxis, 2:], others[np.newaxis, :, 2:])
    shared = np.maximum(high - low, 0.0).prod(axis=2)
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-9)
    covered: npt.NDArray[np.float64] = (shared / areas[:, np.newaxis]).max(axis=1)
    return covered
