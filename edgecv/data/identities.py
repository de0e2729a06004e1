"""Pictures of identities (persons, faces, products), to be found again: folders, or a CSV file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.core.recipe import DataSpec
from edgecv.data.csvfile import csv_cells, csv_paths
from edgecv.data.files import Entry, Listing, inside
from edgecv.data.imagefolder import class_folders, data_folder, image_paths
from edgecv.errors import DataError
from edgecv.families.retrieval import ROLES, IdentityTruth, Role

_PARTS: tuple[Role, ...] = ("query", "gallery")
_ROLE, _CAMERA = "role", "camera"


@dataclass(frozen=True)
class _Shown:
    """A picture before it is opened: its name in the data set, where it is, whom it shows, and in which role."""

    id: str
    path: Path
    name: str
    role: Role
    camera: str


def list_identities(spec: DataSpec, *, base: Path) -> Listing:
    """The pictures of a data set of kind ``identities`` or ``identities-csv``.

    ``identities``: a folder with one folder an identity; each picture is then searched for among all others. Where
    there are two folders named query and gallery, those have the folders of the identities, and queries are searched
    for in the gallery. ``identities-csv``: a row names a file (``spec.file_column``) and its identity
    (``spec.label_column``), and may have the columns role (query, gallery or both) and camera. Identities are numbered
    from 0 in the order of their names. A row that cannot be used is skipped with its line number and the reason.

    Raises:
        DataError: the file or folder is missing or empty, is no UTF-8 CSV or lacks a column.
    """
    skipped: dict[str, str] = {}
    place, shown = _shown(spec, base, skipped)
    if not shown and not skipped:
        raise DataError(f"{place} names no picture; a data set of kind {spec.kind} has two or more of each identity")
    names = sorted({item.name for item in shown})
    numbers = {name: number for number, name in enumerate(names)}
    entries = tuple(Entry(item.id, item.path, _truth(item, numbers)) for item in shown)
    return Listing(place, entries, skipped=skipped)


def identity_names(spec: DataSpec, *, base: Path) -> Mapping[str, str]:
    """Whom each sample of the data set shows, by its id.

    Raises:
        DataError: as `list_identities`, or the data set is of another kind.
    """
    if spec.kind not in ("identities", "identities-csv"):
        raise DataError(f"data of kind {spec.kind} names no identities; allowed are identities and identities-csv")
    return {item.id: item.name for item in _shown(spec, base, {})[1]}


def _truth(item: _Shown, numbers: Mapping[str, int]) -> Any:
    """A plain number where nothing else is known, so that classes can be counted."""
    number = numbers[item.name]
    return number if item.role == "both" and not item.camera else IdentityTruth(number, item.role, item.camera)


def _shown(spec: DataSpec, base: Path, skipped: dict[str, str]) -> tuple[str, list[_Shown]]:
    """Where the data set is, and its pictures in order; rows that cannot be used go to ``skipped``."""
    if spec.kind == "identities-csv":
        path, root = csv_paths(spec, base=base)
        return str(path), list(_of_rows(spec, path, root, skipped))
    folder = data_folder(spec, base=base)
    parts = [part for part in _PARTS if (folder / part).is_dir()]
    if len(parts) == 1:
        other = next(part for part in _PARTS if part not in parts)
        raise DataError(f"{folder} has a folder {parts[0]} and none named {other}; a search needs both, or neither")
    if not parts:
        return str(folder), list(_of_folders(folder, folder, "both"))
    return str(folder), [item for part in parts for item in _of_folders(folder / part, folder, part)]


def _of_folders(parent: Path, root: Path, role: Role) -> Iterator[_Shown]:
    for folder in class_folders(parent):
        for path in image_paths(folder):
            yield _Shown(path.relative_to(root).as_posix(), path, folder.name, role, "")


def _of_rows(spec: DataSpec, path: Path, root: Path, skipped: dict[str, str]) -> Iterator[_Shown]:
    seen: dict[str, int] = {}
    for line, cells in csv_cells(path, {spec.file_column: "file_column", spec.label_column: "label_column"}):
        found = _of_row(cells, spec, root, seen)
        if isinstance(found, str):
            skipped[f"{path.name}:{line}"] = found
        else:
            seen[found.id] = line
            yield found


def _of_row(cells: Mapping[str, str], spec: DataSpec, root: Path, seen: Mapping[str, int]) -> _Shown | str:
    """What a row says, or why it cannot be used."""
    file, name, role = cells[spec.file_column], cells[spec.label_column], cells.get(_ROLE, "") or "both"
    try:
        id_ = inside(file, root)
    except ValueError as error:
        return str(error)
    if id_ in seen:
        return f"{file!r} stands in line {seen[id_]} already"
    if not name:
        return "the identity is empty"
    known = next((item for item in ROLES if item == role), None)
    if known is None:
        return f"role is {role!r}; allowed are {', '.join(ROLES)}"
    return _Shown(id_, Path(os.path.join(root, id_)), name, known, cells.get(_CAMERA, ""))
