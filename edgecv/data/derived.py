"""A data set made of another one: the same samples in the same order, each passed through a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgecv.core.protocols import Sample
from edgecv.data.readers import LabelledReader

__all__ = ["DerivedReader"]


class DerivedReader:
    """A `Reader` whose sample ``index`` is ``sample(index)``; names and hashes are ``reader``'s.

    So are truths and notes where none are given.
    """

    def __init__(
        self,
        reader: LabelledReader,
        sample: Callable[[int], Sample],
        *,
        truths: Sequence[Any] | None = None,
        notes: tuple[str, ...] | None = None,
    ) -> None:
        self._reader, self._sample = reader, sample
        self.ids: Sequence[str] = reader.ids
        self.truths: Sequence[Any] = reader.truths if truths is None else truths
        self.skipped: Mapping[str, str] = reader.skipped
        self.notes = reader.notes if notes is None else notes

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``, 0 to ``len - 1``.

        Raises:
            DataError: the picture cannot be read or used.
        """
        return self._sample(index)

    def sha256(self, index: int) -> str:
        """Hash of the picture that sample ``index`` was made of."""
        return self._reader.sha256(index)

    def fingerprint(self) -> str:
        """Hash over the pictures and truths that the samples were made of."""
        return self._reader.fingerprint()
