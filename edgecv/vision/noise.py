"""The noise of a camera's sensor, added to a clean picture."""

from __future__ import annotations

import numpy as np

from edgecv.vision.image import Image

__all__ = ["add_noise"]


def add_noise(image: Image, *, sigma: float, shot: float, draws: np.random.Generator) -> Image:
    """``image`` (uint8, any shape) with Poisson-Gaussian noise; every value has noise of its own.

    ``sigma`` is the standard deviation of the Gaussian part (what reading the sensor adds) in steps of 0..255; ``shot``
    is how many steps one electron makes, so that the Poisson part (what counting light adds) has variance ``shot``
    times the value, and 0 leaves it out. A. Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for
    single-image raw-data", IEEE Trans. Image Processing 17(10), 2008. As in a picture that was stored, values are
    rounded and cut at 0 and 255.

    Raises:
        ValueError: ``sigma`` or ``shot`` is below 0.
    """
    if not (sigma >= 0 and shot >= 0):
        raise ValueError(f"sigma is {sigma} and shot {shot}; both must be 0 or more")
    values = image.astype(np.float32)
    if shot > 0:
        values = draws.poisson(values / shot).astype(np.float32) * np.float32(shot)
    values += draws.normal(0.0, sigma, image.shape).astype(np.float32)
    noisy: Image = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return noisy
