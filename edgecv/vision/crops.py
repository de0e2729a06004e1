"""Objects cut out of a picture for a second model, and its coordinates taken back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.results import Detections, Poses
from edgecv.vision.image import Image

CROP_MARGIN = 1.25
"""How much longer than a person's box each side of a cut-out is, as SimpleBaseline takes it (arXiv:1804.06208)."""
_SMALLEST = 2


@dataclass(frozen=True)
class Crop:
    """A part of a picture: a view of it (nothing is copied) and its top left corner (x, y) in pixels."""

    image: Image
    corner: tuple[int, int]

    def to_picture(self, result: Any) -> Any:
        """A result in the crop's pixels -> in the picture's; one without coordinates comes back as it is."""
        shift = np.array(self.corner, dtype=np.float32)
        if isinstance(result, Poses):
            moved = result.keypoints.copy()
            moved[..., :2] += shift
            boxes = None if result.boxes is None else result.boxes + np.tile(shift, 2)
            return replace(result, keypoints=moved, boxes=boxes)
        if isinstance(result, Detections):
            keypoints = result.keypoints
            if keypoints is not None:
                keypoints = keypoints.copy()
                keypoints[..., :2] += shift
            return replace(result, boxes=result.boxes + np.tile(shift, 2), keypoints=keypoints)
        return result


def crop(image: Image, box: npt.NDArray[Any], *, margin: float = 1.0, aspect: float | None = None) -> Crop | None:
    """Cut ``box`` `(4,)` x1, y1, x2, y2 out of ``image``, each side ``margin`` times as long, on whole pixels.

    ``aspect`` (width / height) first widens the shorter side to the second model's shape, so that a resize
    bends nothing. Where the part sticks out of the picture, it is cut. None for a box that is not finite,
    lies outside, or is smaller than two pixels there.
    """
    window = crop_window((image.shape[0], image.shape[1]), box, margin=margin, aspect=aspect)
    if window is None:
        return None
    left, top, right, bottom = window
    return Crop(image[top:bottom, left:right], (left, top))


def crop_window(
    size: tuple[int, int], box: npt.NDArray[Any], *, margin: float = 1.0, aspect: float | None = None
) -> tuple[int, int, int, int] | None:
    """The part x1, y1, x2, y2 that `crop` cuts out of a picture of (height, width) ``size``, in whole pixels."""
    values = np.asarray(box, dtype=np.float64)
    if not np.isfinite(values).all() or values[2] <= values[0] or values[3] <= values[1]:
        return None
    centre, sides = (values[:2] + values[2:]) / 2, (values[2:] - values[:2]) * margin
    if aspect is not None:
        sides = np.array([max(sides[0], sides[1] * aspect), max(sides[1], sides[0] / aspect)])
    height, width = size
    low = np.clip(np.floor(centre - sides / 2), 0, [width, height]).astype(int)
    high = np.clip(np.ceil(centre + sides / 2), 0, [width, height]).astype(int)
    if (high - low < _SMALLEST).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
