"""Results drawn over their picture: boxes, names, track ids, skeletons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from edgecv.core.masks import ObjectMask
from edgecv.core.results import Classification, Detections, Poses, label_of
from edgecv.vision.image import Image
from edgecv.vision.letters import Words

Color = tuple[int, int, int]

# Twelve colours (BGR) that can be told apart on dark and light pictures.
_PALETTE: tuple[Color, ...] = (
    (66, 133, 244), (83, 168, 52), (0, 188, 251), (53, 67, 234), (216, 112, 171), (193, 172, 0),
    (0, 111, 255), (157, 157, 36), (99, 30, 233), (36, 157, 158), (180, 92, 63), (61, 199, 205),
)  # fmt: skip
_KEYPOINT_SCORE = 0.2
_TINT = 0.45


@runtime_checkable
class Drawable(Protocol):
    """A result that draws itself, as those do which a family defines in its own file."""

    def draw(self, image: Image, scale: float) -> None:
        """Draw into ``image`` (uint8 `(H, W, 3)` BGR); ``scale`` is 1 for a picture 720 pixels high."""
        ...


@runtime_checkable
class Brief(Protocol):
    """A result that can be told in a word, which an object's box then shows when a second stage gave it."""

    def brief(self) -> str:
        """The word; "" for nothing."""
        ...


@runtime_checkable
class Pictured(Protocol):
    """A result that is a picture itself."""

    @property
    def picture(self) -> Image:
        """uint8 `(H, W, 3)` BGR, of any size."""
        ...


def picture_of(image: Image, result: Any) -> Image:
    """The picture to keep of a result: its own where it is one, else a copy of ``image`` with the result drawn on it.

    ``image`` is uint8, `(H, W, 3)` BGR or `(H, W)` gray.
    """
    if isinstance(result, Pictured):
        return result.picture
    copied: Image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image.copy()
    draw(copied, result)
    return copied


def draw(image: Image, result: Any, *, lines: Sequence[str] = ()) -> None:
    """Draw ``result`` into ``image`` (uint8 `(H, W, 3)` BGR), and ``lines`` of text in its top left corner.

    Line widths and letters grow with the picture. What lies outside is cut; what is not finite is left out.
    A result of a kind that has no drawing leaves the picture as it is.
    """
    scale = max(0.45, min(image.shape[:2]) / 720)
    drawer = _DRAWERS.get(type(result))
    if drawer is not None:
        drawer(image, result, scale)
    elif isinstance(result, Drawable):
        result.draw(image, scale)
    for row, line in enumerate(lines):
        put_text(image, line, (6, round((row + 1) * 26 * scale) + 4), scale, (40, 40, 40))


def color_of(number: int) -> Color:
    """A colour that stays the same for the same track or class."""
    return _PALETTE[number % len(_PALETTE)]


def _detections(image: Image, found: Detections, scale: float) -> None:
    thick = max(1, round(2 * scale))
    for row in range(len(found)):
        corners = _corners(found.boxes[row], image)
        if corners is None:
            continue
        track = None if found.track_ids is None else int(found.track_ids[row])
        index = int(found.class_ids[row])
        color = color_of(index if track is None else track)
        if not (found.masks and _mask(image, found.masks[row], color, thick)):
            cv2.rectangle(image, corners[0], corners[1], color, thick, cv2.LINE_AA)
        if found.keypoints is not None:
            _skeleton(image, found.keypoints[row], found.skeleton, color, scale)
        words = f"{label_of(found.labels, index)} {found.scores[row]:.2f}"
        if track is not None:
            words = f"#{track} {words}"
        second = found.second[row] if found.second else None
        if isinstance(second, Brief):
            words = " | ".join(part for part in (words, second.brief()) if part)
        put_text(image, words, (corners[0][0], corners[0][1] - 3), scale * 0.9, color)
        if isinstance(second, Poses):
            _poses(image, second, scale)


def _mask(image: Image, mask: ObjectMask, color: Color, thick: int) -> bool:
    """Tint an object's pixels and draw the line around them; False where there are none in a picture of this size."""
    if mask.picture != image.shape[:2] or mask.width == 0:
        return False
    part = image[mask.top : mask.top + mask.height, mask.left : mask.left + mask.width]
    bits = mask.bits().view(np.uint8)
    tinted = cv2.addWeighted(part, 1 - _TINT, np.full_like(part, color), _TINT, 0)
    cv2.copyTo(tinted, bits, part)
    outlines, _ = cv2.findContours(bits, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, color, thick, cv2.LINE_AA, offset=(mask.left, mask.top))
    return True


def _poses(image: Image, found: Poses, scale: float) -> None:
    for row in range(len(found)):
        _skeleton(image, found.keypoints[row], found.skeleton, color_of(row + 3), scale)


def _classification(image: Image, found: Classification, scale: float) -> None:
    for row, index in enumerate(found.class_ids[:5]):
        words = f"{label_of(found.labels, int(index))} {found.scores[index]:.2f}"
        put_text(image, words, (6, round((row + 1) * 26 * scale) + 4), scale, color_of(int(index)))


_DRAWERS: dict[type, Callable[[Image, Any, float], None]] = {
    Detections: _detections,
    Poses: _poses,
    Classification: _classification,
}


def _skeleton(image: Image, points: Any, pairs: Sequence[tuple[int, int]], color: Color, scale: float) -> None:
    thick, seen = max(1, round(2 * scale)), points[:, 2] >= _KEYPOINT_SCORE
    seen &= np.isfinite(points).all(axis=1)
    for one, other in pairs:
        if one < len(seen) and other < len(seen) and seen[one] and seen[other]:
            cv2.line(image, _point(points[one]), _point(points[other]), color, thick, cv2.LINE_AA)
    for row in np.flatnonzero(seen):
        cv2.circle(image, _point(points[row]), max(1, round(3 * scale)), (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(image, _point(points[row]), max(1, round(3 * scale)), color, max(1, thick // 2), cv2.LINE_AA)


def put_text(image: Image, words: str, place: tuple[int, int], scale: float, color: Color) -> None:
    """White or black letters on a filled box, moved inside the picture."""
    line = Words(words, scale)
    left = min(max(0, place[0]), max(0, image.shape[1] - line.width - 6))
    bottom = min(max(line.height + line.base + 2, place[1]), image.shape[0] - 1)
    top = bottom - line.height - line.base - 2
    cv2.rectangle(image, (left, top), (left + line.width + 6, bottom + 2), color, -1)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 140
    line.draw(image, (left + 3, bottom - line.base + 1), (0, 0, 0) if bright else (255, 255, 255))


def _corners(box: Any, image: Image) -> tuple[tuple[int, int], tuple[int, int]] | None:
    if not np.isfinite(box).all():
        return None
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(value) for value in box)
    if x2 < 0 or y2 < 0 or x1 > width or y1 > height or x2 < x1 or y2 < y1:
        return None
    low = (round(max(0.0, x1)), round(max(0.0, y1)))
    return low, (min(width - 1, math.ceil(x2)), min(height - 1, math.ceil(y2)))


def _point(values: Any) -> tuple[int, int]:
    return round(max(-1e4, min(1e4, float(values[0])))), round(max(-1e4, min(1e4, float(values[1]))))
