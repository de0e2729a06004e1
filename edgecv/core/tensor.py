"""What a tensor at the edge of an engine looks like: name, shape, type, layout and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
Layout = Literal["NCHW", "NHWC", "NC", "NTCHW", "NCTHW", "NTHWC", "OTHER"]

LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC", "NC", "NTCHW", "NCTHW", "NTHWC", "OTHER")


@dataclass(frozen=True)
class Quantization:
    """Per-tensor affine quantisation: ``real = (stored - zero_point) * scale``.

    ``scale`` is > 0; ``zero_point`` lies within the range of the stored type.
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale is {self.scale!r}; a finite number above 0 is needed")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine.

    ``shape`` is fully static (every length >= 1; () for a scalar); ``dtype`` is a numpy type name
    ("float32", "int8", ...). ``quantization`` is set only where the stored values are quantised.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Layout = "OTHER"
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        if any(length < 1 for length in self.shape):
            raise ValueError(f"tensor {self.name!r} has shape {self.shape}; every length must be 1 or more")
        try:
            kind: str = np.dtype(self.dtype).kind
        except TypeError:
            kind = ""
        if kind not in ("b", "i", "u", "f"):
            raise ValueError(
                f"tensor {self.name!r} has type {self.dtype!r}; allowed are numpy's bool, int and float types"
            )
        if self.layout not in LAYOUTS:
            raise ValueError(f"tensor {self.name!r} has layout {self.layout!r}; allowed: {', '.join(LAYOUTS)}")

    def quantize(self, values: Array) -> Array:
        """Real ``values`` (any shape, float) as this tensor's stored type; rounds half to even, saturates."""
        if self.quantization is None:
            return np.ascontiguousarray(values, dtype=self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.rint(values / np.float32(self.quantization.scale)) + self.quantization.zero_point
        stored: Array = np.clip(steps, limits.min, limits.max).astype(self.dtype)
        return stored

    def dequantize(self, stored: Array) -> FloatArray:
        """Stored values (any shape) as float32 real values."""
        if self.quantization is None:
            return np.asarray(stored, dtype=np.float32)
        zero = np.float32(self.quantization.zero_point)
        return (stored.astype(np.float32) - zero) * np.float32(self.quantization.scale)
