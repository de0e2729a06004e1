"""A CSV file with a header: one image file and its label a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from edgecv.core.recipe import DataSpec
from edgecv.data.files import Entry, Listing, inside, list_and_root
from edgecv.errors import DataError


def list_csv(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The rows of the CSV file that ``spec`` names, in order; blank lines do not count.

    A label is a class name, or else a class index from 0. An image's path is relative to
    ``spec.root`` (the CSV file's folder where that is not set) and must stay inside it. A row that
    cannot be used is skipped with its line number and the reason.

    Raises:
        DataError: the file or folder is missing, is no UTF-8 CSV, lacks a column or has no rows.
    """
    path, root = csv_paths(spec, base=base)
    by_name = {label: index for index, label in enumerate(labels)}
    entries: list[Entry] = []
    skipped: dict[str, str] = {}
    seen: dict[str, int] = {}
    for line, file, label in csv_rows(spec, path):
        try:
            name = inside(file, root)
            if name in seen:
                raise ValueError(f"{file!r} stands in line {seen[name]} already")
            truth = class_index(label, by_name, len(labels))
        except ValueError as error:
            skipped[f"{path.name}:{line}"] = str(error)
            continue
        seen[name] = line
        entries.append(Entry(name, root / name, truth))
    if not entries and not skipped:
        raise DataError(f"{path} has a header and no rows; a row names an image file and its label")
    return Listing(str(path), tuple(entries), skipped=skipped)


def csv_paths(spec: DataSpec, *, base: Path) -> tuple[Path, Path]:
    """The CSV file and the folder of its images.

    Raises:
        DataError: there is no path, no such file or no such folder.
    """
    return list_and_root(spec, base=base, what="CSV file", article="a")


def csv_rows(spec: DataSpec, path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number (from 1), file and label of every row.

    Raises:
        DataError: the file is no UTF-8 CSV or lacks a column.
    """
    needed = {spec.file_column: "file_column", spec.label_column: "label_column"}
    for line, cells in csv_cells(path, needed):
        yield line, cells[spec.file_column], cells[spec.label_column]


def csv_cells(path: Path, needed: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number (from 1) and cells by column of every row that is not blank; cells that are missing are empty.

    ``needed`` are the columns that must be there, each with the key of the recipe that names it, for errors.

    Raises:
        DataError: the file is no UTF-8 CSV or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(rows, [])]
            for name, key in needed.items():
                if header.count(name) != 1:
                    raise DataError(
                        f"{path}:1: {header.count(name)} columns are named {name!r} ({key}); one is needed. "
                        f"The file's columns are: {', '.join(header) or 'none'}"
                    )
            for row in rows:
                if any(cell.strip() for cell in row):
                    yield (
                        rows.line_num,
                        dict(zip_longest(header, (cell.strip() for cell in row[: len(header)]), fillvalue="")),
                    )
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error}); save it as one") from error


def class_index(label: str, by_name: dict[str, int], classes: int) -> int:
    """The class that ``label`` names, or whose number from 0 it is.

    Raises:
        ValueError: it is neither.
    """
    if not label:
        raise ValueError("the label is empty")
    if label in by_name:
        return by_name[label]
    if label.isascii() and label.isdigit() and int(label) < classes:
        return int(label)
    raise ValueError(f"label {label!r} is neither a class name nor an index within 0..{classes - 1}")
