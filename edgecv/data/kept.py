"""A data set whose samples stay in memory once they were read, up to a bound.

A build evaluates the same pictures for every engine. Decoding or drawing them takes longer than a small network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from edgecv.core.protocols import Sample
from edgecv.data.readers import LabelledReader

__all__ = ["KeptReader"]


class KeptReader:
    """A `Reader` that gives another one's samples and keeps them while they fit into ``limit_bytes``.

    Samples beyond the bound are read each time. Who takes a sample must not write into it.
    """

    def __init__(self, reader: LabelledReader, *, limit_bytes: int) -> None:
        self._reader, self._free = reader, limit_bytes
        self._kept: dict[int, Sample] = {}
        self.ids: Sequence[str] = reader.ids
        self.truths: Sequence[Any] = reader.truths
        self.skipped: Mapping[str, str] = reader.skipped
        self.notes = reader.notes

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``, 0 to ``len - 1``.

        Raises:
            DataError: the picture cannot be read.
        """
        found = self._kept.get(index)
        if found is None:
            found = self._reader[index]
            size = _bytes(found.image) + _bytes(found.truth)
            if size <= self._free:
                self._free -= size
                self._kept[index] = found
        return found

    def sha256(self, index: int) -> str:
        """Hash of the picture of sample ``index``."""
        return self._reader.sha256(index)

    def fingerprint(self) -> str:
        """Hash over the pictures and truths."""
        return self._reader.fingerprint()


def _bytes(value: Any) -> int:
    """Bytes of an array, or of the arrays that a truth holds."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if is_dataclass(value) and not isinstance(value, type):
        return sum(_bytes(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, (tuple, list)):
        return sum(_bytes(item) for item in value)
    return 0
