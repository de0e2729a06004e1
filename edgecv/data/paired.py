"""Pictures whose truth is a file of the same name: which file belongs to which picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edgecv.core.recipe import DataSpec
from edgecv.data import imagefile
from edgecv.data.files import SHOWN, Entry, Listing
from edgecv.data.imageheader import image_size
from edgecv.data.unlabelled import list_images
from edgecv.errors import DataError

STEM = "{stem}"


def list_paired(
    spec: DataSpec,
    *,
    base: Path,
    what: str,
    endings: Sequence[str],
    names: Callable[[str], Iterable[str]] = lambda stem: (stem,),
) -> tuple[Listing, dict[str, Path]]:
    """The pictures of ``spec.path`` (a folder or glob), and by sample id the file of ``spec.truth`` for each.

    ``truth`` is a folder, where a picture's truth (``what`` it is, for errors) has one of the ``names`` that the
    picture's name without its ending gives, in the same folder below, and one of ``endings``; or a path with
    ``{stem}``, which stands for the picture's name without its ending. Truths that the glob finds among the pictures
    are left out of those.

    Raises:
        DataError: no pictures, no such folder, pictures without a truth (they are named) or with two, or all
            of the pictures are truths.
    """
    if spec.truth is None:
        raise DataError(
            f"data of kind {spec.kind} has no truth; add truth: the folder of the {what}s, or a path with {STEM}"
        )
    pictures = list_images(spec, base=base)
    place = Path(os.path.abspath(base / spec.truth))
    if STEM in spec.truth:
        found = _by_pattern(place, pictures.entries)
    else:
        found = _by_folder(place, pictures.entries, what, endings, names)
    taken = {str(path) for path in found.values()}
    entries = tuple(entry for entry in pictures.entries if str(entry.path) not in taken)
    if not entries:
        raise DataError(
            f"{place}: all {len(pictures.entries)} pictures of {pictures.place} are {what}s themselves; truth must be "
            f"another folder, or a pattern with {STEM} that names other files"
        )
    without = [entry.id for entry in entries if entry.id not in found]
    if without:
        more = f" and {len(without) - SHOWN} more" if len(without) > SHOWN else ""
        raise DataError(
            f"{place}: {len(without)} of {len(entries)} pictures have no {what}: {', '.join(without[:SHOWN])}{more}. A "
            f"{what} has the picture's name and ends with one of {', '.join(endings)}; pick the pictures that have one "
            f"by only, or name a pattern with {STEM} in truth."
        )
    return Listing(pictures.place, entries), found


def shown_size(data: bytes) -> tuple[int, int]:
    """Height and width of a picture as it is decoded: an EXIF orientation may turn it.

    Raises:
        ValueError: no picture.
    """
    if b"Exif\0\0" not in data[:65536]:
        return image_size(data)
    decoded = imagefile.decode(data)
    return decoded.shape[0], decoded.shape[1]


def _by_pattern(pattern: Path, entries: Sequence[Entry]) -> dict[str, Path]:
    """The file that the pattern names for each picture, where it exists."""
    named = {entry.id: Path(str(pattern).replace(STEM, os.path.splitext(entry.id)[0])) for entry in entries}
    return {name: path for name, path in named.items() if path.is_file()}


def _by_folder(
    folder: Path, entries: Sequence[Entry], what: str, endings: Sequence[str], names: Callable[[str], Iterable[str]]
) -> dict[str, Path]:
    """The file for each picture below ``folder``, where there is one.

    Raises:
        DataError: there is no such folder, or a picture has two.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {problem}; truth is the folder of the {what}s, or a path with {STEM}")
    found: dict[str, Path] = {}
    for entry in entries:
        for name in names(os.path.splitext(entry.id)[0]):
            there = [path for ending in endings if (path := folder / (name + ending)).is_file()]
            if len(there) > 1:
                raise DataError(f"{entry.id} has two {what}s, {there[0]} and {there[1]}; remove one")
            if there:
                found[entry.id] = there[0]
                break
    return found
