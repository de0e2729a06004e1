"""Kalman filters of many boxes at once, with constant velocity and true time steps.

Each of the four numbers of a box moves by itself, so the 8x8 covariance of the papers is four blocks of
2x2, which are updated in closed form. Boxes lie in columns, `(4, T)`: an operation on one number of all
boxes goes through contiguous memory. Times are in steps: one step is the nominal time between two frames,
so that the papers' noise values keep their meaning, and a gap of three frames is one prediction over
three steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_TINY = 1e-6
_POSITION, _CROSS, _PLACE, _SPEED, _VELOCITY = range(5)
"""Rows of `States.values`, in an order in which one step is four sums of neighbouring rows."""


@dataclass(frozen=True)
class Noise:
    """Variances ``share * size ** 2 + constant``, each `(..., 4, 1)`, of the four numbers."""

    share: Floats64
    constant: Floats64


@dataclass(frozen=True)
class BoxModel:
    """How boxes become the four numbers that are filtered, and how noisy they are.

    ``measure`` takes boxes `(4, N)` (rows x1, y1, x2, y2) to numbers `(4, N)`, ``corners`` back. ``size2`` gives the
    squares, `(N,)` or `(4, N)`, that the noise grows with; None where it is constant. ``process`` is the
    noise of position and velocity in one step, ``start`` that of a new track, both `(2, 4, 1)`; ``sensor``
    that of a measurement, `(4, 1)`.
    """

    measure: Callable[[Floats64], Floats64]
    corners: Callable[[Floats64], Floats64]
    size2: Callable[[Floats64], Floats64] | None
    process: Noise
    sensor: Noise
    start: Noise

    def variance(self, noise: Noise, numbers: Floats64) -> Floats64:
        """The variances of ``noise`` for boxes of ``numbers`` `(4, N)`: `(..., 4, N)` or `(..., 4, 1)`."""
        if self.size2 is None:
            return noise.constant
        grown: Floats64 = noise.share * self.size2(numbers)
        grown += noise.constant
        return grown


@dataclass
class States:
    """The filters of T boxes: ``values`` `(5, 4, T)`, which the properties name; velocities are per step."""

    values: Floats64

    @staticmethod
    def empty() -> "States":
        """No box."""
        return States(np.zeros((5, 4, 0)))

    @staticmethod
    def of(model: BoxModel, boxes: Floats64) -> "States":
        """New tracks at ``boxes`` `(4, N)`, at rest."""
        values = np.zeros((5, 4, boxes.shape[1]))
        values[_POSITION] = model.measure(boxes)
        values[_PLACE : _SPEED + 1] = model.variance(model.start, values[_POSITION])
        return States(values)

    @property
    def position(self) -> Floats64:
        """The model's numbers, `(4, T)`; a view."""
        view: Floats64 = self.values[_POSITION]
        return view

    @property
    def velocity(self) -> Floats64:
        """Their change in a step, `(4, T)`; a view."""
        view: Floats64 = self.values[_VELOCITY]
        return view

    @property
    def covariance(self) -> Floats64:
        """Variance of position, covariance with velocity, variance of velocity: `(3, 4, T)`, a copy."""
        return self.values[[_PLACE, _CROSS, _SPEED]]

    def hold_size(self, model: BoxModel, rows: npt.NDArray[np.bool_]) -> None:
        """Let the boxes ``rows`` (a mask) go on without growing or shrinking."""
        velocity = self.values[_VELOCITY]
        if model is XYXY:
            velocity[:, rows] = np.tile((velocity[:2, rows] + velocity[2:, rows]) / 2, (2, 1))
        else:
            velocity[2 if model is XYWH else 3 :, rows] = 0.0

    def predict(self, model: BoxModel, steps: float | Floats64) -> None:
        """Move on by ``steps`` (0 or more, also fractions; one for all or `(T,)`), as by so many single steps."""
        values = self.values
        noise = model.variance(model.process, values[_POSITION])  # that of the box before it moved
        whole = isinstance(steps, float) and steps == 1.0
        moved = values[_CROSS] if whole else steps * values[_CROSS]
        values[_PLACE] += moved
        drift = values[_VELOCITY:_PLACE:-1]  # velocity and its variance, for position and covariance
        values[: _CROSS + 1] += drift if whole else steps * drift
        values[_PLACE] += values[_CROSS] if whole else steps * values[_CROSS]
        if whole:
            values[_PLACE : _SPEED + 1] += noise
            return
        # Noise of n steps: the sum over k of F^k Q F^k', whose velocity noise reaches the position k times.
        once = np.maximum(0.0, steps * (steps - 1) / 2)
        values[_PLACE] += steps * noise[0] + once * (2 * steps - 1) / 3 * noise[1]
        values[_CROSS] += once * noise[1]
        values[_SPEED] += steps * noise[1]

    def update(self, model: BoxModel, boxes: Floats64, found: Ints | None = None) -> None:
        """Correct the tracks by measured ``boxes`` `(4, N)`: track t by box ``found[t]``, not where that is below 0.

        ``found`` None says box t. Tracks without a measurement are gone through with a gain of 0: that is
        faster than to pick the others out and put them back.
        """
        values = self.values
        position, numbers = values[_POSITION], model.measure(boxes)
        scale = values[_PLACE] + model.variance(model.sensor, position)
        if found is None:
            difference = numbers - position
            np.divide(1.0, scale, out=scale)
        else:
            difference = numbers.take(found, axis=1)  # -1 takes the last one, to no effect
            difference -= position
            np.divide(found >= 0, scale, out=scale)
        gain_v, gain_p = values[_CROSS : _PLACE + 1] * scale
        position += gain_p * difference
        difference *= gain_v
        values[_VELOCITY] += difference
        gain_v *= values[_CROSS]
        values[_SPEED] -= gain_v
        values[_CROSS : _PLACE + 1] *= np.subtract(1.0, gain_p, out=gain_p)

    def warp(self, affine: Floats64, model: BoxModel) -> None:
        """Follow a camera that moved: ``affine`` `(2, 3)` takes points of the last picture to this one.

        Boxes stay upright: their centres move, their sizes grow with the picture, velocities turn.
        """
        self.values[_POSITION] = model.measure(moved_boxes(model.corners(self.position), affine))
        if model is XYXY:
            turned = np.stack([affine[:, :2] @ self.velocity[:2], affine[:, :2] @ self.velocity[2:]])
            self.velocity[:] = turned.reshape(4, -1)
        else:
            self.velocity[:2] = affine[:, :2] @ self.velocity[:2]

    def boxes(self, model: BoxModel) -> Floats64:
        """Boxes `(4, T)`, rows x1, y1, x2, y2."""
        return model.corners(self.position)

    def keep(self, rows: Any) -> None:
        """Go on with the tracks ``rows`` (indices) only."""
        self.values = self.values.take(rows, axis=2)

    def add(self, other: "States") -> None:
        """Put ``other``'s tracks behind these."""
        self.values = np.concatenate([self.values, other.values], axis=2)


