"""Made-up surfaces (woven, wood, metal, tiles, stone) and the defects that spoil them, with exact masks.

Every picture is a function of its random generator alone, so that two machines draw the same.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.tensor import FloatArray
from edgecv.vision.image import Image

__all__ = ["DEFECTS", "TEXTURES", "Mask", "add_defect", "draw_texture"]

Mask = npt.NDArray[np.uint8]
Random = np.random.Generator

_CHANGED = 0.25
"""Pixels that a defect covers by at least this share belong to it."""
_SIDE = 128
"""Defects are as large as they should be in pictures whose shorter side has so many pixels."""
_LEAST_CHANGE = 20.0
"""A defect changes its pixels by so many of 255 levels in the mean, or it is drawn again with more contrast."""


def draw_texture(name: str, random: Random, *, size: tuple[int, int] = (128, 128)) -> Image:
    """A flawless surface ``name`` (one of `TEXTURES`), uint8 `(H, W, 3)` BGR of (height, width) ``size``.

    Place, scale, colour and light vary from picture to picture as they do under a camera.

    Raises:
        KeyError: there is no such texture.
    """
    image = _TEXTURES[name](random, size)
    height, width = size
    angle, slope = random.uniform(0, 2 * np.pi), random.uniform(0.0, 0.18)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = (np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)) * slope
    light = (random.uniform(0.9, 1.1) + ramp)[..., None]
    grain = random.normal(0.0, 0.008, (*size, 3))
    return _as_image(image * light + grain)


def add_defect(image: Image, kind: str, random: Random) -> tuple[Image, Mask]:
    """A copy of ``image`` (uint8 `(H, W, 3)` BGR) with a defect ``kind`` (one of `DEFECTS`), and where it is.

    It is as large as `draw_texture`'s pictures need it, larger in larger pictures. The mask is uint8 `(H, W)`, 1 on
    the defect's pixels; at least one is.

    Raises:
        KeyError: there is no such defect.
    """
    plain = image.astype(np.float32) / 255.0
    for strength in (1.0, 1.4, 2.0, 3.0):
        cover, paint = _DEFECTS[kind](plain, random, strength)
        spoiled = _as_image(plain + cover[..., None] * (paint - plain))
        mask = (cover >= _CHANGED).astype(np.uint8)
        if not mask.any():
            continue
        change = np.abs(spoiled.astype(np.int16) - image.astype(np.int16)).mean(axis=2)
        if float(change[mask > 0].mean()) >= _LEAST_CHANGE:
            break
    else:
        height, width = mask.shape
        if not mask.any():
            cover[height // 2 - 2 : height // 2 + 3, width // 2 - 2 : width // 2 + 3] = 1.0
            mask = (cover >= _CHANGED).astype(np.uint8)
        spoiled = _as_image(plain + cover[..., None] * ((plain.mean() < 0.5) * 1.0 - plain))
    return spoiled, mask


def _as_image(values: FloatArray) -> Image:
    image: Image = np.clip(values * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return image


def _noise(random: Random, size: tuple[int, int], cells: tuple[float, float]) -> FloatArray:
    """Smooth noise `(H, W)` of about -1..1 whose grains are ``cells`` (height, width) pixels large."""
    rows, columns = (max(2, round(length / cell)) for length, cell in zip(size, cells, strict=True))
    coarse = random.normal(0.0, 0.5, (rows, columns)).astype(np.float32)
    smooth: FloatArray = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return smooth


def _colored(base: tuple[float, float, float], random: Random, values: FloatArray) -> FloatArray:
    """A base colour (BGR 0..1) that differs a little each time, times ``values`` `(H, W)`."""
    color = np.array(base, dtype=np.float32) * random.uniform(0.96, 1.04, 3).astype(np.float32)
    painted: FloatArray = values[..., None] * color
    return painted


def _grid(random: Random, size: tuple[int, int], tilt: float) -> tuple[FloatArray, FloatArray]:
    """Coordinates y, x `(H, W)` in pixels, turned by up to ``tilt`` radians and moved."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    angle = random.uniform(-tilt, tilt)
    down, right = random.uniform(0, 64, 2)
    return (
        (np.cos(angle) * y + np.sin(angle) * x + down).astype(np.float32),
        (np.cos(angle) * x - np.sin(angle) * y + right).astype(np.float32),
    )


