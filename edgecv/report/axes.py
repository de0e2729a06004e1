"""Axes of a chart: ranges, ticks and where labels find room. Pure arithmetic, no drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "Box", "Label", "linear_axis", "log_axis", "place_labels"]


@dataclass(frozen=True)
class Axis:
    """Values ``low..high`` drawn from ``start`` to ``end`` (pixels; ``end`` may be the smaller)."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; values outside the range come out outside."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Shared area in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


@dataclass(frozen=True)
class Label:
    """Where a label's text starts (left end, baseline), and whether it needs a line to its point."""

    x: float
    y: float
    leader: bool
    box: Box


def linear_axis(values: Sequence[float], *, start: float, end: float, count: int, floor: float = 0.0) -> Axis:
    """An axis around ``values`` with about ``count`` ticks at round numbers; ``floor`` is the least range."""
    low, high = min(values), max(values)
    spread = max(high - low, floor, abs(high) * 1e-9, 1e-12)
    middle = (low + high) / 2
    low, high = middle - spread * 0.58, middle + spread * 0.58
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough), 10 * power)
    first = math.ceil(low / step)
    ticks = [(first + i) * step for i in range(int((high - first * step) / step + 1e-9) + 1)]
    return Axis(low, high, start, end, tuple(ticks))


def log_axis(values: Sequence[float], *, start: float, end: float, count: int) -> Axis:
    """A logarithmic axis around positive ``values``; ticks at 1, 2, 5 (or only 1) of each power of ten."""
    low, high = min(values) / 1.35, max(values) * 1.35
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) <= count:
            break
    return Axis(low, high, start, end, tuple(shown), log=True)


def place_labels(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    obstacles: Sequence[Box],
    *,
    inside: Box,
    height: float,
) -> tuple[Label, ...]:
    """A place for each label near its point, clear of points, bars and other labels where there is room.

    Greedy: each label takes the free place nearest to its point, else the one that covers least.
    """
    taken = list(obstacles) + [Box(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    labels = []
    for (x, y), width in zip(points, widths, strict=True):
        label = min(_places(x, y, width, height), key=lambda place: _cost(place, taken, inside))
        taken.append(label.box)
        labels.append(label)
    return tuple(labels)


def _places(x: float, y: float, width: float, height: float) -> list[Label]:
    found = []
    for distance in (11.0, 20.0, 32.0, 46.0, 64.0, 86.0, 112.0):
        for angle in (0, 180, 325, 35, 215, 145, 270, 90, 300, 60, 240, 120):
            turn = math.radians(angle)
            across, down = math.cos(turn), math.sin(turn)
            left = x + distance * across - width * (1 - across) / 2
            middle = y + distance * down + height / 2 * down * (abs(across) < 0.5)
            box = Box(left, middle - height / 2, left + width, middle + height / 2)
            found.append(Label(left, middle + height * 0.3, distance > 15, box))
    return found


def _cost(place: Label, taken: list[Box], inside: Box) -> float:
    box = place.box
    area = (box.right - box.left) * (box.bottom - box.top)
    outside = area - box.overlap(inside)
    covered = sum(box.overlap(other) for other in taken)
    # Places come nearest first and min() keeps the first of equals, so a free place costs nothing.
    return 20 * outside + covered if outside > 0.5 or covered > 0.5 else 0.0
