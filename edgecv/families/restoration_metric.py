"""How near a restored picture is to its reference: PSNR and SSIM, by the conventions of super-resolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecv.core.figures import AccuracyFigures, Interval
from edgecv.errors import DataError
from edgecv.families.restoration_result import Restored
from edgecv.vision.fidelity import WINDOW, Planes, psnr_db, ssim
from edgecv.vision.image import Image

METRICS: tuple[str, ...] = ("psnr", "ssim")

_LUMA = (24.966, 128.553, 65.481)
_RESAMPLES = 2000


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
