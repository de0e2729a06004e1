"""How near one picture is to another: peak signal to noise ratio and structural similarity."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

EQUAL_DB = 100.0
"""The PSNR of two equal pictures, which would be infinite: a mean over pictures must stay finite."""
WINDOW = 11
Planes = npt.NDArray[np.float64]


def psnr_db(one: Planes, other: Planes) -> float:
    """Peak signal to noise ratio, ``10 log10(255^2 / mean squared error)`` over all values; at most `EQUAL_DB`."""
    error = float(np.square(one - other).mean())
    return EQUAL_DB if error == 0 else min(EQUAL_DB, float(10.0 * np.log10(255.0**2 / error)))


def ssim(one: Planes, other: Planes) -> float:
    """Structural similarity of `(H, W, C)` values 0 to 255, mean over positions and channels, at most 1.

    Wang, Bovik, Sheikh, Simoncelli: Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE
    Trans. Image Processing 13, 2004: a Gaussian window of 11 x 11 with sigma 1.5, K1 0.01, K2 0.03, only where the
    window lies wholly inside.
    """
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    mean_one, mean_other = _blurred(one), _blurred(other)
    square_one, square_other, product = mean_one**2, mean_other**2, mean_one * mean_other
    variance_one, variance_other = _blurred(one * one) - square_one, _blurred(other * other) - square_other
    covariance = _blurred(one * other) - product
    likeness = ((2 * product + c1) * (2 * covariance + c2)) / (
        (square_one + square_other + c1) * (variance_one + variance_other + c2)
    )
    return float(likeness.mean())


def _blurred(values: Planes) -> Planes:
    aside = WINDOW // 2
    smooth = cv2.GaussianBlur(values, (WINDOW, WINDOW), 1.5, borderType=cv2.BORDER_REFLECT)
    kept: Planes = smooth[aside:-aside, aside:-aside]
    return kept
