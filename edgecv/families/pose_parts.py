"""What each picture brings to a metric over keypoints, so that pictures can be counted any number of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecv.core.results import Poses
from edgecv.core.tensor import Array
from edgecv.families.box_parts import IOU_THRESHOLDS
from edgecv.families.pose_truth import PoseTruth
from edgecv.families.ranked import FALSE, IGNORED, TRUE, RankedParts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FORM = "shares"
MAX_FOUND = 20
"""Of each picture so many poses count at most, the best ones."""


@dataclass(frozen=True)
class ShareParts:
    """``right`` of ``total`` keypoints (or persons) of each picture, both `(N,)`: the metric is the share over all."""

    right: Floats | Ints
    total: Floats | Ints

    @property
    def samples(self) -> int:
        """Number of pictures."""
        return len(self.right)

    @property
    def work(self) -> int:
        """How many numbers one count of the pictures goes through."""
        return 2 * len(self.right)

    def values(self, counts: npt.NDArray[np.integer]) -> Floats:
        """The share `(R,)`, 0..1, with every picture counted as ``counts`` `(R, samples)` says; 0 where none counts."""
        weights = counts.astype(np.float64)
        right, total = weights @ self.right.astype(np.float64), weights @ self.total.astype(np.float64)
        shares: Floats = np.divide(right, total, out=np.zeros_like(right), where=total > 0)
        return shares

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays that `from_arrays` takes."""
        return {"form": np.array(FORM), "right": self.right, "total": self.total}

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> ShareParts:
        """What `arrays` gave.

        Raises:
            KeyError: an array is missing.
        """
        return ShareParts(arrays["right"].astype(np.float64), arrays["total"].astype(np.float64))


def similarity(found: npt.NDArray[np.float32], truth: PoseTruth, sigmas: Floats) -> Floats:
    """Object keypoint similarity `(D, N)`, 0..1, of poses `(D, K, 3)` and true persons; ``sigmas`` `(K,)`.

    The mean over labelled keypoints of ``exp(-d^2 / (8 area sigma^2))``. For a person without any, distances are
    those to its box made three times as large. As COCO computes it (M. Ruggero Ronchi and P. Perona, 2017,
    arXiv:1707.05388).
    """
    points, true = found[..., :2].astype(np.float64), truth.keypoints[..., :2].astype(np.float64)
    low, high = truth.boxes[:, :2].astype(np.float64), truth.boxes[:, 2:].astype(np.float64)
    wide = high - low
    away = points[:, None] - true
    outside = np.maximum((low - wide)[:, None] - points[:, None], 0) + np.maximum(
        points[:, None] - (high + wide)[:, None], 0
    )
    labelled = truth.labelled
    bare = np.logical_not(labelled.any(axis=1)).reshape(-1)
    squares = (np.where(bare[:, None, None], outside, away) ** 2).sum(axis=-1)
    area = truth.area.astype(np.float64)[:, None] + np.spacing(1)
    likeness = np.exp(-squares / (2 * sigmas) ** 2 / area / 2)
    weights = (labelled | bare[:, None]).astype(np.float64)
    result: Floats = (likeness * weights).sum(axis=-1) / np.maximum(weights.sum(axis=-1), 1)
    return result


def oks_parts(
    results: Sequence[Poses],
    truths: Sequence[PoseTruth],
    sigmas: Floats,
    *,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> RankedParts:
    """What each picture brings to an average precision over poses at the similarities ``thresholds``.

    The rules are COCO's: within a picture the best pose chooses first, each takes the free true person most like
    it, and one that is only like a person without labels, or a crowd, is ignored.
    """
    limits = np.minimum(np.asarray(thresholds, dtype=np.float64), 1 - 1e-10)
    pictures: list[int] = []
    scores: list[Floats] = []
    states: list[npt.NDArray[np.uint8]] = []
    wanted: list[tuple[int, int, int]] = []
    for picture, (result, truth) in enumerate(zip(results, truths, strict=True)):
        missing = int((~truth.ignored).sum())
        if missing:
            wanted.append((picture, 0, missing))
        found = np.argsort(-result.scores, kind="stable")[:MAX_FOUND]
        pictures += [picture] * len(found)
        scores.append(result.scores[found].astype(np.float64))
        states.append(_states(similarity(result.keypoints[found], truth, sigmas), truth, limits))
    empty = np.zeros((len(limits), 0), dtype=np.uint8)
    return RankedParts(
        len(results),
        np.array(pictures, dtype=np.int64),
        np.zeros(len(pictures), dtype=np.int64),
        np.concatenate([*scores, np.zeros(0)]),
        np.concatenate([*states, empty], axis=1),
        np.array(wanted, dtype=np.int64).reshape(-1, 3),
    )


def _states(likeness: Floats, truth: PoseTruth, limits: Floats) -> npt.NDArray[np.uint8]:
    """`(T, D)`: what each pose (best first) is at each threshold."""
    states = np.full((len(limits), len(likeness)), FALSE, dtype=np.uint8)
    ignored = truth.ignored
    for level, limit in enumerate(limits):
        free = np.ones(len(truth), dtype=bool)
        for row in range(len(likeness)):
            for group, state in ((~ignored, TRUE), (ignored, IGNORED)):
                # Of equals the last true one is taken, as the reference does.
                mine = np.where(group & free, likeness[row], -1.0)[::-1]
                if mine.size and mine.max() >= limit:
                    best = len(mine) - 1 - int(mine.argmax())
                    states[level, row] = state
                    free[best] = bool(truth.crowd[best])
                    break
    return states
