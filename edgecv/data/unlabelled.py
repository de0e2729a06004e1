"""Pictures without labels: a folder, or a glob. Good to calibrate with; nothing can be judged on them."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
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
    if spec.path is None:
        raise DataError("data of kind images has no path; add path: a folder of pictures, or a glob")
    root, paths = _found(spec.path, base)
    named = [(path.relative_to(root).as_posix(), path) for path in paths]
    entries = [Entry(name, path, None) for name, path in named if spec.only is None or wanted_name(spec.only, name)]
    if not entries:
        only = "" if spec.only is None else f" that fits only: {spec.only!r}"
        known = ", ".join(sorted(EXTENSIONS))
        raise DataError(f"{base / spec.path}: {len(paths)} images and none{only}; allowed are files ending in {known}")
    return Listing(str(base / spec.path), tuple(entries))


def _found(pattern: str, base: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the image files."""
    place = Path(os.path.abspath(base / pattern))
    if place.is_dir():
        return place, image_paths(place)
    if not glob.has_magic(pattern):
        problem = "is a file" if place.exists() else "does not exist"
        raise DataError(f"{place} {problem}; path is {pattern!r}, relative to {base}; a folder or a glob is needed")
    parts = place.parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    hits = glob.glob(str(Path(*parts[fixed:])), root_dir=root, recursive=True)
    paths = sorted(root / hit for hit in hits if os.path.splitext(hit)[1].lower() in EXTENSIONS)
    return root, [path for path in paths if path.is_file()]
