"""Small pictures without labels, for the pruning benchmark: squares out of photographs, shrunk to a network's input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgecv.core.protocols import Sample
from edgecv.data.readers import LabelledReader

LEAST_SHARE = 0.35
"""Sides of a square are at least this share of the photograph's shorter side: objects are large in CIFAR-10."""
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 75, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
"""As the pictures of cifar10-mini are stored."""


@dataclass(frozen=True)
class Pieces:
    """``count`` squares of ``side`` pixels from ``photographs`` in turn; the same index is always the same square."""

    photographs: LabelledReader
    count: int
    side: int = 32

    @property
    def ids(self) -> Sequence[str]:
        """Their numbers."""
        return [str(index) for index in range(self.count)]

    @property
    def skipped(self) -> Mapping[str, str]:
        """Photographs that cannot be read."""
        return self.photographs.skipped

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """BGR, uint8, `(side, side, 3)`; no truth."""
        image = self.photographs[index % len(self.photographs)].image
        random = np.random.default_rng(index)
        high, wide = image.shape[:2]
        reach = round(min(high, wide) * random.uniform(LEAST_SHARE, 1.0))
        top, left = int(random.integers(high - reach + 1)), int(random.integers(wide - reach + 1))
        square = image[top : top + reach, left : left + reach]
        small = cv2.resize(square, (self.side, self.side), interpolation=cv2.INTER_AREA)
        done, stored = cv2.imencode(".jpg", small, QUALITY)
        assert done
        return Sample(id=str(index), image=np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR)), truth=None)

    def sha256(self, index: int) -> str:
        """Hash of a piece's pixels."""
        return hashlib.sha256(self[index].image.tobytes()).hexdigest()

    def fingerprint(self) -> str:
        """Of the photographs, and of how they are cut."""
        return f"{self.photographs.fingerprint()} {self.count} {self.side} {LEAST_SHARE}"
