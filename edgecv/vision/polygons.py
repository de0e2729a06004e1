"""Polygons in a picture: areas, overlaps, tight rectangles, growing, and quadrilaterals cut out upright.

A polygon is `(K, 2)` x, y in continuous pixels (pixel i covers [i, i + 1)), K >= 3, in either direction.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.vision.image import Image

Points = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

__all__ = [
    "area",
    "cut_quad",
    "distances",
    "iou",
    "longer",
    "overlap",
    "perimeter",
    "reading_quad",
    "tight_quad",
    "unshrunk",
]

_LEAST_PX = 2.0
_LARGEST_PX = 4096


def area(polygon: Points) -> float:
    """The area in square pixels."""
    return abs(_signed(np.asarray(polygon, dtype=np.float64)))


def perimeter(polygon: Points) -> float:
    """The length of the border in pixels."""
    points = np.asarray(polygon, dtype=np.float64)
    return float(np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1).sum())


def overlap(one: Points, other: Points) -> float:
    """The area that two simple polygons (convex or not) have in common, in square pixels.

    Each is a sum of triangles with a common corner, some of which count negative; so is their product.
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if (first.max(axis=0) <= second.min(axis=0)).any() or (second.max(axis=0) <= first.min(axis=0)).any():
        return 0.0
    total = 0.0
    for triangle in _fan(first):
        for piece in _fan(second):
            total += (
                math.copysign(1.0, _signed(triangle)) * math.copysign(1.0, _signed(piece)) * _common(triangle, piece)
            )
    return abs(total)


def iou(one: Points, other: Points) -> float:
    """Intersection over union of two simple polygons, 0..1; 0 where both have no area."""
    common = overlap(one, other)
    union = area(one) + area(other) - common
    return common / union if union > 0 else 0.0


def distances(polygon: Points, points: Points) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """How far ``points`` `(N, 2)` are from the border of ``polygon``, in pixels `(N,)`, and which lie inside."""
    corners, places = np.asarray(polygon, dtype=np.float64), np.asarray(points, dtype=np.float64)
    ends = np.roll(corners, -1, axis=0)
    along = ends - corners
    offset = places[:, None] - corners
    length = np.maximum((along**2).sum(axis=1), 1e-12)
    share = np.clip((offset * along).sum(axis=2) / length, 0.0, 1.0)
    away: Floats = np.sqrt(((offset - share[..., None] * along) ** 2).sum(axis=2).min(axis=1))
    above, above_end = corners[:, 1] > places[:, 1:2], ends[:, 1] > places[:, 1:2]
    rise = np.where(along[:, 1] == 0, 1e-12, along[:, 1])
    crossing = corners[:, 0] + (places[:, 1:2] - corners[:, 1]) / rise * along[:, 0]
    inside: npt.NDArray[np.bool_] = ((above != above_end) & (places[:, :1] < crossing)).sum(axis=1) % 2 == 1
    return away, inside


def tight_quad(points: Points, *, grow: float = 0.0) -> Floats:
    """The smallest rectangle, turned as need be, around ``points`` `(N, 2)`, each side moved out by ``grow`` pixels.

    `(4, 2)` as `reading_quad` orders it.
    """
    (x, y), (width, height), angle = cv2.minAreaRect(np.asarray(points, dtype=np.float32).reshape(-1, 1, 2))
    turn = math.radians(angle)
    across, down = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    half = max(0.0, width / 2 + grow) * across, max(0.0, height / 2 + grow) * down
    corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    return reading_quad(np.array([[x, y] + sx * half[0] + sy * half[1] for sx, sy in corners]))


def unshrunk(width: float, height: float, *, keep: float) -> float:
    """By how many pixels each side of a ``width`` x ``height`` rectangle must move out to undo a shrinking.

    The shrinking is that of differentiable binarisation (arXiv:1911.08947): a shape of area A and perimeter L moves
    in by ``(1 - keep^2) A / L``. For a rectangle this is solved exactly: with s = width + height, k = 1 - keep^2,
    ``(8 - 4 k) d^2 + (2 - 2 k) s d - k width height = 0``.
    """
    lost, sides = 1.0 - keep * keep, width + height
    a, b, c = 8.0 - 4.0 * lost, (2.0 - 2.0 * lost) * sides, -lost * width * height
    return (-b + math.sqrt(b * b - 4.0 * a * c)) / (2.0 * a)