def _woven(random: Random, size: tuple[int, int]) -> FloatArray:
    y, x = _grid(random, size, 0.04)
    y, x = y + 0.8 * _noise(random, size, (24, 24)), x + 0.8 * _noise(random, size, (24, 24))
    pitch = 8.0
    over = (np.floor(y / pitch) + np.floor(x / pitch)) % 2
    warp = 0.5 + 0.5 * np.abs(np.sin(np.pi * x / pitch))
    weft = 0.5 + 0.5 * np.abs(np.sin(np.pi * y / pitch))
    threads = np.where(over > 0, warp, 0.85 * weft) + 0.05 * _noise(random, size, (3, 3))
    return _colored((0.62, 0.66, 0.72), random, threads.astype(np.float32))


def _wood(random: Random, size: tuple[int, int]) -> FloatArray:
    y, _ = _grid(random, size, 0.05)
    bent = y + 5.0 * _noise(random, size, (40, 90)) + 1.0 * _noise(random, size, (8, 60))
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * bent / random.uniform(13.0, 17.0))
    grain = 0.10 * _noise(random, size, (1.5, 40)) + 0.04 * _noise(random, size, (1, 12))
    return _colored((0.36, 0.55, 0.78), random, (0.78 + 0.2 * rings + grain).astype(np.float32))


def _metal(random: Random, size: tuple[int, int]) -> FloatArray:
    lines = 0.10 * _noise(random, size, (1, 80)) + 0.06 * _noise(random, size, (2, 30))
    sheen = 0.08 * _noise(random, size, (60, 200))
    return _colored((0.68, 0.67, 0.65), random, (0.9 + lines + sheen).astype(np.float32))


def _tiles(random: Random, size: tuple[int, int]) -> FloatArray:
    y, x = _grid(random, size, 0.03)
    pitch = 32.0
    row, column = np.floor(y / pitch).astype(int), np.floor(x / pitch).astype(int)
    shades = random.uniform(0.92, 1.08, (16, 16)).astype(np.float32)
    tone = shades[row % 16, column % 16] + 0.03 * _noise(random, size, (4, 4)) + 0.03 * _noise(random, size, (14, 14))
    edge = np.minimum.reduce([y % pitch, pitch - y % pitch, x % pitch, pitch - x % pitch])
    joint = np.clip((2.4 - edge) / 1.2, 0.0, 1.0)
    color = _colored((0.66, 0.60, 0.52), random, tone.astype(np.float32))
    tiled: FloatArray = (color * (1 - joint[..., None]) + 0.34 * joint[..., None]).astype(np.float32)
    return tiled


def _stone(random: Random, size: tuple[int, int]) -> FloatArray:
    cells = ((2, 2, 0.10), (5, 5, 0.12), (12, 12, 0.08))
    speckles = sum(weight * _noise(random, size, (high, wide)) for high, wide, weight in cells)
    return _colored((0.56, 0.57, 0.58), random, (0.95 + np.asarray(speckles)).astype(np.float32))


def _place(random: Random, size: tuple[int, int]) -> tuple[float, float]:
    """A point x, y that keeps away from the edges."""
    return float(random.uniform(0.15, 0.85) * size[1]), float(random.uniform(0.15, 0.85) * size[0])


def _unit(size: tuple[int, int]) -> float:
    """Pixels of this picture that are one of a picture of `_SIDE`."""
    return min(size) / _SIDE