def moved_boxes(boxes: Floats64, affine: Floats64) -> Floats64:
    """Boxes `(4, N)` as a camera that moved by ``affine`` `(2, 3)` sees them: upright, shifted and grown."""
    centre = affine[:, :2] @ ((boxes[:2] + boxes[2:]) / 2) + affine[:, 2:]
    scale = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    return _around(centre, (boxes[2:] - boxes[:2]) * (scale / 2))


def _around(centre: Floats64, half: Floats64) -> Floats64:
    return np.concatenate([centre - half, centre + half])


def _centre_and_size(boxes: Floats64) -> Floats64:
    numbers = np.empty(boxes.shape)
    low, high = boxes[:2], boxes[2:]
    np.add(low, high, out=numbers[:2])
    numbers[:2] *= 0.5
    np.maximum(high - low, _TINY, out=numbers[2:])
    return numbers


def _centre_aspect_height(boxes: Floats64) -> Floats64:
    numbers = _centre_and_size(boxes)
    numbers[2] /= numbers[3]
    return numbers


def _from_aspect_height(numbers: Floats64) -> Floats64:
    half = np.maximum(numbers[2:], _TINY)
    half[0] *= half[1]
    half *= 0.5
    return _around(numbers[:2], half)


def _height2(numbers: Floats64) -> Floats64:
    height: Floats64 = np.maximum(numbers[3], _TINY)
    height *= height
    return height


