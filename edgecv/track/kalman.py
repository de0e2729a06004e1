"""Kalman filters of many boxes at once, with constant velocity and true time steps.

Each of the four numbers of a box moves by itself, so the 8x8 covariance of the papers is four blocks of
2x2; these are kept as ``[pp, pv, vv]`` and updated in closed form. Times are in steps: one step is the
nominal time between two frames, so that the papers' noise values keep their meaning, and a gap of
three frames is one prediction over three steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats64 = npt.NDArray[np.float64]
_TINY = 1e-6


@dataclass(frozen=True)
class BoxModel:
    """How boxes become the four numbers that are filtered, and how noisy they are.

    ``measure`` takes boxes `(N, 4)` x1, y1, x2, y2 to `(N, 4)`, ``corners`` back. ``process`` gives the
    standard deviations of position and velocity noise of one step, ``sensor`` those of a measurement,
    ``start`` those of a new track, each from the numbers `(N, 4)`; `(N, 4)` or `(4,)`.
    """

    measure: Callable[[Floats64], Floats64]
    corners: Callable[[Floats64], Floats64]
    process: Callable[[Floats64], tuple[Floats64, Floats64]]
    sensor: Callable[[Floats64], Floats64]
    start: Callable[[Floats64], tuple[Floats64, Floats64]]


@dataclass
class States:
    """Position and velocity `(T, 4)` each and covariance `(T, 4, 3)` of T boxes; velocities are per step."""

    position: Floats64
    velocity: Floats64
    covariance: Floats64

    @staticmethod
    def empty() -> "States":
        """No box."""
        return States(np.zeros((0, 4)), np.zeros((0, 4)), np.zeros((0, 4, 3)))

    @staticmethod
    def of(model: BoxModel, boxes: Floats64) -> "States":
        """New tracks at ``boxes`` `(N, 4)`, at rest."""
        position = model.measure(boxes)
        place, speed = (np.broadcast_to(value, position.shape) for value in model.start(position))
        covariance = np.stack([place**2, np.zeros_like(position), speed**2], axis=-1)
        return States(position, np.zeros_like(position), covariance)

    def predict(self, model: BoxModel, steps: float) -> None:
        """Move on by ``steps`` (0 or more, also fractions): the same as so many predictions of one step."""
        place, speed = model.process(self.position)
        self.position = self.position + steps * self.velocity
        pp, pv, vv = (self.covariance[..., index] for index in range(3))
        # Noise of n steps: the sum over k of F^k Q F^k', whose velocity noise reaches the position k times.
        once, twice = max(0.0, steps * (steps - 1) / 2), max(0.0, (steps - 1) * steps * (2 * steps - 1) / 6)
        noise = speed**2
        self.covariance = np.stack(
            [
                pp + 2 * steps * pv + steps * steps * vv + steps * place**2 + twice * noise,
                pv + steps * vv + once * noise,
                vv + steps * noise,
            ],
            axis=-1,
        )

    def update(self, model: BoxModel, rows: Any, boxes: Floats64) -> None:
        """Correct the tracks ``rows`` by the measured ``boxes`` `(len(rows), 4)`."""
        position, covariance = self.position[rows], self.covariance[rows]
        pp, pv, vv = (covariance[..., index] for index in range(3))
        gain_p = pp / (pp + model.sensor(position) ** 2)
        gain_v = pv / (pp + model.sensor(position) ** 2)
        difference = model.measure(boxes) - position
        self.position[rows] = position + gain_p * difference
        self.velocity[rows] = self.velocity[rows] + gain_v * difference
        kept = 1 - gain_p
        self.covariance[rows] = np.stack([kept * pp, kept * pv, vv - gain_v * pv], axis=-1)

    def warp(self, affine: Floats64, model: BoxModel) -> None:
        """Follow a camera that moved: ``affine`` `(2, 3)` takes points of the last picture to this one.

        Boxes stay upright: their centres move, their sizes grow with the picture, velocities turn.
        """
        boxes = model.corners(self.position)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ affine[:, :2].T + affine[:, 2]
        scale = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
        half = (boxes[:, 2:] - boxes[:, :2]) / 2 * scale
        self.position = model.measure(np.concatenate([centre - half, centre + half], axis=1))
        self.velocity = self.velocity.copy()
        self.velocity[:, :2] = self.velocity[:, :2] @ affine[:, :2].T

    def boxes(self, model: BoxModel) -> Floats64:
        """Boxes `(T, 4)` as x1, y1, x2, y2."""
        return model.corners(self.position)

    def keep(self, rows: Any) -> "States":
        """The tracks of ``rows`` (mask or indices)."""
        return States(self.position[rows], self.velocity[rows], self.covariance[rows])

    def joined(self, other: "States") -> "States":
        """These tracks, then ``other``'s."""
        return States(
            np.concatenate([self.position, other.position]),
            np.concatenate([self.velocity, other.velocity]),
            np.concatenate([self.covariance, other.covariance]),
        )


