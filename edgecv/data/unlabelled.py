"""Pictures without labels: a folder, or a glob. Good to calibrate with; nothing can be judged on them."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from edgecv.core.recipe import DataSpec
from edgecv.data.files import Entry, Listing, wanted_name
from edgecv.data.imagefile import EXTENSIONS
from edgecv.data.imagefolder import image_paths
from edgecv.errors import DataError


def list_images(spec: DataSpec, *, base: Path, labels: Sequence[str] = ()) -> Listing:
    """All image files below the folder ``spec.path``, or those that fit the glob ``spec.path``, sorted by path.

    In a glob ``**`` stands for any number of folders. Names of samples are relative to the folder (the part
    of a glob before its first wildcard); ``spec.only`` picks by them. Truths are None; ``labels`` do not matter.

    Raises:
        DataError: there is no path, no such folder, or no image.
    """
    return list_kind(spec, base=base, what="images", extensions=EXTENSIONS)


def list_kind(spec: DataSpec, *, base: Path, what: str, extensions: Collection[str], single: bool = False) -> Listing:
    """As `list_images`, of files with other ``extensions``, ``what`` they are; ``single``: the path may be one file."""
    if spec.path is None:
        one = f"one of the {what}, " if single else ""
        raise DataError(f"data of kind {spec.kind} has no path; add path: {one}a folder of {what}, or a glob")
    root, paths = _found(spec.path, base, extensions, single=single)
    named = [(path.relative_to(root).as_posix(), path) for path in paths]
    entries = [Entry(name, path, None) for name, path in named if spec.only is None or wanted_name(spec.only, name)]
    if not entries:
        only = "" if spec.only is None else f" that fits only: {spec.only!r}"
        known = ", ".join(sorted(extensions))
        raise DataError(f"{base / spec.path}: {len(paths)} {what} and none{only}; allowed are files ending in {known}")
    return Listing(str(base / spec.path), tuple(entries))


def _found(pattern: str, base: Path, extensions: Collection[str], *, single: bool) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files."""
    place = Path(os.path.abspath(base / pattern))
    if place.is_dir():
        return place, image_paths(place, extensions)
    if single and place.is_file():
        return place.parent, [place] if place.suffix.lower() in extensions else []
    if not glob.has_magic(pattern):
        problem = "is a file" if place.exists() else "does not exist"
        raise DataError(f"{place} {problem}; path is {pattern!r}, relative to {base}; a folder or a glob is needed")
    parts = place.parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    hits = glob.glob(str(Path(*parts[fixed:])), root_dir=root, recursive=True)
    paths = sorted(root / hit for hit in hits if os.path.splitext(hit)[1].lower() in extensions)
    return root, [path for path in paths if path.is_file()]
