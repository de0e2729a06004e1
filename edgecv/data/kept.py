"""A data set whose samples stay in memory once they were read, up to a bound.

A build evaluates the same pictures for every engine. Decoding or drawing them takes longer than a small network.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from edgecv.core.protocols import Sample
from edgecv.data.derived import DerivedReader
from edgecv.data.readers import LabelledReader

__all__ = ["kept"]


def kept(reader: LabelledReader, *, limit_bytes: int) -> LabelledReader:
    """``reader``, whose samples are kept while they fit into ``limit_bytes``; those beyond are read each time.

    Who takes a sample must not write into it.
    """
    return DerivedReader(reader, _Memory(reader, limit_bytes).sample)


class _Memory:
    def __init__(self, reader: LabelledReader, limit_bytes: int) -> None:
        self._reader, self._free = reader, limit_bytes
        self._kept: dict[int, Sample] = {}

    def sample(self, index: int) -> Sample:
        found = self._kept.get(index)
        if found is None:
            found = self._reader[index]
            size = _bytes(found.image) + _bytes(found.truth)
            if size <= self._free:
                self._free -= size
                self._kept[index] = found
        return found


def _bytes(value: Any) -> int:
    """Bytes of an array, or of the arrays that a truth holds."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if is_dataclass(value) and not isinstance(value, type):
        return sum(_bytes(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, (tuple, list)):
        return sum(_bytes(item) for item in value)
    return 0
