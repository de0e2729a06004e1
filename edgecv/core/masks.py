"""The pixels of one object of a picture, small enough to be kept for every object."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """Which pixels of a picture of (height, width) ``picture`` an object covers.

    Only the part around it is kept, a bit for each pixel: ``packed`` `(h, ceil(w / 8))` uint8 are the rows of a part
    ``width`` = w pixels wide whose top left pixel is in column ``left`` and row ``top``. All outside is not covered.
    """

    left: int
    top: int
    width: int
    packed: npt.NDArray[np.uint8]
    picture: tuple[int, int]

    def __post_init__(self) -> None:
        if self.packed.ndim != 2 or self.packed.dtype != np.uint8 or self.packed.shape[1] != -(-self.width // 8):
            raise ValueError(f"packed is {self.packed.dtype} {self.packed.shape} for a width of {self.width} pixels")
        fits = 0 <= self.left <= self.picture[1] - self.width and 0 <= self.top <= self.picture[0] - len(self.packed)
        if not fits:
            shown = f"{self.width} x {len(self.packed)} pixels at {self.left}, {self.top}"
            raise ValueError(f"a mask of {shown} is not inside its picture of {self.picture[1]} x {self.picture[0]}")

    @staticmethod
    def of(bits: npt.NDArray[Any], picture: tuple[int, int], *, left: int = 0, top: int = 0) -> ObjectMask:
        """The mask whose part is ``bits`` `(h, w)`, anything but 0 is covered; the empty rim is cut off."""
        rows, columns = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
        if not len(rows):
            return ObjectMask(0, 0, 0, np.zeros((0, 0), np.uint8), picture)
        part = bits[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return ObjectMask(
            left + int(columns[0]), top + int(rows[0]), part.shape[1], np.packbits(part != 0, axis=1), picture
        )

    @property
    def height(self) -> int:
        """Rows of the part."""
        return len(self.packed)

    def bits(self) -> Bits:
        """The part `(h, w)`."""
        if self.width == 0:
            return np.zeros((self.height, 0), dtype=bool)
        return np.unpackbits(self.packed, axis=1, count=self.width).view(bool)

    def full(self) -> Bits:
        """The whole picture `(H, W)`."""
        whole = np.zeros(self.picture, dtype=bool)
        whole[self.top : self.top + self.height, self.left : self.left + self.width] = self.bits()
        return whole

    @property
    def area(self) -> int:
        """Pixels that are covered."""
        return int(np.count_nonzero(self.bits()))

    def iou(self, other: ObjectMask) -> float:
        """Intersection over union, 0..1; 0 where both are empty.

        Raises:
            ValueError: the pictures have different sizes.
        """
        if self.picture != other.picture:
            raise ValueError(f"masks of pictures of {self.picture} and {other.picture} cannot be compared")
        top, bottom = max(self.top, other.top), min(self.top + self.height, other.top + other.height)
        left, right = max(self.left, other.left), min(self.left + self.width, other.left + other.width)
        if top >= bottom or left >= right:
            return 0.0
        one, two = (
            item.bits()[top - item.top : bottom - item.top, left - item.left : right - item.left]
            for item in (self, other)
        )
        shared = int(np.count_nonzero(one & two))
        return shared / (self.area + other.area - shared) if shared else 0.0

    def to_rle(self) -> dict[str, Any]:
        """COCO's plain run-length code: ``size`` [H, W] and ``counts``, the lengths of the runs of pixels that are
        not covered and covered in turn, down the columns."""
        high, wide = self.picture
        strip = np.zeros((self.width, high), dtype=bool)
        strip[:, self.top : self.top + self.height] = self.bits().T
        line = np.pad(strip.ravel(), 1)
        edges = np.flatnonzero(line[1:] != line[:-1]) + self.left * high
        ends = [0, *edges.tolist(), high * wide]
        counts = [after - before for before, after in pairwise(ends)]
        if len(counts) > 1 and counts[-1] == 0:
            counts.pop()
        return {"size": [high, wide], "counts": counts}
