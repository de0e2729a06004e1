"""The handwritten digits that come with scikit-learn: 1797 real pictures of 8 x 8 pixels, ten classes.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49, CC BY 4.0. Small enough to train on in seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from edgecv.core.protocols import Sample
from edgecv.core.tensor import Array
from edgecv.data.files import even_pick, fingerprint_of
from edgecv.errors import DataError, ToolchainError

CLASSES = 10
LICENCE = "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits, doi:10.24432/C50P49)"
TEST_EVERY = 3
"""Within each class, in the order of the data set, every third picture is a test picture."""

Split = Literal["train", "test", "all"]


class DigitsReader:
    """A `Reader` over the digits: gray uint8 `(8, 8)` pictures, truth 0..9, ids ``digits-0000`` on."""

    skipped: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()

    def __init__(self, images: Array, truths: Sequence[int], numbers: Sequence[int]) -> None:
        self._images = images
        self._numbers = tuple(numbers)
        self.truths: Sequence[int] = tuple(int(truths[number]) for number in numbers)
        self.ids: Sequence[str] = tuple(map(digit_id, numbers))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``; the picture is the caller's own."""
        image = self._images[self._numbers[index]].copy()
        return Sample(id=self.ids[index], image=image, truth=self.truths[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def sha256(self, index: int) -> str:
        """Hash of the picture's 64 bytes, row by row."""
        return hashlib.sha256(self._images[self._numbers[index]].tobytes()).hexdigest()

    def fingerprint(self) -> str:
        """Hash over the ids, classes and pictures of all samples."""
        return fingerprint_of(zip(self.ids, self.truths, map(self.sha256, range(len(self))), strict=True))


def open_digits(
    *, split: Split, labels: Sequence[str], limit: int | None, only: frozenset[str] | None = None
) -> DigitsReader:
    """The digits of ``split``: a fixed rule takes every third picture of each class for the test set.

    ``only`` keeps the samples with these ids.

    Raises:
        DataError: there are not ten labels.
        ToolchainError: scikit-learn is not installed.
    """
    if len(labels) != CLASSES:
        raise DataError(f"the recipe has {len(labels)} labels; kind sklearn-digits needs {CLASSES}, for 0 to 9")
    images, truths = _load()
    numbers = _numbers_of(split, truths)
    kept = even_pick([truths[number] for number in numbers], limit)
    kept_numbers = [numbers[index] for index in kept]
    if only is not None:
        kept_numbers = [number for number in kept_numbers if digit_id(number) in only]
    return DigitsReader(images, truths, kept_numbers)


def digit_id(number: int) -> str:
    """Id of the picture ``number`` (0..1796 in scikit-learn's order)."""
    return f"digits-{number:04d}"


def digits_fingerprint() -> str:
    """Version of scikit-learn, which holds the pictures; it is not imported.

    Raises:
        ToolchainError: scikit-learn is not installed.
    """
    from importlib import metadata

    try:
        return "scikit-learn " + metadata.version("scikit-learn")
    except metadata.PackageNotFoundError:
        raise _missing() from None


def _missing() -> ToolchainError:
    return ToolchainError("kind sklearn-digits needs scikit-learn, which is not installed; pip install 'edgecv[host]'")


@lru_cache(maxsize=1)
def _load() -> tuple[Array, tuple[int, ...]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise _missing() from error
    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)
    images.setflags(write=False)
    return images, tuple(int(truth) for truth in bunch.target)


def _numbers_of(split: Split, truths: Sequence[int]) -> list[int]:
    if split == "all":
        return list(range(len(truths)))
    seen = [0] * CLASSES
    numbers = []
    for number, truth in enumerate(truths):
        is_test = seen[truth] % TEST_EVERY == TEST_EVERY - 1
        seen[truth] += 1
        if is_test == (split == "test"):
            numbers.append(number)
    return numbers