def _corners_alone(boxes: Floats64) -> Floats64:
    return boxes.copy()


def _from_corners(numbers: Floats64) -> Floats64:
    return np.concatenate([numbers[:2], np.maximum(numbers[2:], numbers[:2] + _TINY)])


def _column(*values: float) -> Floats64:
    return np.array(values, dtype=np.float64).reshape(-1, 4, 1)


XYAH = BoxModel(
    measure=_centre_aspect_height,
    corners=_from_aspect_height,
    size2=_height2,
    process=Noise(
        np.square(_column(1 / 20, 1 / 20, 0, 1 / 20, 1 / 160, 1 / 160, 0, 1 / 160)),
        np.square(_column(0, 0, 1e-2, 0, 0, 0, 1e-5, 0)),
    ),
    sensor=Noise(np.square(_column(1 / 20, 1 / 20, 0, 1 / 20))[0], np.square(_column(0, 0, 1e-1, 0))[0]),
    start=Noise(
        np.square(_column(2 / 20, 2 / 20, 0, 2 / 20, 10 / 160, 10 / 160, 0, 10 / 160)),
        np.square(_column(0, 0, 1e-2, 0, 0, 0, 1e-5, 0)),
    ),
)
"""Centre, aspect ratio, height; noise grows with the height (Wojke et al., arXiv:1703.07402; ByteTrack)."""


def _from_size(numbers: Floats64) -> Floats64:
    half = np.maximum(numbers[2:], _TINY)
    half *= 0.5
    return _around(numbers[:2], half)


def _size2(numbers: Floats64) -> Floats64:
    size = np.maximum(numbers[2:], _TINY)
    size *= size
    return np.concatenate([size, size])


XYWH = BoxModel(
    measure=_centre_and_size,
    corners=_from_size,
    size2=_size2,
    process=Noise(np.square(_column(*[1 / 20] * 4, *[1 / 160] * 4)), np.zeros((2, 4, 1))),
    sensor=Noise(np.square(_column(*[1 / 20] * 4))[0], np.zeros((4, 1))),
    start=Noise(np.square(_column(*[2 / 20] * 4, *[10 / 160] * 4)), np.zeros((2, 4, 1))),
)
"""Centre, width, height; noise grows with the size (Aharon et al., arXiv:2206.14651)."""


def _centre_area_ratio(boxes: Floats64) -> Floats64:
    numbers = _centre_and_size(boxes)
    width, height = numbers[2].copy(), numbers[3].copy()
    np.multiply(width, height, out=numbers[2])
    np.divide(width, height, out=numbers[3])
    return numbers


def _from_area_ratio(numbers: Floats64) -> Floats64:
    half = np.maximum(numbers[2:], _TINY)
    area, width = half[0].copy(), np.sqrt(half[0] * half[1])
    half[0] = width
    np.divide(area, np.maximum(width, _TINY, out=width), out=half[1])
    half *= 0.5
    return _around(numbers[:2], half)


XYSR = BoxModel(
    measure=_centre_area_ratio,
    corners=_from_area_ratio,
    size2=None,
    process=Noise(np.zeros((2, 4, 1)), _column(1, 1, 1, 1, 0.01, 0.01, 0.0001, 0)),
    sensor=Noise(np.zeros((4, 1)), _column(1, 1, 10, 10)[0]),
    start=Noise(np.zeros((2, 4, 1)), _column(10, 10, 10, 10, 1e4, 1e4, 1e4, 0)),
)
"""Centre, area, ratio of the sides, which stays as it is (Bewley et al., arXiv:1602.00763)."""


XYXY = BoxModel(
    measure=_corners_alone,
    corners=_from_corners,
    size2=None,
    process=Noise(np.zeros((2, 4, 1)), np.full((2, 4, 1), 0.01)),
    sensor=Noise(np.zeros((4, 1)), np.full((4, 1), 0.1)),
    start=Noise(np.zeros((2, 4, 1)), np.full((2, 4, 1), 1.0)),
)
"""The corners themselves, each with a velocity of its own: follows boxes that grow or are cut off at the border."""

MODELS: dict[str, BoxModel] = {"xyah": XYAH, "xywh": XYWH, "xysr": XYSR, "xyxy": XYXY}
"""By the name that the trackers' options use."""
