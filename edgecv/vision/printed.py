"""Made-up print: words and whole pages on textures and scenes, with the place and the letters of every word.

Every picture is a function of its random generator and of OpenCV's fonts alone (OpenCV 5 draws other letters than 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.vision.image import Image
from edgecv.vision.polygons import cut_quad
from edgecv.vision.scenes import Scene, SceneSpec
from edgecv.vision.strokes import stroke_word
from edgecv.vision.textures import TEXTURES, draw_texture

__all__ = ["LETTERS", "PAGE_SIZE", "Page", "draw_page", "draw_word", "random_text"]

Random = np.random.Generator
Quads = npt.NDArray[np.float64]

LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PAGE_SIZE = (384, 512)
ILLEGIBLE = "###"
"""What stands for the text of a word that nobody can read, as in ICDAR's data."""

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, cv2.FONT_HERSHEY_PLAIN)
_DRAWN_PX = 56
_PAD = 0.12
_TRIES = 14
_EDGE = 6.0


@dataclass(frozen=True)
class Page:
    """A picture (uint8 `(H, W, 3)` BGR) with words: ``quads`` `(N, 4, 2)` from the top left corner on, clockwise, in

    pixels of the picture; their ``texts``, and which are too small to be read (``illegible`` `(N,)`).
    """

    image: Image
    quads: Quads
    texts: tuple[str, ...]
    illegible: npt.NDArray[np.bool_]


def random_text(random: Random) -> str:
    """A number of 2 to 6 digits, a word of 3 to 8 capitals, or a code of capitals and digits (without I and O)."""
    kind = random.random()
    digits, capitals = LETTERS[:10], LETTERS[10:]
    if kind < 0.35:
        return _pick(random, digits, int(random.integers(2, 7)))
    if kind < 0.85:
        return _pick(random, capitals, int(random.integers(3, 9)))
    sure = capitals.replace("I", "").replace("O", "")
    return _pick(random, sure, int(random.integers(2, 4))) + _pick(random, digits, int(random.integers(2, 5)))


def draw_word(random: Random) -> tuple[Image, str]:
    """A word as a detector cuts it out, turned a little and off its middle: uint8 `(h, w, 3)` BGR, and its text."""
    text, height = random_text(random), float(random.uniform(16, 46))
    mask = _word_mask(text, _font(random))
    width = height * mask.shape[1] / mask.shape[0]
    angle = math.radians(random.uniform(-7, 7))
    page = (round(2 * height + abs(width * math.sin(angle)) + 8), round(width + 2 * height + 8))
    image = _ground(random, page)
    quad = _turned(_box(0, 0, width, height), angle)
    quad += np.array([page[1], page[0]]) / 2 - quad.mean(axis=0)
    _plate(image, quad[None], random)
    _print(image, mask, quad, _ink(image, quad[None], random))
    image = _seen(image, random)
    seen = quad + random.uniform(-0.07, 0.07, (4, 2)) * height
    cut = cut_quad(image, seen, margin=float(random.uniform(0.95, 1.15)))
    assert cut is not None  # it is at least 13 pixels high
    return cut, text


def draw_page(random: Random, *, size: tuple[int, int] = PAGE_SIZE, dim: float = 0.1) -> Page:
    """A picture of (height, width) ``size`` with one to four blocks of up to three lines of up to three words.

    A share ``dim`` of the blocks is too small to be read.
    """
    image = _ground(random, size)
    _clutter(image, random)
    taken: list[Quads] = []
    quads: list[Quads] = []
    texts: list[str] = []
    illegible: list[bool] = []
    for _ in range(int(random.integers(1, 5))):
        small = bool(random.random() < dim)
        words, font = _words(random), _font(random)
        for attempt in range(_TRIES):
            height = float(random.uniform(6, 8) if small else random.uniform(18, 44) * 0.93**attempt)
            placed = _block(words, font, max(height, 6.0 if small else 16.0), random, size)
            if placed is not None and not _hits(placed, taken):
                break
        else:
            continue
        taken.append(placed)
        _plate(image, placed, random)
        ink = _ink(image, placed, random)
        for text, quad in zip((word for line in words for word in line), placed, strict=True):
            _print(image, _word_mask(text, font), quad, ink)
            quads.append(quad)
            texts.append(ILLEGIBLE if small else text)
            illegible.append(small)
    return Page(
        _seen(image, random),
        np.array(quads, dtype=np.float64).reshape(-1, 4, 2),
        tuple(texts),
        np.array(illegible, bool),
    )


