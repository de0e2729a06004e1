"""Pieces of pictures: squares out of each, for a teacher to answer for (``pieces`` of ``data.unlabelled``).

A network that looks at small or cut-out inputs learns little from photographs shrunk whole. Squares of random size and
place, the area part of the augmentation of Szegedy et al. 2015, arXiv:1409.4842, section 6, make many inputs of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from edgecv.core.protocols import Sample
from edgecv.core.tensor import Array
from edgecv.data.readers import LabelledReader

__all__ = ["LEAST_SHARE", "Pieces"]

LEAST_SHARE = 0.35
"""The side of a square is at least this share of the picture's shorter side, and at most all of it."""


class Pieces:
    """``each`` squares out of every picture of ``pictures``, without a truth; the same index is always the same square.

    Its picture is decoded whenever a piece is asked for; nothing is kept.
    """

    def __init__(self, pictures: LabelledReader, each: int) -> None:
        self._pictures, self._each = pictures, each
        self.ids: Sequence[str] = tuple(f"{name}#{number}" for name in pictures.ids for number in range(each))
        self.truths: Sequence[None] = (None,) * len(self.ids)
        self.skipped: Mapping[str, str] = pictures.skipped
        self.notes: tuple[str, ...] = pictures.notes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Piece ``index``: as its picture, uint8 `(side, side, 3)` BGR or `(side, side)` gray; the truth is None."""
        picture, number = divmod(range(len(self))[index], self._each)
        image = self._pictures[picture].image
        return Sample(id=self.ids[index], image=_square(image, np.random.default_rng([picture, number])), truth=None)

    def sha256(self, index: int) -> str:
        """Hash of the picture's hash and the piece's number."""
        picture, number = divmod(range(len(self))[index], self._each)
        return hashlib.sha256(f"{self._pictures.sha256(picture)} {number}".encode()).hexdigest()

    def fingerprint(self) -> str:
        """Hash of the pictures, and of how many pieces are cut out of each."""
        return hashlib.sha256(f"{self._pictures.fingerprint()} {self._each} {LEAST_SHARE}".encode()).hexdigest()


def _square(image: Array, random: np.random.Generator) -> Array:
    high, wide = image.shape[:2]
    side = max(1, round(min(high, wide) * random.uniform(LEAST_SHARE, 1.0)))
    top, left = int(random.integers(high - side + 1)), int(random.integers(wide - side + 1))
    return np.ascontiguousarray(image[top : top + side, left : left + side])
