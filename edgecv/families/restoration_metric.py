"""How near a restored picture is to its reference: PSNR and SSIM, by the conventions of super-resolution."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.figures import AccuracyFigures, Interval
from edgecv.errors import DataError
from edgecv.families.restoration_result import Restored
from edgecv.vision.image import Image

METRICS: tuple[str, ...] = ("psnr", "ssim")
EQUAL_DB = 100.0
"""The PSNR of two equal pictures, which would be infinite: a mean over pictures must stay finite."""
WINDOW = 11

_LUMA = (24.966, 128.553, 65.481)
_RESAMPLES = 2000

Planes = npt.NDArray[np.float64]


class Fidelity:
    """Mean PSNR in dB and mean SSIM of restored pictures against their references.

    ``luma`` compares the Y of BT.601 (16 to 235) alone, ``border`` leaves so many pixels out at each edge: both as is
    the habit in super-resolution.
    """

    def __init__(self, name: str, *, luma: bool, border: int) -> None:
        self._name, self._luma, self._border = name, luma, border
        self._values: dict[str, list[float]] = {metric: [] for metric in METRICS}

    def update(self, result: Restored, truth: Any) -> None:
        """Add one picture; ``truth`` is its reference, uint8 `(H, W, 3)` BGR of the restored picture's size.

        Raises:
            DataError: the reference is no picture, of another size, or too small.
        """
        reference = np.asarray(truth)
        if reference.dtype != np.uint8 or reference.shape != result.picture.shape:
            raise DataError(
                f"the reference is {reference.dtype} {reference.shape} and the restored picture "
                f"{result.picture.shape}; both must be uint8 of one size. Is family.options.scale "
                f"({result.scale}) what the reference is larger by than the input?"
            )
        one, other = (planes(picture, luma=self._luma, border=self._border) for picture in (result.picture, reference))
        self._values["psnr"].append(psnr_db(one, other))
        self._values["ssim"].append(ssim(one, other))

    def compute(self) -> AccuracyFigures:
        """The mean over pictures with a bootstrap interval; ``extras`` has the other metric.

        Raises:
            DataError: there was no picture.
        """
        values = self._values[self._name]
        if not values:
            raise DataError("there is no pair of pictures to compare; give an evaluation set with at least one")
        extras = {name: float(np.mean(given)) for name, given in self._values.items() if name != self._name}
        return AccuracyFigures(
            metric=self._name,
            value=float(np.mean(values)),
            samples=len(values),
            interval=_interval(values),
            extras=extras,
            per_sample=tuple(values),
        )


def planes(picture: Image, *, luma: bool, border: int) -> Planes:
    """What is compared of a picture, uint8 `(H, W, 3)` BGR: float64 `(H, W, C)`, 0 to 255.

    With ``luma`` one plane, Y of ITU-R BT.601 in its range of 16 to 235 (as MATLAB's rgb2ycbcr), not rounded.

    Raises:
        DataError: nothing, or less than SSIM's window, is left inside ``border``.
    """
    height, width = picture.shape[:2]
    if min(height, width) - 2 * border < WINDOW:
        raise DataError(
            f"a picture of {width} x {height} has less than {WINDOW} x {WINDOW} pixels inside a border of {border}; "
            "leave it out of the evaluation set"
        )
    inside = picture[border : height - border, border : width - border].astype(np.float64)
    return 16.0 + (inside @ np.array(_LUMA) / 255.0)[:, :, None] if luma else inside


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


def _interval(values: list[float]) -> Interval | None:
    """Percentile bootstrap at 95 % of the mean over pictures; None for a single one."""
    if len(values) < 2:
        return None
    numbers, random = np.array(values), np.random.default_rng(0)
    step = max(1, (1 << 22) // len(values))
    means: list[float] = []
    for start in range(0, _RESAMPLES, step):
        rows = min(step, _RESAMPLES - start)
        means += numbers[random.integers(0, len(values), (rows, len(values)))].mean(axis=1).tolist()
    low, high = (float(edge) for edge in np.quantile(means, [0.025, 0.975]))
    return Interval(low=low, high=high)