@dataclass(frozen=True)
class _Font:
    """Letters of OpenCV (``face``), or drawn by a pen where there is none."""

    face: int | None
    thick: int
    width_share: float
    slant: float


def _font(random: Random) -> _Font:
    face = None if random.random() < 0.35 else int(_FONTS[int(random.integers(len(_FONTS)))])
    thick = int(random.integers(3, 8))
    return _Font(face, thick, float(random.uniform(0.5, 0.75)), float(random.uniform(-0.05, 0.25)))


def _word_mask(text: str, font: _Font) -> Image:
    """The word in white on black with a narrow border, uint8 `(H, W)`, about 70 pixels high."""
    if font.face is None:
        drawn = stroke_word(
            text, height=_DRAWN_PX, width_share=font.width_share, thick=font.thick + 1, slant=font.slant
        )
    else:
        scale = 4.0 if font.face == cv2.FONT_HERSHEY_PLAIN else 2.4
        (width, height), base = cv2.getTextSize(text, font.face, scale, font.thick)
        drawn = np.zeros((height + base + 60, width + 80), np.uint8)
        cv2.putText(drawn, text, (40, height + 30), font.face, scale, 255, font.thick, cv2.LINE_AA)
    left, top, width, height = cv2.boundingRect(drawn)
    pad = round(_PAD * height)
    return np.pad(drawn[top : top + height, left : left + width], pad)


def _pick(random: Random, letters: str, count: int) -> str:
    return "".join(letters[int(index)] for index in random.integers(len(letters), size=count))


def _words(random: Random) -> list[list[str]]:
    return [[random_text(random) for _ in range(int(random.integers(1, 4)))] for _ in range(int(random.integers(1, 4)))]


def _block(words: list[list[str]], font: _Font, height: float, random: Random, size: tuple[int, int]) -> Quads | None:
    """The words' places `(N, 4, 2)`, line below line and turned together; None where they do not fit into a page."""
    gap, lead = height * random.uniform(0.35, 0.8), height * random.uniform(1.15, 1.6)
    steep = random.random() < 0.15
    angle = math.radians(random.uniform(-28, 28) if steep else random.uniform(-9, 9))
    boxes = []
    for row, line in enumerate(words):
        left = 0.0
        for word in line:
            mask = _word_mask(word, font)
            width = height * mask.shape[1] / mask.shape[0]
            boxes.append(_box(left, row * lead, left + width, row * lead + height))
            left += width + gap
    turned = _turned(np.array(boxes), angle)
    low, high = turned.min(axis=(0, 1)), turned.max(axis=(0, 1))
    room = np.array([size[1], size[0]]) - (high - low) - 2 * _EDGE
    if (room < 0).any():
        return None
    moved: Quads = turned - low + _EDGE + random.uniform(0, 1, 2) * room
    return moved


def _box(left: float, top: float, right: float, bottom: float) -> Quads:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def _turned(points: Quads, angle: float) -> Quads:
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    moved: Quads = points @ turn
    return moved


def _hits(placed: Quads, taken: list[Quads]) -> bool:
    low, high = placed.min(axis=(0, 1)) - 8, placed.max(axis=(0, 1)) + 8
    return any((low < other.max(axis=(0, 1))).all() and (high > other.min(axis=(0, 1))).all() for other in taken)


