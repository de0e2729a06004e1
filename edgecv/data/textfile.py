"""A CSV file with a header: one image file and the text in it a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgecv.core.recipe import DataSpec
from edgecv.data.csvfile import csv_paths, csv_rows
from edgecv.data.files import SHOWN, Entry, Listing, inside, wanted_name
from edgecv.errors import DataError
from edgecv.families.text import SPACE

TEXT_COLUMN = "text"
_USUAL_COLUMN = DataSpec.label_column


def list_text(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The rows of the CSV file that ``spec`` names, in order, each with its text; blank lines do not count.

    The text stands in the column `TEXT_COLUMN`, or in ``spec.label_column`` where that is set. Every letter of it
    must be one of ``labels`` (no labels: all are allowed); spaces at the ends do not count. An image's path is
    relative to ``spec.root`` (the CSV file's folder where that is not set) and must stay inside it; ``spec.only``
    picks files by name. A row whose file or text is missing or named twice is skipped with its line number and the
    reason.

    Raises:
        DataError: the file or folder is missing, is no UTF-8 CSV, lacks a column, has no rows, or texts have
            letters that are no labels (all are named, the first with their lines).
    """
    path, root = csv_paths(spec, base=base)
    if spec.label_column == _USUAL_COLUMN:
        spec = replace(spec, label_column=TEXT_COLUMN)
    known = {" " if label == SPACE else label for label in labels}
    entries: list[Entry] = []
    skipped: dict[str, str] = {}
    seen: dict[str, int] = {}
    strange: dict[str, list[str]] = {}
    for line, file, text in csv_rows(spec, path):
        place = f"{path.name}:{line}"
        if spec.only is not None and not wanted_name(spec.only, file):
            continue
        try:
            name = inside(file, root)
            if name in seen:
                raise ValueError(f"{file!r} stands in line {seen[name]} already")
            if not text:
                raise ValueError("the text is empty")
        except ValueError as error:
            skipped[place] = str(error)
            continue
        for letter in dict.fromkeys(text):
            if known and letter not in known:
                strange.setdefault(letter, []).append(place)
        seen[name] = line
        entries.append(Entry(name, root / name, text))
    if strange:
        raise DataError(f"{path}: {_named(strange)}. Add these letters to family.labels, or take the rows out")
    if not entries and not skipped:
        which = f"no file that fits only: {spec.only!r}" if spec.only is not None else "no rows"
        raise DataError(f"{path} has a header and {which}; a row names an image file and the text in it")
    return Listing(str(path), tuple(entries), skipped=skipped)


def _named(strange: dict[str, list[str]]) -> str:
    """Each letter that is no label, with the lines that have it."""
    words = []
    for letter, places in strange.items():
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        shown = f"a space (label {SPACE})" if letter == " " else repr(letter)
        words.append(f"{shown} (U+{ord(letter):04X}) is no label: {', '.join(places[:SHOWN])}{more}")
    return "; ".join(words)
