"""A CSV file of numbers: a class and the same count of numbers a line, for networks that see no picture."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec
from edgecv.core.tensor import FloatArray
from edgecv.data.csvfile import class_index, csv_paths
from edgecv.data.files import even_pick, fingerprint_of, shown_skips
from edgecv.errors import DataError


@dataclass(frozen=True)
class _Row:
    """A line of the file: its number from 1, the class and `(D,)` float32 numbers."""

    line: int
    truth: int
    values: FloatArray


_Line = tuple[int, str, list[str]]
"""A line's number from 1, its class and its other cells."""


class VectorReader:
    """A `Reader` over rows of numbers: the "picture" of a sample is float32 `(D,)`. All rows are held in memory."""

    def __init__(self, name: str, rows: Sequence[_Row], *, skipped: Mapping[str, str]) -> None:
        self._rows = tuple(rows)
        self.skipped: Mapping[str, str] = dict(skipped)
        self.ids: Sequence[str] = tuple(f"{name}:{row.line}" for row in rows)
        self.truths: Sequence[int] = tuple(row.truth for row in rows)
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``; the numbers are the caller's own."""
        return Sample(self.ids[index], self._rows[index].values.copy(), self.truths[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def sha256(self, index: int) -> str:
        """Hash of the numbers as float32."""
        return hashlib.sha256(self._rows[index].values.tobytes()).hexdigest()

    def fingerprint(self) -> str:
        """Hash over the ids, classes and numbers of all samples."""
        return fingerprint_of(zip(self.ids, self.truths, map(self.sha256, range(len(self))), strict=True))


def open_vectors(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> VectorReader:
    """The rows of the CSV file that ``spec`` names; ``spec.limit`` takes an even pick over the classes.

    Where the first line has a column named ``spec.label_column`` (default: label), it is a header, that column holds
    the class and all others the numbers, in their order. Without such a header the class stands first in each line.
    A class is a name or an index from 0. A line that cannot be used is in the reader's ``skipped`` under file and
    line number, or refused with ``spec.strict``.

    Raises:
        DataError: the file is missing, is no UTF-8 CSV, or has no line that can be used.
    """
    path, _ = csv_paths(spec, base=base)
    by_name = {label: index for index, label in enumerate(labels)}
    rows: list[_Row] = []
    skipped: dict[str, str] = {}
    for line, label, cells in _lines(path, spec.label_column):
        found = _row((line, label, cells), by_name, rows, classes=len(labels))
        if isinstance(found, _Row):
            rows.append(found)
        else:
            skipped[f"{path.name}:{line}"] = found
    if skipped and spec.strict:
        raise DataError(f"{path}: {len(skipped)} lines cannot be used, and strict is set: {shown_skips(skipped)}")
    if not rows:
        hint = shown_skips(skipped) or "a line is a class and its numbers"
        raise DataError(f"{path} has no line that can be used. {hint}")
    kept = even_pick([row.truth for row in rows], spec.limit)
    return VectorReader(path.name, [rows[index] for index in kept], skipped=skipped)


def _row(given: _Line, by_name: dict[str, int], rows: Sequence[_Row], *, classes: int) -> _Row | str:
    """A line as a row like those before it, or why it cannot be used."""
    line, label, cells = given
    try:
        values = _numbers(cells, count=len(rows[0].values) if rows else None)
        return _Row(line, class_index(label, by_name, classes), values)
    except ValueError as error:
        return str(error)


def _lines(path: Path, label_column: str) -> Iterator[_Line]:
    """Line number, class and the other cells of each line; blank lines and a header do not count."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, strict=True)
            place: int | None = None
            for row in lines:
                cells = [cell.strip() for cell in row]
                if place is None:
                    place = cells.index(label_column) if label_column in cells else 0
                    if label_column in cells:
                        continue
                if any(cells):
                    yield lines.line_num, cells[place] if place < len(cells) else "", cells[:place] + cells[place + 1 :]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error}); save it as one") from error


def _numbers(cells: Sequence[str], *, count: int | None) -> FloatArray:
    """The cells as float32; ValueError says which is none, or that there are more or fewer than ``count``."""
    if not cells or (count is not None and len(cells) != count):
        raise ValueError(f"there are {len(cells)} numbers; {count or 'one or more'} are needed, as in the first line")
    values = []
    for number, cell in enumerate(cells, start=1):
        try:
            value = float(cell)
        except ValueError:
            raise ValueError(f"number {number} is {cell!r}; write it like 0.5 or -1e-3") from None
        if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
            raise ValueError(f"number {number} is {cell!r}; it must be finite")
        values.append(value)
    return np.array(values, dtype=np.float32)