def _ground(random: Random, size: tuple[int, int]) -> Image:
    """A surface, a made-up scene (both drawn at half the size, which is quicker), or paper."""
    kind, half = random.random(), (max(32, (size[0] + 1) // 2), max(32, (size[1] + 1) // 2))
    if kind < 0.65:
        if kind < 0.4:
            drawn = draw_texture(TEXTURES[int(random.integers(len(TEXTURES)))], random, size=half)
        else:
            drawn = Scene(SceneSpec(half, seed=int(random.integers(1 << 30)))).at(float(random.uniform(0, 60))).image
        return np.ascontiguousarray(cv2.resize(drawn, (2 * half[1], 2 * half[0]))[: size[0], : size[1]])
    color, slope = random.uniform(20, 250, 3), random.uniform(-40, 40, 3)
    ramp = np.linspace(-0.5, 0.5, size[1])[None, :, None] * slope
    return np.clip(np.broadcast_to(color + ramp, (*size, 3)), 0, 255).astype(np.uint8)


def _clutter(image: Image, random: Random) -> None:
    """Lines, rings and bars, which are no text."""
    height, width = image.shape[:2]
    for _ in range(int(random.integers(0, 6))):
        color = tuple(int(value) for value in random.integers(0, 256, 3))
        x, y = int(random.integers(width)), int(random.integers(height))
        length, thick = int(random.integers(8, 90)), int(random.integers(1, 6))
        kind = int(random.integers(4))
        if kind == 0:
            end = (x + int(random.integers(-length, length + 1)), y + int(random.integers(-length, length + 1)))
            cv2.line(image, (x, y), end, color, thick, cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(image, (x, y), length // 3 + 2, color, thick, cv2.LINE_AA)
        elif kind == 2:
            cv2.rectangle(image, (x, y), (x + length, y + length // 3 + 2), color, -1)
        else:  # stripes as wide as the strokes of letters
            for bar in range(int(random.integers(3, 9))):
                cv2.line(image, (x + bar * 3 * thick, y), (x + bar * 3 * thick, y + length // 2), color, thick)


def _plate(image: Image, quads: Quads, random: Random) -> None:
    """In one case of four a sign of one colour behind the words."""
    if random.random() >= 0.25:
        return
    hull = cv2.convexHull(quads.reshape(-1, 2).astype(np.float32)).reshape(-1, 2)
    grown = hull + 0.06 * (hull - hull.mean(axis=0))
    color = tuple(int(value) for value in random.integers(0, 256, 3))
    cv2.fillConvexPoly(image, np.round(grown * 16).astype(np.int32), color, cv2.LINE_AA, 4)


def _ink(image: Image, quads: Quads, random: Random) -> npt.NDArray[np.float32]:
    """A colour (BGR) that differs enough from what lies below the words."""
    low = np.clip(np.floor(quads.min(axis=(0, 1))), 0, None).astype(int)
    high = np.ceil(quads.max(axis=(0, 1))).astype(int)
    under = image[low[1] : high[1], low[0] : high[0]].reshape(-1, 3).mean(axis=0)
    weights = np.array([0.114, 0.587, 0.299])
    gray = float(under @ weights)
    for _ in range(20):
        color = random.uniform(0, 255, 3)
        if abs(float(color @ weights) - gray) >= 80:
            return color.astype(np.float32)
    return np.full(3, 250.0 if gray < 128 else 5.0, dtype=np.float32)


def _print(image: Image, mask: Image, quad: Quads, ink: npt.NDArray[np.float32]) -> None:
    """Put a word's mask into the quadrilateral in ``image``."""
    height, width = image.shape[:2]
    low = np.clip(np.floor(quad.min(axis=0)) - 1, 0, [width, height]).astype(int)
    high = np.clip(np.ceil(quad.max(axis=0)) + 1, 0, [width, height]).astype(int)
    if (high <= low).any():
        return
    target = (quad - low).astype(np.float32)
    sides = np.linalg.norm(target[3] - target[0]), np.linalg.norm(target[1] - target[0])
    # First to about the size that it will have: a warp alone would leave pixels out.
    small = cv2.resize(
        mask, (max(2, round(float(sides[1]))), max(2, round(float(sides[0])))), interpolation=cv2.INTER_AREA
    )
    matrix = cv2.getPerspectiveTransform(
        np.array([[0, 0], [small.shape[1], 0], [small.shape[1], small.shape[0]], [0, small.shape[0]]], np.float32)
        - 0.5,
        target - 0.5,
    )
    span = (int(high[0] - low[0]), int(high[1] - low[1]))
    cover = cv2.warpPerspective(small, matrix, span, flags=cv2.INTER_LINEAR).astype(np.float32)[..., None] / 255.0
    part = image[low[1] : high[1], low[0] : high[0]]
    part[...] = np.round(part + cover * (ink - part)).astype(np.uint8)


def _seen(image: Image, random: Random) -> Image:
    """As a camera gives it: a little out of focus, with noise."""
    sigma = float(random.uniform(0.0, 1.0))
    seen = cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.3 else image
    noise = random.normal(0.0, random.uniform(0.5, 7.0), image.shape[:2])[..., None]
    return np.clip(seen + noise, 0, 255).astype(np.uint8)
