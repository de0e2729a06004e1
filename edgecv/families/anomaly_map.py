"""What an anomaly network says about a picture, and the truth that it is held against: how unusual each pixel is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.tensor import FloatArray
from edgecv.vision.draw import put_text
from edgecv.vision.image import Image

__all__ = ["AnomalyMap", "AnomalyTruth"]

OK, DEFECT = "ok", "defect"
_PAINT = 0.65
_GREEN, _RED = (60, 160, 60), (50, 50, 220)


@dataclass(frozen=True)
class AnomalyMap:
    """How unusual every pixel of one picture is.

    ``values`` is `(H, W)` float32, larger is more unusual, 0 where the network did not see (a crop cut it away).
    ``score`` is the picture's own, and the picture shows a defect where it is above ``threshold``.
    """

    values: FloatArray
    score: float
    threshold: float

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ValueError(f"values is {self.values.dtype} of shape {self.values.shape}; float32 (H, W) is needed")

    @property
    def defect(self) -> bool:
        """Whether the picture is called defective."""
        return self.score > self.threshold

    @property
    def verdict(self) -> str:
        """``ok`` or ``defect``."""
        return DEFECT if self.defect else OK

    @property
    def peak(self) -> tuple[int, int]:
        """Column and row of the most unusual pixel."""
        row, column = divmod(int(self.values.argmax()), self.values.shape[1])
        return column, row

    def likeness(self, other: AnomalyMap) -> float:
        """1 for two scores that are the same, down to 0 where one is none beside the other and the threshold."""
        if self.values.shape != other.values.shape:
            return 0.0
        largest = max(abs(self.score), abs(other.score), self.threshold, 1e-9)
        return max(0.0, 1.0 - abs(self.score - other.score) / largest)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: verdict, score, threshold, ``size`` [height, width], the most unusual pixel ``peak``
        [x, y], and the ``area`` (0..1) of the picture above the threshold.

        The map itself is left out: it has as many values as the picture.
        """
        return {
            "verdict": self.verdict,
            "score": round(self.score, 5),
            "threshold": round(self.threshold, 5),
            "size": list(self.values.shape),
            "peak": list(self.peak),
            "area": round(float((self.values > self.threshold).mean()), 5),
        }

    def words(self) -> str:
        """The verdict and its score, on one line."""
        return f"{self.verdict} {self.score:.2f} (limit {self.threshold:.2f})"

    def brief(self) -> str:
        """The verdict alone."""
        return self.verdict

    def draw(self, image: Image, scale: float) -> None:
        """Paint the unusual parts over ``image`` (uint8 `(H, W, 3)` BGR), warm where they reach the threshold, with a
        line around what is above it, and the verdict with its score at the bottom left.

        A picture of another size than the map's has the map stretched over it.
        """
        size = (image.shape[1], image.shape[0])
        values = self.values
        if values.shape != image.shape[:2]:
            values = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)
        heat = np.clip(values / max(2 * self.threshold, 1e-9), 0.0, 1.0)
        colors = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
        share = (_PAINT * heat)[..., None]
        image[:] = (image * (1 - share) + colors * share).astype(np.uint8)
        thick = max(1, round(2 * scale))
        if self.defect:
            above = (values > self.threshold).astype(np.uint8)
            edges, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            cv2.drawContours(image, edges, -1, _RED, thick, cv2.LINE_AA)
        color = _RED if self.defect else _GREEN
        cv2.rectangle(image, (0, 0), (image.shape[1] - 1, image.shape[0] - 1), color, 2 * thick)
        put_text(image, f"{self.verdict} {self.score:.2f}", (6, image.shape[0] - 6), scale, color)


@dataclass(frozen=True)
class AnomalyTruth:
    """Whether a picture shows a defect and, where that is known, its pixels: ``mask`` `(H, W)` uint8, 1 on the defect.

    A good picture needs no mask; a defective one without a mask is judged as a whole only.
    """

    defect: bool
    mask: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and (self.mask.ndim != 2 or self.mask.dtype != np.uint8):
            raise ValueError(f"mask is {self.mask.dtype} of shape {self.mask.shape}; uint8 (H, W) is needed")
