"""Small pictures without labels, for the pruning benchmark: pieces of photographs, shrunk to a network's input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from edgecv.core.progress import Progress
from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec
from edgecv.core.tensor import Array
from edgecv.data.kept import kept
from edgecv.data.pieces import Pieces
from edgecv.data.readers import open_reader

FOLDERS = ("imagenet-samples", "coco-mini/images", "voc-mini")
"""Of the folder EDGECV_DATA; none of them holds a picture of CIFAR-10."""
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 75, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
"""As the pictures of cifar10-mini are stored."""


class SmallPieces:
    """`Pieces`, ``each`` of every photograph of `FOLDERS`, shrunk to ``side`` pixels and stored as cifar10-mini's
    pictures are; in memory."""

    def __init__(self, data: Path, each: int, *, progress: Progress, side: int = 32) -> None:
        self._samples: list[Sample] = []
        self.skipped: Mapping[str, str] = {}
        for folder in FOLDERS:
            spec = DataSpec(kind="images", path=str(data / folder), strict=True)
            photographs = open_reader(spec, base=data, labels=(), progress=progress)
            pieces = Pieces(kept(photographs, limit_bytes=10**9), each)
            for index in range(len(pieces)):
                piece = pieces[index]
                self._samples.append(Sample(f"{folder}/{piece.id}", _shrunk(piece.image, side), None))
        self.ids: Sequence[str] = [sample.id for sample in self._samples]
        self.truths: Sequence[None] = [None] * len(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        """BGR, uint8, `(side, side, 3)`; no truth."""
        return self._samples[index]

    def sha256(self, index: int) -> str:
        """Hash of a piece's pixels."""
        return hashlib.sha256(self._samples[index].image.tobytes()).hexdigest()

    def fingerprint(self) -> str:
        """Hash of all pieces."""
        return hashlib.sha256(b"".join(sample.image.tobytes() for sample in self._samples)).hexdigest()


def _shrunk(image: Array, side: int) -> Array:
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    done, stored = cv2.imencode(".jpg", small, QUALITY)
    assert done
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR))
