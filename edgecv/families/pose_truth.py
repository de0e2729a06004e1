"""The true keypoints of one picture, and where they go when the picture is cut, resized, moved or mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.results import Shapes
from edgecv.errors import DataError
from edgecv.vision.image import geometry

COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip

Floats = npt.NDArray[np.float32]
_SMALLEST_AREA = 1e-6


@dataclass(frozen=True)
class PoseTruth:
    """The true persons (hands, faces, ...) of one picture, in pixels of a picture of ``size`` (height, width).

    ``keypoints`` is `(N, K, 3)` float32: x, y and 0 (not labelled), 1 (labelled, hidden) or 2 (labelled, seen).
    ``boxes`` `(N, 4)` float32 x1, y1, x2, y2; ``area`` `(N,)` float32, square pixels that each one covers; ``crowd``
    `(N,)` bool marks boxes around many, which count neither as found nor as missed. ``mirror`` is, for each of the K
    keypoints, the one that it is in a mirrored picture; () where nobody knows.
    """

    keypoints: Floats
    boxes: Floats
    area: Floats
    crowd: npt.NDArray[np.bool_]
    size: tuple[int, int]
    mirror: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        if self.keypoints.ndim != 3 or self.keypoints.shape[2] != 3:
            raise ValueError(f"keypoints have shape {self.keypoints.shape}; (N, K, 3) is needed")
        if self.boxes.shape != (count, 4) or self.area.shape != (count,) or self.crowd.shape != (count,):
            raise ValueError(
                f"boxes {self.boxes.shape}, area {self.area.shape} and crowd {self.crowd.shape} do not fit {count} "
                "persons"
            )

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which keypoints are labelled, `(N, K)`."""
        there: npt.NDArray[np.bool_] = self.keypoints[..., 2] > 0
        return there

    @property
    def ignored(self) -> npt.NDArray[np.bool_]:
        """Crowds, and persons without a labelled keypoint, `(N,)`: neither to be found nor to be missed."""
        left_out: npt.NDArray[np.bool_] = self.crowd | ~self.labelled.any(axis=1)
        return left_out

    def cut(self, window: tuple[int, int, int, int]) -> PoseTruth:
        """The same in a part of the picture, ``window`` x1, y1, x2, y2 in whole pixels. No person is left out."""
        left, top, right, bottom = window
        shift = np.array([left, top], dtype=np.float32)
        return self._placed(
            self.keypoints[..., :2] - shift, self.boxes - np.tile(shift, 2), (bottom - top, right - left)
        )

    def to_network(self, contract: InputContract) -> PoseTruth:
        """The same in pixels of the network's input; keypoints that are cut off there are no longer labelled."""
        place = geometry(self.size, contract)
        corners = place.to_network(self.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        scale = float(np.prod(place.scale))
        moved = self._placed(place.to_network(self.keypoints[..., :2]), corners, contract.size)
        return replace(moved, area=(self.area * scale).astype(np.float32))

    def shapes(self) -> Shapes:
        """Boxes and keypoints, to be moved with their picture."""
        return Shapes(self.boxes, self.keypoints[..., :2].reshape(-1, 2))

    def with_shapes(self, shapes: Shapes, *, size: tuple[int, int], mirrored: bool) -> PoseTruth:
        """The same with other boxes and keypoints; left and right ones change places in a mirrored picture.

        Raises:
            DataError: it is mirrored and nobody knows which keypoints are left and right ones.
        """
        before, after = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (self.boxes, shapes.boxes))
        area = self.area * after / np.maximum(before, _SMALLEST_AREA)
        found = replace(
            self._placed(shapes.points.reshape(*self.keypoints.shape[:2], 2), shapes.boxes, size),
            area=area.astype(np.float32),
        )
        if not mirrored:
            return found
        if len(self.mirror) != self.keypoints.shape[1]:
            raise DataError(
                "a picture cannot be mirrored: the keypoints' names do not tell left from right (left_eye, right_eye); "
                "set augment: crop instead of crop-flip, or flip: false"
            )
        return replace(found, keypoints=found.keypoints[:, list(self.mirror)])

    def _placed(self, points: npt.NDArray[Any], boxes: npt.NDArray[Any], size: tuple[int, int]) -> PoseTruth:
        """New coordinates in a picture of ``size``; what lies outside is no longer labelled."""
        inside = ((points >= 0) & (points <= np.array([size[1], size[0]]))).all(axis=-1)
        keypoints = np.concatenate([points, (self.keypoints[..., 2] * inside)[..., None]], axis=-1).astype(np.float32)
        return replace(self, keypoints=keypoints, boxes=np.asarray(boxes, dtype=np.float32), size=size)


def mirror_of(names: Sequence[str]) -> tuple[int, ...]:
    """For each keypoint the place of the one that it is in a mirrored picture: ``left_eye`` and ``right_eye`` change.

    () where no name says left or right, or one of a pair is missing.
    """
    partners = []
    for name in names:
        other = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
        if other not in names:
            return ()
        partners.append(list(names).index(other))
    return tuple(partners) if any(place != index for index, place in enumerate(partners)) else ()


COCO_MIRROR = mirror_of(COCO_KEYPOINTS)
