"""A picture made from a picture: what the family restoration gives, and how it is shown beside what it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edgecv.vision.draw import put_text
from edgecv.vision.fidelity import WINDOW, ssim
from edgecv.vision.image import Image

_INK = (40, 40, 40)
_INSET = 4
"""The inset that shows the whole frame is a quarter as wide as the frame."""


@dataclass(frozen=True)
class Restored:
    """``picture`` is uint8 `(scale * H, scale * W, 3)` BGR for a picture of `(H, W)`."""

    picture: Image
    scale: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: size, scale and the SHA-256 of the pixels; the pixels are too many for it."""
        height, width = self.picture.shape[:2]
        digest = hashlib.sha256(self.picture.tobytes()).hexdigest()
        return {"picture": {"width": width, "height": height, "scale": self.scale, "sha256": digest}}

    def words(self) -> str:
        """Its size, on one line."""
        height, width = self.picture.shape[:2]
        larger = "" if self.scale == 1 else f", {self.scale} times as large"
        return f"restored picture of {width} x {height} pixels{larger}"

    def likeness(self, other: Restored) -> float:
        """The structural similarity of the two, 0 to 1; 0 where they differ in size or are too small for it."""
        if self.picture.shape != other.picture.shape or min(self.picture.shape[:2]) < WINDOW:
            return 0.0
        return max(0.0, ssim(self.picture.astype(np.float64), other.picture.astype(np.float64)))

    def draw(self, image: Image, scale: float) -> None:
        """Before and after in one frame: the left half as it was, the right half restored.

        Where the restored picture is larger, the frame cannot show it whole without throwing its pixels away. Both
        halves then show the same middle part of the frame at the restored picture's own pixels, the left one
        enlarged by cubic interpolation, and an inset in the corner says where that part lies.
        """
        height, width = image.shape[:2]
        if self.picture.shape[0] < 2 or self.picture.shape[1] < 2 or width < 4:
            return
        middle = width // 2
        if self.scale == 1:
            image[:, middle:] = _sized(self.picture, height, width)[:, middle:]
            names = ("before", "after")
        else:
            self._zoom(image, middle)
            names = (f"cubic {self.scale}x", f"restored {self.scale}x")
        thick = max(1, round(2 * scale))
        cv2.line(image, (middle, 0), (middle, height), (255, 255, 255), thick)
        bottom = height - max(4, round(6 * scale))
        put_text(image, names[0], (6, bottom), scale, _INK)
        put_text(image, names[1], (middle + 6, bottom), scale, _INK)

    def _zoom(self, image: Image, middle: int) -> None:
        """The same part of the frame in both halves, each pixel of the restored picture one of the frame."""
        height, width = image.shape[:2]
        before = image.copy()
        after = _sized(self.picture, height * self.scale, width * self.scale)
        part_h, part_w = height // self.scale, middle // self.scale
        if part_h < 1 or part_w < 1:
            return
        top, left = (height - part_h) // 2, (width - part_w) // 2
        seen = before[top : top + part_h, left : left + part_w]
        shown = after[top * self.scale : (top + part_h) * self.scale, left * self.scale : (left + part_w) * self.scale]
        image[:, :middle] = cv2.resize(seen, (middle, height), interpolation=cv2.INTER_CUBIC)
        image[:, middle:] = cv2.resize(shown, (width - middle, height), interpolation=cv2.INTER_LINEAR)
        _inset(image, before, (left, top, left + part_w, top + part_h))


def _inset(image: Image, whole: Image, part: tuple[int, int, int, int]) -> None:
    """The whole frame, small, in the top right corner, with a box around ``part`` (x1, y1, x2, y2)."""
    height, width = image.shape[0] // _INSET, image.shape[1] // _INSET
    if height < 8 or width < 8:
        return
    small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    x1, y1, x2, y2 = (round(value / _INSET) for value in part)
    cv2.rectangle(small, (x1, y1), (min(x2, width - 1), min(y2, height - 1)), (255, 255, 255), 1)
    cv2.rectangle(small, (0, 0), (width - 1, height - 1), _INK, 1)
    image[:height, -width:] = small


def _sized(picture: Image, height: int, width: int) -> Image:
    """The picture at another size, where the frame was resized since it was taken (a live page)."""
    if picture.shape[:2] == (height, width):
        return picture
    small = height < picture.shape[0]
    sized: Image = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if small else cv2.INTER_LINEAR)
    return sized
