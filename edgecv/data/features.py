"""A picture in a few numbers, as the network sees it: to pick calibration sets and to compare data sets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Reader
from edgecv.core.tensor import Array, FloatArray

GRID = 8
REGIONS = 4


@dataclass(frozen=True)
class Features:
    """Numbers of N pictures, after colour and resize of the input contract; pixel values count as 0..1.

    ``grid`` `(N, 8 * 8 * C)`: mean of each of 8 x 8 regions and channels; ``level`` and ``contrast``
    `(N, C)`: mean and standard deviation over the picture; ``sharpness`` `(N, C)`: mean absolute
    difference of neighbours; ``saturated`` `(N,)`: share of the original's pixel values at 0 or 255.
    """

    grid: FloatArray
    level: FloatArray
    contrast: FloatArray
    sharpness: FloatArray
    saturated: FloatArray

    @property
    def vectors(self) -> FloatArray:
        """One vector a picture, `(N, D)`: the grid, weighted so that a region counts as one part of
        a picture, with level and contrast."""
        return np.concatenate([self.grid / GRID, self.level, self.contrast], axis=1)

    @property
    def patterns(self) -> FloatArray:
        """The grid of each picture without its brightness and contrast, at unit length, `(N, D)`; 0 for a
        blank one. The scalar product of two of them is their correlation."""
        centred = self.grid - self.grid.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        blank = lengths < 1e-3
        unit: FloatArray = np.where(blank, 0.0, centred / np.where(blank, 1.0, lengths)).astype(np.float32)
        return unit

    @property
    def regions(self) -> FloatArray:
        """Means of 4 x 4 regions, `(N, 4 * 4 * C)`."""
        step = GRID // REGIONS
        cells = self.grid.reshape(len(self.grid), REGIONS, step, REGIONS, step, -1)
        means: FloatArray = cells.mean(axis=(2, 4)).reshape(len(self.grid), -1)
        return means


def features_of(reader: Reader, indices: Iterable[int], contract: InputContract) -> Features:
    """Features of some pictures of ``reader``, which are read one by one and not kept; of a clip, its middle frame's.

    Raises:
        DataError: a picture cannot be read.
    """
    rows = [_one(reader[index].image, contract) for index in indices]
    grid, level, contrast, sharpness, saturated = (np.stack(column) for column in zip(*rows, strict=True))
    return Features(grid, level, contrast, sharpness, saturated)


def _one(image: Array, contract: InputContract) -> tuple[Array, Array, Array, Array, np.float32]:
    import cv2

    from edgecv.vision.clips import middle
    from edgecv.vision.image import fit_image

    image = middle(image)
    fitted = fit_image(image, contract.still)
    pixels = fitted.astype(np.float32) / np.float32(255.0)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    grid = cv2.resize(pixels, (GRID, GRID), interpolation=cv2.INTER_AREA).reshape(-1)
    level = pixels.mean(axis=(0, 1))
    contrast = pixels.std(axis=(0, 1))
    sharpness = np.zeros_like(level)
    for axis in (0, 1):
        if pixels.shape[axis] > 1:
            sharpness += np.abs(np.diff(pixels, axis=axis)).mean(axis=(0, 1))
    saturated = np.float32(np.mean((image == 0) | (image == 255)))
    return grid, level, contrast, sharpness, saturated
