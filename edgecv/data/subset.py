"""Some samples of a data set, and which of its samples another set does not have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from edgecv.core.protocols import Reader, Sample
from edgecv.data.files import fingerprint_of
from edgecv.data.selection import truths_of


class SubsetReader:
    """A `Reader` over some samples of another one, in the order of ``indices``."""

    def __init__(self, reader: Reader, indices: Sequence[int]) -> None:
        self._reader = reader
        self._indices = tuple(indices)
        truths = truths_of(reader)
        self.ids: Sequence[str] = tuple(reader.ids[index] for index in indices)
        self.truths: Sequence[Any] = tuple(truths[index] for index in indices)
        self.skipped = reader.skipped
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index`` of the subset."""
        return self._reader[self._indices[index]]

    def sha256(self, index: int) -> str:
        """Hash of sample ``index`` of the subset."""
        return self._reader.sha256(self._indices[index])

    def fingerprint(self) -> str:
        """Hash over the ids, classes and contents of the subset."""
        return fingerprint_of(zip(self.ids, self.truths, map(self.sha256, range(len(self))), strict=True))


def hashes(reader: Reader) -> set[str]:
    """The hash of every sample."""
    return {reader.sha256(index) for index in range(len(reader))}


def spare(source: Reader, taken: Collection[str]) -> list[int]:
    """Indices of ``source`` whose contents are not among the hashes ``taken``; of copies, the first."""
    seen, rest = set(taken), []
    for index in range(len(source)):
        digest = source.sha256(index)
        if digest not in seen:
            seen.add(digest)
            rest.append(index)
    return rest
