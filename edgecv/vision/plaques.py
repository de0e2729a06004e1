"""Made-up things that can be told apart: plaques of an outline, colours, stripes and stickers of their own.

A plaque is a function of its number, a picture of it of a random generator besides: turned, moved, nearer or farther,
in other light, before another surface and partly hidden, as the same thing is under a camera.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgecv.core.tensor import FloatArray
from edgecv.vision.image import Image
from edgecv.vision.textures import TEXTURES, draw_texture

__all__ = ["draw_plaque", "plaque_view"]

_SIDE = 96
_CORNERS = (3, 4, 5, 6, 24)
"""Corners of outlines; 24 make a disc."""
_TURN_DEGREES = 35.0
_HIDDEN = 0.3
"""The share of pictures in which something is in front of the plaque."""


def draw_plaque(number: int) -> tuple[Image, FloatArray]:
    """Plaque ``number`` (0 and up) as it is: uint8 `(96, 96, 3)` BGR, and what it covers, `(96, 96)` float32 0..1."""
    random = np.random.default_rng([number, 31])
    canvas = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    base, other = _color(random), _color(random)
    canvas[:] = base
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32)
    angle, pitch = random.uniform(0, np.pi), random.uniform(14, 30)
    wave = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / pitch)
    canvas[wave > random.uniform(-0.4, 0.6)] = other
    for _ in range(int(random.integers(2, 5))):
        across, down = (int(value) for value in random.integers(24, _SIDE - 24, 2))
        wide, high, color = int(random.integers(7, 14)), int(random.integers(4, 8)), _color(random)
        if random.random() < 0.5:
            cv2.circle(canvas, (across, down), wide, color, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(canvas, (across - wide, down - high), (across + wide, down + high), color, -1)
    return canvas, _outline(random)


def plaque_view(number: int, random: np.random.Generator, *, size: tuple[int, int] = (64, 64)) -> Image:
    """A picture of plaque ``number``, uint8 `(H, W, 3)` BGR of (height, width) ``size``."""
    height, width = size
    plaque, cover = draw_plaque(number)
    behind = draw_texture(TEXTURES[int(random.integers(len(TEXTURES)))], random, size=size)
    scale = float(random.uniform(0.62, 0.95)) * min(size) / _SIDE
    turn = cv2.getRotationMatrix2D((_SIDE / 2, _SIDE / 2), float(random.uniform(-_TURN_DEGREES, _TURN_DEGREES)), scale)
    turn[:, 2] += [width / 2 - _SIDE / 2, height / 2 - _SIDE / 2] + random.uniform(-0.08, 0.08, 2) * [width, height]
    seen = cv2.warpAffine(plaque, turn, (width, height), flags=cv2.INTER_AREA).astype(np.float32)
    share = cv2.warpAffine(cover, turn, (width, height), flags=cv2.INTER_LINEAR)[..., None]
    picture = behind.astype(np.float32) * (1 - share) + seen * share
    if random.random() < _HIDDEN:
        _hide(picture, random)
    light = random.uniform(0.6, 1.3) * random.uniform(0.9, 1.1, 3)
    noisy = picture * light + random.normal(0.0, 5.0, picture.shape)
    image: Image = np.clip(noisy, 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(image, (3, 3), 0) if random.random() < 0.3 else image


def _color(random: np.random.Generator) -> tuple[int, int, int]:
    hue = np.array([[[random.integers(0, 180), random.integers(90, 256), random.integers(90, 256)]]], np.uint8)
    blue, green, red = (int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
    return blue, green, red


def _outline(random: np.random.Generator) -> FloatArray:
    """A polygon, narrower one way than the other."""
    corners = _CORNERS[int(random.integers(len(_CORNERS)))]
    angles = np.arange(corners) * 2 * np.pi / corners + random.uniform(0, 2 * np.pi)
    reach = (_SIDE / 2 - 2) * np.array([1.0, random.uniform(0.6, 1.0)])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach + _SIDE / 2
    cover = np.zeros((_SIDE, _SIDE), np.uint8)
    cv2.fillPoly(cover, [np.round(points).astype(np.int32)], 255, cv2.LINE_AA)
    share: FloatArray = cover.astype(np.float32) / 255.0
    return share


def _hide(picture: FloatArray, random: np.random.Generator) -> None:
    """Something dark or bright over a part of one edge."""
    height, width = picture.shape[:2]
    deep = int(random.uniform(0.12, 0.3) * min(height, width))
    place = (slice(None), slice(0, deep)) if random.random() < 0.5 else (slice(height - deep, None), slice(None))
    picture[place] = random.uniform(0, 255, 3)