def reading_quad(quad: Points) -> Floats:
    """The corners `(4, 2)` of a quadrilateral from the top left one on, clockwise, as text in it is read.

    The longer pair of sides is along the line (of near squares the flatter one), and runs to the right; steeper than
    60 degrees it runs down.
    """
    points = np.asarray(quad, dtype=np.float64)
    if _signed(points) < 0:
        points = points[::-1]
    sides = np.roll(points, -1, axis=0) - points
    lengths = np.linalg.norm(sides, axis=1)
    long = (lengths[0] + lengths[2], lengths[1] + lengths[3])
    flat = (abs(sides[0, 1] - sides[2, 1]), abs(sides[1, 1] - sides[3, 1]))
    square = max(long) < 1.2 * min(long)
    first = (0 if flat[0] <= flat[1] else 1) if square else (0 if long[0] >= long[1] else 1)
    right, down = sides[first] - sides[(first + 2) % 4]
    backwards = down < 0 if abs(down) > math.sqrt(3.0) * abs(right) else right < 0
    return np.roll(points, -(first + 2 if backwards else first), axis=0)


def cut_quad(image: Image, quad: Points, *, margin: float = 1.0) -> Image | None:
    """What stands in ``quad`` `(4, 2)` (top left, top right, bottom right, bottom left), seen upright.

    uint8 of ``image``'s channels; as wide and high as the quadrilateral's mean sides in pixels. ``margin`` first makes
    its shorter sides so many times as long, and the others longer by as many pixels. Outside the picture its border
    goes on. None for one that is not finite or is smaller than two pixels.
    """
    corners = np.asarray(quad, dtype=np.float64)
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        return None
    sides = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
    width, height = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
    if min(width, height) < _LEAST_PX or area(corners) < _LEAST_PX**2:
        return None
    more = (margin - 1.0) * min(width, height) / 2
    wide, high = (min(_LARGEST_PX, max(2, round(side + 2 * more))) for side in (width, height))
    scale = np.array([wide / (width + 2 * more), high / (height + 2 * more)])
    low, far = more * scale, np.array([wide, high]) - more * scale
    target = np.array([low, [far[0], low[1]], far, [low[0], far[1]]])
    # The transform maps pixel centres, corners are edges: half a pixel lies between.
    matrix = cv2.getPerspectiveTransform((corners - 0.5).astype(np.float32), (target - 0.5).astype(np.float32))
    return np.asarray(
        cv2.warpPerspective(image, matrix, (wide, high), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        dtype=np.uint8,
    )


def longer(quad: Points, share: float) -> Floats:
    """``quad`` `(4, 2)` (top left, top right, bottom right, bottom left) made longer along its text.

    By ``share`` of its height in all, half of that at each end.
    """
    corners = np.asarray(quad, dtype=np.float64)
    along = (corners[1] - corners[0] + corners[2] - corners[3]) / 2
    height = float(np.linalg.norm(corners[3] - corners[0] + corners[2] - corners[1])) / 2
    step = along / max(float(np.linalg.norm(along)), 1e-9) * height * share / 2
    moved: Floats = corners + np.array([-1.0, 1.0, 1.0, -1.0])[:, None] * step
    return moved


def _signed(points: Floats) -> float:
    x, y = points[:, 0], points[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _fan(points: Floats) -> list[Floats]:
    """Triangles from the first corner; where they are turned the other way they count negative."""
    found = (points[[0, index, index + 1]] for index in range(1, len(points) - 1))
    return [triangle for triangle in found if _signed(triangle) != 0.0]


def _common(one: Floats, other: Floats) -> float:
    """The area that two triangles have in common (I. Sutherland and G. Hodgman, "Reentrant Polygon Clipping", 1974)."""
    clip = [tuple(point) for point in (other if _signed(other) > 0 else other[::-1])]
    kept = [tuple(point) for point in one]
    for (ax, ay), (bx, by) in zip(clip, clip[1:] + clip[:1], strict=True):
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in kept]
        cut = []
        for index, (x, y) in enumerate(kept):
            side, (px, py), before = sides[index], kept[index - 1], sides[index - 1]
            if (side >= 0) != (before >= 0):
                share = before / (before - side)
                cut.append((px + share * (x - px), py + share * (y - py)))
            if side >= 0:
                cut.append((x, y))
        kept = cut
        if len(kept) < 3:
            return 0.0
    return abs(_signed(np.array(kept)))
