"""Camera motion: how the whole picture moved since the last one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edgecv.core.tensor import Array
from edgecv.track.kalman import Floats64

_STILL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_FEWEST_POINTS = 8


@dataclass
class CameraMotion:
    """Sparse optical flow of corners between two pictures, then a similarity by RANSAC (as in BoT-SORT).

    Works on a gray picture of at most ``width`` pixels; a few milliseconds on one core.
    """

    width: int = 320
    corners: int = 300
    _before: Any = None

    def update(self, image: Array) -> Floats64:
        """The affine map `(2, 3)` of points of the last picture to ``image``; the identity where it cannot be told."""
        gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        scale = min(1.0, self.width / gray.shape[1])
        if scale < 1.0:
            gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        before, self._before = self._before, gray
        if before is None or before.shape != gray.shape:
            return _STILL.copy()
        points = cv2.goodFeaturesToTrack(before, self.corners, 0.01, 5)
        if points is None or len(points) < _FEWEST_POINTS:
            return _STILL.copy()
        moved, status, _ = cv2.calcOpticalFlowPyrLK(before, gray, points, None)
        kept = status.reshape(-1) == 1
        if kept.sum() < _FEWEST_POINTS:
            return _STILL.copy()
        affine, _ = cv2.estimateAffinePartial2D(points[kept], moved[kept], method=cv2.RANSAC, ransacReprojThreshold=2.0)
        if affine is None or not np.isfinite(affine).all():
            return _STILL.copy()
        found = np.asarray(affine, dtype=np.float64)
        found[:, 2] /= scale
        return found