def _centre_aspect_height(boxes: Floats64) -> Floats64:
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], _TINY)
    return np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, size[:, 0] / size[:, 1], size[:, 1]])


def _from_aspect_height(numbers: Floats64) -> Floats64:
    height = np.maximum(numbers[:, 3], _TINY)
    half = np.column_stack([np.maximum(numbers[:, 2], _TINY) * height, height]) / 2
    return np.concatenate([numbers[:, :2] - half, numbers[:, :2] + half], axis=1)


def _by_height(numbers: Floats64, place: float, aspect: float) -> Floats64:
    height = place * np.maximum(numbers[:, 3:4], _TINY)
    return np.concatenate([height, height, np.full_like(height, aspect), height], axis=1)


XYAH = BoxModel(
    measure=_centre_aspect_height,
    corners=_from_aspect_height,
    process=lambda numbers: (_by_height(numbers, 1 / 20, 1e-2), _by_height(numbers, 1 / 160, 1e-5)),
    sensor=lambda numbers: _by_height(numbers, 1 / 20, 1e-1),
    start=lambda numbers: (_by_height(numbers, 2 / 20, 1e-2), _by_height(numbers, 10 / 160, 1e-5)),
)
"""Centre, aspect ratio, height; noise grows with the height (Wojke et al., arXiv:1703.07402; ByteTrack)."""


def _centre_size(boxes: Floats64) -> Floats64:
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], _TINY)
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, size], axis=1)


def _from_size(numbers: Floats64) -> Floats64:
    half = np.maximum(numbers[:, 2:], _TINY) / 2
    return np.concatenate([numbers[:, :2] - half, numbers[:, :2] + half], axis=1)


def _by_size(numbers: Floats64, share: float) -> Floats64:
    size = share * np.maximum(numbers[:, 2:], _TINY)
    return np.concatenate([size, size], axis=1)


XYWH = BoxModel(
    measure=_centre_size,
    corners=_from_size,
    process=lambda numbers: (_by_size(numbers, 1 / 20), _by_size(numbers, 1 / 160)),
    sensor=lambda numbers: _by_size(numbers, 1 / 20),
    start=lambda numbers: (_by_size(numbers, 2 / 20), _by_size(numbers, 10 / 160)),
)
"""Centre, width, height; noise grows with the size (Aharon et al., arXiv:2206.14651)."""


def _centre_area_ratio(boxes: Floats64) -> Floats64:
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], _TINY)
    return np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, size[:, 0] * size[:, 1], size[:, 0] / size[:, 1]])


def _from_area_ratio(numbers: Floats64) -> Floats64:
    width = np.sqrt(np.maximum(numbers[:, 2], _TINY) * np.maximum(numbers[:, 3], _TINY))
    half = np.column_stack([width, np.maximum(numbers[:, 2], _TINY) / np.maximum(width, _TINY)]) / 2
    return np.concatenate([numbers[:, :2] - half, numbers[:, :2] + half], axis=1)


_ONES = np.ones(4)
_XYSR_PROCESS = (_ONES, np.sqrt(np.array([0.01, 0.01, 0.0001, 0.0])))
_XYSR_SENSOR = np.sqrt(np.array([1.0, 1.0, 10.0, 10.0]))
_XYSR_START = (np.sqrt(np.full(4, 10.0)), np.sqrt(np.array([1e4, 1e4, 1e4, 0.0])))

XYSR = BoxModel(
    measure=_centre_area_ratio,
    corners=_from_area_ratio,
    process=lambda numbers: _XYSR_PROCESS,
    sensor=lambda numbers: _XYSR_SENSOR,
    start=lambda numbers: _XYSR_START,
)
"""Centre, area, ratio of the sides, which stays as it is (Bewley et al., arXiv:1602.00763)."""
