"""What a depth network says about a picture, and the truth that it is held against: a distance for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.tensor import FloatArray
from edgecv.vision.draw import put_text
from edgecv.vision.image import Image
from edgecv.vision.maps import fit_map

__all__ = ["DepthMap", "DepthTruth"]

UNKNOWN = 0.0
LIMIT = 1.25
"""Two distances are alike where neither is more than so many times the other (delta1's limit)."""
_SAME_SPAN = 0.05
_PAINT = 0.7
_EDGES = (2.0, 98.0)


@dataclass(frozen=True)
class DepthMap:
    """How far away every pixel of one picture is.

    ``values`` is `(H, W)` float32. With ``metric`` they are metres, 0 where the network did not see (a crop cut it
    away). Without it they are relative inverse depths: larger is nearer, up to an unknown scale and shift.
    """

    values: FloatArray
    metric: bool = True

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ValueError(f"values is {self.values.dtype} of shape {self.values.shape}; float32 (H, W) is needed")

    @cached_property
    def span(self) -> tuple[float, float]:
        """The nearest and the farthest (metres), or the smallest and the largest relative value, without outliers."""
        known = self.values[self.values > UNKNOWN] if self.metric else self.values.ravel()
        if not len(known):
            return 0.0, 0.0
        low, high = np.percentile(known, _EDGES)
        return float(low), float(high)

    def likeness(self, other: DepthMap) -> float:
        """Share of the picture, 0..1, where both are within a factor of 1.25 (relative ones: 5 % of the span)."""
        if self.values.shape != other.values.shape or self.metric != other.metric:
            return 0.0
        if self.metric:
            known = (self.values > UNKNOWN) & (other.values > UNKNOWN)
            same = ratio(self.values[known], other.values[known]) < LIMIT
        else:
            low, high = self.span
            same = np.abs(self.values - other.values) <= _SAME_SPAN * max(high - low, 1e-6)
        return float(same.mean()) if same.size else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``size`` [height, width], ``unit`` and the 2nd and 98th percentile.

        The map itself is left out: it has as many values as the picture.
        """
        low, high = self.span
        unit = "m" if self.metric else "relative inverse depth"
        return {"size": list(self.values.shape), "unit": unit, "low": round(low, 4), "high": round(high, 4)}

    def words(self) -> str:
        """The span of distances, on one line."""
        low, high = self.span
        return (
            f"depth {low:.2f} m to {high:.2f} m" if self.metric else f"relative inverse depth {low:.3g} to {high:.3g}"
        )

    def painted(self) -> Image:
        """Near is warm, far is cold: `(H, W, 3)` BGR; black where the distance is not known."""
        low, high = self.span
        share = (self.values - low) / max(high - low, 1e-9)
        near = 1.0 - share if self.metric else share
        levels = (np.clip(near, 0.0, 1.0) * 255).astype(np.uint8)
        colors: Image = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)
        if self.metric:
            colors[self.values <= UNKNOWN] = 0
        return colors

    def draw(self, image: Image, scale: float) -> None:
        """Paint the distances over ``image`` (uint8 `(H, W, 3)` BGR) with their span at the bottom left.

        A picture of another size than the map's has the map stretched over it.
        """
        colors = self.painted()
        if colors.shape != image.shape:
            colors = cv2.resize(colors, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
        cv2.addWeighted(image, 1 - _PAINT, colors, _PAINT, 0, dst=image)
        put_text(image, self.words(), (6, image.shape[0] - 6), scale, (40, 40, 40))


def ratio(found: npt.NDArray[Any], true: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How many times one distance is the other, 1 or more; both above 0."""
    times: npt.NDArray[Any] = np.maximum(found / true, true / found)
    return times


@dataclass(frozen=True)
class DepthTruth:
    """The true distance of every pixel: ``metres`` `(H, W)` float32, 0 where it is not known."""

    metres: FloatArray

    def __post_init__(self) -> None:
        if self.metres.ndim != 2 or self.metres.dtype != np.float32:
            raise ValueError(f"metres is {self.metres.dtype} of shape {self.metres.shape}; float32 (H, W) is needed")

    @property
    def fill(self) -> float:
        """The value of pixels outside the picture."""
        return UNKNOWN

    def to_network(self, contract: InputContract) -> FloatArray:
        """The map where the contract puts the picture's pixels, `(h, w)` float32, 0 in the padding."""
        return fit_map(self.metres, contract, fill=UNKNOWN).astype(np.float32, copy=False)
