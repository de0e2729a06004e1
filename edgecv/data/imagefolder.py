"""A folder with one folder a class: ``cat/001.jpg``, ``dog/002.jpg``."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from edgecv.core.recipe import DataSpec
from edgecv.data.files import SHOWN, Entry, Listing
from edgecv.data.imagefile import EXTENSIONS
from edgecv.errors import DataError


def list_folder(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """All image files below the class folders, sorted by class folder and path.

    Class folders are matched to ``labels`` by name, then by name without regard to case. Where no
    folder has the name of a label and there are as many folders as labels, they are matched in
    sorted order (folders named by number or WordNet id), which is noted. Hidden files, and files of
    other types, do not count. Links to files and to class folders are followed.

    Raises:
        DataError: the folder is missing, holds no images, or its classes do not fit the labels.
    """
    root = data_folder(spec, base=base)
    folders = class_folders(root)
    classes, notes = match_classes([folder.name for folder in folders], labels, place=str(root))
    entries = []
    for folder, truth in zip(folders, classes, strict=True):
        entries += [Entry(path.relative_to(root).as_posix(), path, truth) for path in image_paths(folder)]
    if not entries:
        raise DataError(f"{root} has {len(folders)} class folders and no image in them; {_known()}")
    return Listing(str(root), tuple(entries), notes=tuple(notes))


def data_folder(spec: DataSpec, *, base: Path) -> Path:
    """The folder that ``spec.path`` names, relative to ``base``.

    Raises:
        DataError: there is no path, or no such folder.
    """
    if spec.path is None:
        raise DataError("data of kind imagefolder has no path; add path: the folder that holds one folder a class")
    root = Path(os.path.abspath(base / spec.path))
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {problem}; path is {spec.path!r}, relative to {base}")
    return root


def class_folders(root: Path) -> list[Path]:
    """The class folders in ``root``, sorted by name; hidden ones do not count.

    Raises:
        DataError: there is none.
    """
    folders = sorted(
        (Path(item.path) for item in os.scandir(root) if item.is_dir() and not item.name.startswith(".")),
        key=lambda folder: folder.name,
    )
    if not folders:
        loose = sum(1 for item in os.scandir(root) if Path(item.name).suffix.lower() in EXTENSIONS)
        found = f"{loose} images lie directly in it" if loose else "it is empty of class folders"
        raise DataError(f"{root}: {found}; kind imagefolder needs one folder a class, with the images inside")
    return folders


def image_paths(folder: Path, extensions: Collection[str] = EXTENSIONS) -> list[Path]:
    """Image files, or those with other ``extensions``, below ``folder``, at any depth, sorted."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = (name for name in names if os.path.splitext(name)[1].lower() in extensions)
        found.extend(os.path.join(parent, name) for name in images if not name.startswith("."))
    return [Path(path) for path in sorted(found)]


def match_classes(folders: Sequence[str], labels: Sequence[str], *, place: str) -> tuple[list[int], list[str]]:
    """Class index of each folder name, and notes for the user; see `list_folder` for the rules.

    Raises:
        DataError: they do not fit; the message shows both sides.
    """
    exact = {label: index for index, label in enumerate(labels)}
    folded: dict[str, int | None] = {}
    for index, label in enumerate(labels):
        folded[label.casefold()] = None if label.casefold() in folded else index
    found = [exact.get(name, folded.get(name.casefold())) for name in folders]
    known = [index for index in found if index is not None]
    if not known and len(folders) == len(labels):
        note = f"folder names are not the labels; matched in sorted order: {folders[0]} = {labels[0]}"
        return list(range(len(folders))), [note]
    if len(known) < len(folders) or len(set(known)) < len(known):
        wrong = [name for name, index in zip(folders, found, strict=True) if index is None or found.count(index) > 1]
        free = [label for index, label in enumerate(labels) if index not in known]
        raise DataError(
            f"{place}: {len(wrong)} of {len(folders)} class folders do not fit the {len(labels)} labels. "
            f"Folders without a label: {_some(wrong)}. Labels without a folder: {_some(free)}. "
            "Rename the folders, or set family.labels to their names."
        )
    missing = len(labels) - len(known)
    return known, [f"{missing} of {len(labels)} labels have no folder"] if missing else []


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return (shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")) or "none"


def _known() -> str:
    return "allowed are files ending in " + ", ".join(sorted(EXTENSIONS))
