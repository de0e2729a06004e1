"""Made-up videos whose class is a movement: what moves, and before what, says nothing about it.

A function of a seed and a time: nothing is stored, and two machines see the same frames.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.vision.image import Image

Movement = Literal["still", "left", "right", "up", "down", "grow", "shrink", "turn", "wave"]

MOVEMENTS: tuple[Movement, ...] = get_args(Movement)
SIZE = (72, 96)
"""Height and width of the frames in pixels."""
ROUND_S = 2.0
"""After so many seconds a movement begins again."""

_SHIFT = 4
_SUBPIXELS = 1 << _SHIFT
_NOISE = 3
_DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "box": ((-1, -0.6), (1, -0.6), (1, 0.6), (-1, 0.6)),
    "triangle": ((0, -1), (0.8, 0.8), (-0.8, 0.8)),
    "arrow": ((-1, -0.3), (0.2, -0.3), (0.2, -0.8), (1, 0), (0.2, 0.8), (0.2, 0.3), (-1, 0.3)),
    "cross": ((-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3),
              (-1, 0.3), (-1, -0.3), (-0.3, -0.3)),
}  # fmt: skip


class Motion:
    """One made-up video: a shape or a figure of a random look that does one ``movement``, over and over.

    Several seeds of one movement differ in everything else: colours, size, place, speed, background, what stands
    beside it. A figure waves one arm with ``wave`` and holds it still otherwise.
    """

    def __init__(self, movement: Movement, seed: int) -> None:
        self.movement, self.seed = movement, seed
        random = np.random.default_rng([seed, 3])
        height, width = SIZE
        rough = random.integers(40, 150, (int(random.integers(2, 6)), int(random.integers(2, 7)), 3), dtype=np.uint8)
        self._ground = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
        figure = movement == "wave" or random.random() < 0.3
        self._shape = "figure" if figure and movement != "turn" else str(random.choice(list(_OUTLINES)))
        self._color = tuple(int(value) for value in random.choice([0, 90, 255], 3))
        if max(self._color) < 200:
            self._color = (255, 255, 255)
        self._radius = float(random.uniform(11.0, 18.0))
        self._speed = float(random.uniform(14.0, 26.0))
        self._angle = float(random.uniform(0.0, 2 * math.pi))
        self._turn = float(random.uniform(1.4, 2.6)) * (1 if random.random() < 0.5 else -1)
        self._rate = float(random.uniform(1.0, 1.8))
        self._start = (float(random.uniform(0.4, 0.6)) * width, float(random.uniform(0.42, 0.58)) * height)
        for _ in range(int(random.integers(0, 3))):  # things that stand still
            x, y = int(random.integers(width)), int(random.integers(height))
            color = tuple(int(value) for value in random.integers(0, 255, 3))
            cv2.circle(self._ground, (x, y), int(random.integers(3, 8)), color, -1, cv2.LINE_AA)

    def at(self, time_s: float) -> Image:
        """The frame at ``time_s`` seconds, uint8 `(72, 96, 3)` BGR."""
        image = self._ground.copy()
        moment = time_s % ROUND_S
        gone = moment - ROUND_S / 2
        x, y = self._start
        across, down = _DIRECTIONS.get(self.movement, (0.0, 0.0))
        x, y = x + across * self._speed * gone, y + down * self._speed * gone
        factor = {"grow": 1.0, "shrink": -1.0}.get(self.movement, 0.0)
        radius = self._radius * math.exp(factor * 0.55 * gone)
        angle = self._angle + (self._turn * moment if self.movement == "turn" else 0.0)
        if self._shape == "figure":
            self._draw_figure(image, (x, y), radius, moment)
        else:
            points = np.array(_OUTLINES[self._shape]) @ _rotation(angle) * radius + (x, y)
            cv2.fillPoly(image, [_fixed(points)], self._color, cv2.LINE_AA, _SHIFT)
        noise = np.random.default_rng([self.seed, 5, round(time_s * 1000)])
        shaken = image.astype(np.int16) + noise.integers(-_NOISE, _NOISE + 1, image.shape, dtype=np.int16)
        frame: Image = np.clip(shaken, 0, 255).astype(np.uint8)
        return frame

    def _draw_figure(self, image: Image, place: tuple[float, float], radius: float, moment: float) -> None:
        """Head, body, legs and arms; the right arm is raised, and swings where the figure waves."""
        swing = math.sin(2 * math.pi * self._rate * moment) if self.movement == "wave" else math.sin(self._angle)
        raised = -math.pi / 2 + 0.75 * swing
        shoulder = np.array((0.0, -0.45))
        limbs = [
            (shoulder, np.array((0.0, 0.4))),
            (np.array((0.0, 0.4)), np.array((-0.4, 1.1))),
            (np.array((0.0, 0.4)), np.array((0.4, 1.1))),
            (shoulder, np.array((-0.6, 0.2))),
            (shoulder, shoulder + 1.0 * np.array((math.cos(raised), math.sin(raised)))),
        ]
        thick = max(2, round(0.28 * radius))
        for ends in limbs:
            one, other = _fixed(np.array(ends) * radius + place)
            cv2.line(image, one.tolist(), other.tolist(), self._color, thick, cv2.LINE_AA, _SHIFT)
        head = _fixed(np.array([(-0.45, -0.85)]) * radius + place)[0]
        cv2.circle(image, head.tolist(), int(0.35 * radius * _SUBPIXELS), self._color, -1, cv2.LINE_AA, _SHIFT)


def _rotation(angle: float) -> npt.NDArray[np.float64]:
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def _fixed(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Pixels with a fraction, as OpenCV's drawing takes them."""
    return np.rint(points * _SUBPIXELS).astype(np.int32)
