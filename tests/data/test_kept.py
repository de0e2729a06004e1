from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgecv.core.protocols import Sample
from edgecv.data.kept import kept


class Counted:
    """A reader of its own pictures that counts how often each is read."""

    skipped: dict[str, str] = {}
    notes = ("a note",)

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.read = sizes, Counter[int]()
        self.ids = [f"sample {index}" for index in range(len(sizes))]
        self.truths = [None] * len(sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        self.read[index] += 1
        return Sample(self.ids[index], np.full((self.sizes[index], 1, 1), index, dtype=np.uint8), None)

    def sha256(self, index: int) -> str:
        return f"hash {index}"

    def fingerprint(self) -> str:
        return "all"


def test_each_picture_is_read_once_while_they_fit() -> None:
    inner = Counted([10, 10, 10])
    reader = kept(inner, limit_bytes=30)
    for _ in range(3):
        assert [int(reader[index].image[0, 0, 0]) for index in range(len(reader))] == [0, 1, 2]
    assert set(inner.read.values()) == {1}


def test_what_does_not_fit_is_read_again_and_still_right() -> None:
    inner = Counted([20, 20, 5])
    reader = kept(inner, limit_bytes=30)
    for _ in range(2):
        assert [int(reader[index].image[0, 0, 0]) for index in range(3)] == [0, 1, 2]
    assert inner.read == {0: 1, 1: 2, 2: 1}


def test_truths_count_too() -> None:
    class Masked(Counted):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return Sample(sample.id, sample.image, (np.zeros(100, dtype=np.uint8),))

    inner = Masked([1])
    reader = kept(inner, limit_bytes=50)
    assert reader[0].truth[0].shape == reader[0].truth[0].shape == (100,)
    assert inner.read[0] > 1


def test_it_says_what_the_other_reader_says() -> None:
    inner = Counted([1, 2])
    reader = kept(inner, limit_bytes=10)
    told: list[Any] = [reader.ids, reader.truths, reader.skipped, reader.notes, reader.sha256(1), reader.fingerprint()]
    assert told == [inner.ids, inner.truths, inner.skipped, inner.notes, "hash 1", "all"]
