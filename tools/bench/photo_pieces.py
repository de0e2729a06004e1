"""Small pictures without labels, for the pruning benchmark: squares out of photographs, shrunk to a network's input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from edgecv.core.progress import Progress
from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader

FOLDERS = ("imagenet-samples", "coco-mini/images", "voc-mini")
"""Of the folder EDGECV_DATA; none of them holds a picture of CIFAR-10."""
LEAST_SHARE = 0.35
"""Sides of a square are at least this share of the photograph's shorter side: objects are large in CIFAR-10."""
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 75, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
"""As the pictures of cifar10-mini are stored."""


class Pieces:
    """``each`` squares of ``side`` pixels out of every photograph below ``data``, cut once; always the same ones."""

    def __init__(self, data: Path, each: int, *, progress: Progress, side: int = 32) -> None:
        self.skipped: Mapping[str, str] = {}
        self._images: list[np.ndarray] = []
        self._names: list[str] = []
        for folder in FOLDERS:
            spec = DataSpec(kind="images", path=str(data / folder))
            photographs = open_reader(spec, base=data, labels=(), progress=progress)
            self.skipped = {**self.skipped, **photographs.skipped}
            for index, name in enumerate(photographs.ids):
                image = np.asarray(photographs[index].image)
                random = np.random.default_rng([index, len(self._images)])
                self._images += [_square(image, side, random) for _ in range(each)]
                self._names += [f"{folder}/{name}#{number}" for number in range(each)]

    @property
    def ids(self) -> Sequence[str]:
        """Folder, photograph and number."""
        return self._names

    @property
    def truths(self) -> Sequence[None]:
        """None for every piece."""
        return [None] * len(self._images)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """BGR, uint8, `(side, side, 3)`; no truth."""
        return Sample(id=self._names[index], image=self._images[index], truth=None)

    def sha256(self, index: int) -> str:
        """Hash of a piece's pixels."""
        return hashlib.sha256(self._images[index].tobytes()).hexdigest()

    def fingerprint(self) -> str:
        """Hash of all pieces."""
        return hashlib.sha256(b"".join(image.tobytes() for image in self._images)).hexdigest()


def _square(image: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    high, wide = image.shape[:2]
    reach = round(min(high, wide) * random.uniform(LEAST_SHARE, 1.0))
    top, left = int(random.integers(high - reach + 1)), int(random.integers(wide - reach + 1))
    small = cv2.resize(image[top : top + reach, left : left + reach], (side, side), interpolation=cv2.INTER_AREA)
    done, stored = cv2.imencode(".jpg", small, QUALITY)
    assert done
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR))
