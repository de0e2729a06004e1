"""Large pictures through a network of fixed input size: cut into tiles that overlap, and joined without seams.

A network sees nothing beyond a tile's edge, so what it says near one is worth less than what the neighbour says
there. The outermost quarter of an overlap is therefore thrown away, and across the rest one tile fades into the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.vision.image import Image, check_image


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut: tiles of ``size`` (height, width) pixels, neighbours with at least ``overlap`` in common.

    ``scale`` is how many pixels of the answer stand for one of the picture, along each side.
    """

    size: tuple[int, int]
    overlap: int = 0
    scale: int = 1

    def problems(self) -> list[str]:
        """What is wrong with it, in words; empty when it is sound."""
        if not 0 <= self.overlap < min(self.size):
            return [f"overlap is {self.overlap}; it must lie within 0..{min(self.size) - 1}, below the size of a tile"]
        if self.scale < 1:
            return [f"scale is {self.scale}; it must be 1 or more"]
        return []

    def output_problems(self, shapes: Sequence[tuple[int, ...]]) -> list[str]:
        """Which outputs of these shapes are no answer to one tile, in words."""
        size = (self.size[0] * self.scale, self.size[1] * self.scale)
        return [
            f"an output has shape {shape}; for tiles of {self.size} and scale {self.scale} its height and width must "
            f"be {size}. Set family.options.scale to what the model enlarges by."
            for shape in shapes
            if len(shape) != 4 or size not in (shape[1:3], shape[2:])
        ]


@dataclass(frozen=True)
class Grid:
    """Where the tiles of a picture of (height, width) ``picture`` lie: rows from ``tops``, columns from ``lefts``.

    ``padded`` is the picture's size once it is at least a tile. ``rows`` `(n, size)` and ``columns`` hold each tile's
    share of the answer along the two axes, in pixels of the answer; the shares of all tiles add up to 1.
    """

    tiling: Tiling
    picture: tuple[int, int]
    padded: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    rows: FloatArray
    columns: FloatArray

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)


@lru_cache(maxsize=64)
def grid(picture: tuple[int, int], tiling: Tiling) -> Grid:
    """The fewest tiles, spread evenly, that cover a picture of (height, width).

    Raises:
        ModelError: the tiling is not sound.
    """
    found = tiling.problems()
    if found:
        raise ModelError(f"tiles of {tiling.size[1]} x {tiling.size[0]}: {found[0]}")
    padded = (max(picture[0], tiling.size[0]), max(picture[1], tiling.size[1]))
    tops, lefts = (_starts(have, size, tiling.overlap) for have, size in zip(padded, tiling.size, strict=True))
    rows, columns = (
        _shares(starts, size * tiling.scale, have * tiling.scale, tiling.scale)
        for starts, size, have in ((tops, tiling.size[0], padded[0]), (lefts, tiling.size[1], padded[1]))
    )
    return Grid(tiling, picture, padded, tops, lefts, rows, columns)


def cut(image: Image, plan: Grid, *, times: int = 1) -> list[Image]:
    """The tiles of a picture, row by row: views where it is large enough, else padded by reflection.

    ``image`` is uint8 `(H, W, 3)` or `(H, W)` of the plan's size; or ``times`` as large (a reference picture), and so
    are its tiles then.

    Raises:
        DataError: it is no picture.
    """
    check_image(image)
    bottom, right = (times * want - have for want, have in zip(plan.padded, image.shape, strict=False))
    if bottom or right:
        # Only OpenCV's reflection goes back and forth where there is less picture than padding.
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT)
    height, width = (times * size for size in plan.tiling.size)
    corners = [(times * top, times * left) for top in plan.tops for left in plan.lefts]
    return [image[top : top + height, left : left + width] for top, left in corners]


class Joiner:
    """Puts the answers for the tiles of one picture together; they come in the order of `cut`.

    An answer is float32 with a batch axis, channels first or last: `(1, C, s*h, s*w)` or `(1, s*h, s*w, C)`. Only the
    whole answer and one tile's are in memory.
    """

    def __init__(self, plan: Grid) -> None:
        self._plan = plan
        self._next = 0
        self._whole: FloatArray | None = None
        self._first = True

    def add(self, answer: FloatArray) -> None:
        """The next tile's answer.

        Raises:
            ModelError: it is not ``scale`` times as large as a tile.
        """
        plan = self._plan
        height, width = (size * plan.tiling.scale for size in plan.tiling.size)
        if self._whole is None:
            self._start(answer, (height, width))
        whole = self._whole
        assert whole is not None
        row, column = divmod(self._next, len(plan.lefts))
        top, left = plan.tops[row] * plan.tiling.scale, plan.lefts[column] * plan.tiling.scale
        share: Any = plan.rows[row][:, None] * plan.columns[column][None, :]
        if self._first:
            whole[0, :, top : top + height, left : left + width] += answer[0] * share
        else:
            whole[0, top : top + height, left : left + width] += answer[0] * share[:, :, None]
        self._next += 1

    def whole(self) -> FloatArray:
        """The answer for the picture, in the layout of the tiles' answers, without what was padded.

        Raises:
            ModelError: tiles are missing.
        """
        if self._whole is None or self._next != len(self._plan):
            raise ModelError(f"{self._next} of {len(self._plan)} tiles have an answer; all are needed")
        height, width = (size * self._plan.tiling.scale for size in self._plan.picture)
        return self._whole[:, :, :height, :width] if self._first else self._whole[:, :height, :width]

    def _start(self, answer: FloatArray, size: tuple[int, int]) -> None:
        height, width = (size * self._plan.tiling.scale for size in self._plan.padded)
        if answer.ndim == 4 and answer.shape[2:] == size:
            self._whole = np.zeros((1, answer.shape[1], height, width), np.float32)
        elif answer.ndim == 4 and answer.shape[1:3] == size:
            self._first = False
            self._whole = np.zeros((1, height, width, answer.shape[3]), np.float32)
        else:
            raise ModelError(self._plan.tiling.output_problems([answer.shape])[0])


def _starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    """Where the tiles begin along one axis; the distances differ by at most a pixel."""
    if length <= size:
        return (0,)
    count = -(-(length - overlap) // (size - overlap))
    return tuple(index * (length - size) // (count - 1) for index in range(count))


def _shares(starts: tuple[int, ...], size: int, length: int, scale: int) -> FloatArray:
    """Each tile's share along one axis, `(n, size)` float32, in pixels of the answer; a column of it adds up to 1."""
    weights = np.ones((len(starts), size), dtype=np.float64)
    for index in range(1, len(starts)):
        common = size - (starts[index] - starts[index - 1]) * scale
        ramp = _ramp(common)
        weights[index, :common] *= ramp
        weights[index - 1, size - common :] *= ramp[::-1]
    total = np.zeros(length, dtype=np.float64)
    for row, start in zip(weights, starts, strict=True):
        total[start * scale : start * scale + size] += row
    for row, start in zip(weights, starts, strict=True):
        row /= total[start * scale : start * scale + size]
    shares = weights.astype(np.float32)
    shares.setflags(write=False)  # shared by all callers
    return shares


def _ramp(common: int) -> Any:
    """From 0 over the first quarter of what two tiles have in common to 1 over the last quarter."""
    aside = common // 4
    inside = common - 2 * aside
    ramp = np.ones(common, dtype=np.float64)
    ramp[:aside] = 0.0
    ramp[aside : aside + inside] = (np.arange(inside) + 0.5) / max(1, inside)
    return ramp