def _blob(random: Random, size: tuple[int, int], radius: float, *, soft: float) -> FloatArray:
    """An uneven round patch, 1 inside and 0 outside, with an edge ``soft`` wide; both in pixels of `_SIDE`."""
    unit = _unit(size)
    radius, soft, grain = radius * unit, soft * unit, 12 * unit
    x0, y0 = _place(random, size)
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    stretch, angle = random.uniform(0.7, 1.4), random.uniform(0, np.pi)
    across = np.cos(angle) * (x - x0) + np.sin(angle) * (y - y0)
    along = np.cos(angle) * (y - y0) - np.sin(angle) * (x - x0)
    away = np.sqrt((across * stretch) ** 2 + (along / stretch) ** 2) + 0.3 * radius * _noise(
        random, size, (grain, grain)
    )
    cover: FloatArray = np.clip((radius - away) / max(soft, 0.5) + 0.5, 0.0, 1.0).astype(np.float32)
    return cover


Made = tuple[FloatArray, FloatArray]


def _scratch(plain: FloatArray, random: Random, strength: float) -> Made:
    size = (plain.shape[0], plain.shape[1])
    unit = _unit(size)
    x, y = _place(random, size)
    angle, bend = random.uniform(0, 2 * np.pi), random.uniform(-0.25, 0.25)
    points = [(x, y)]
    for _ in range(int(random.integers(5, 9))):
        angle += bend
        points.append((points[-1][0] + 7 * unit * np.cos(angle), points[-1][1] + 7 * unit * np.sin(angle)))
    cover = np.zeros(size, np.float32)
    line = np.round(np.array(points) * 16).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(cover, [line], False, 1.0, max(1, round(int(random.integers(2, 4)) * unit)), cv2.LINE_8, 4)
    side = random.uniform(0.22, 0.4) * strength * (1 if random.random() < 0.5 else -1)
    return cover, plain + np.float32(side)


def _stain(plain: FloatArray, random: Random, strength: float) -> Made:
    size = (plain.shape[0], plain.shape[1])
    tint = random.uniform(0.55, 0.85, 3).astype(np.float32)
    return _blob(random, size, random.uniform(7, 14), soft=4.0), plain * np.clip(tint / strength, 0.0, 1.0)


def _hole(plain: FloatArray, random: Random, strength: float) -> Made:
    size = (plain.shape[0], plain.shape[1])
    cover = _blob(random, size, random.uniform(4, 8), soft=1.0)
    return cover, np.full_like(plain, random.uniform(0.0, 0.12) / strength)


def _missing(plain: FloatArray, random: Random, strength: float) -> Made:
    size = (plain.shape[0], plain.shape[1])
    x, y = _place(random, size)
    angles = 2 * np.pi * (np.arange(5) + random.uniform(-0.3, 0.3, 5)) / 5
    radii = random.uniform(6, 13, 5) * _unit(size)
    corners = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
    cover = np.zeros(size, np.float32)
    cv2.fillConvexPoly(cover, cv2.convexHull(np.round(corners).astype(np.int32)), 1.0)
    ground = random.uniform(0.15, 0.9)
    flat = np.full_like(plain, ground) + 0.01 * strength * random.normal(0, 1, plain.shape).astype(np.float32)
    return cover, flat


def _color(plain: FloatArray, random: Random, strength: float) -> Made:
    size = (plain.shape[0], plain.shape[1])
    shift = np.full(3, -0.07, np.float32)
    shift[int(random.integers(3))] = 0.13
    cover = _blob(random, size, random.uniform(10, 18), soft=2.0)
    return cover, plain + shift * np.float32(strength * random.uniform(0.8, 1.2))


_TEXTURES: dict[str, Callable[[Random, tuple[int, int]], FloatArray]] = {
    "woven": _woven,
    "wood": _wood,
    "metal": _metal,
    "tiles": _tiles,
    "stone": _stone,
}
_DEFECTS: dict[str, Callable[[FloatArray, Random, float], Made]] = {
    "scratch": _scratch,
    "stain": _stain,
    "hole": _hole,
    "missing": _missing,
    "color": _color,
}

TEXTURES: tuple[str, ...] = tuple(_TEXTURES)
DEFECTS: tuple[str, ...] = tuple(_DEFECTS)
