"""Pictures for inspection: a folder ``good`` and one for each kind of defect, masks beside them (as MVTec AD)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.data import imagefile
from edgecv.data.files import SHOWN, Entry, Listing, TruthFile, wanted_name
from edgecv.data.imagefolder import image_paths
from edgecv.data.masks import MASK_EXTENSIONS, mask_values
from edgecv.data.paired import shown_size
from edgecv.errors import DataError
from edgecv.families.anomaly_map import AnomalyTruth

GOOD = "good"
MASK_ENDING = "_mask"


def list_anomaly(spec: DataSpec, *, base: Path, labels: Sequence[str] = ()) -> Listing:
    """The pictures below ``spec.path``: those in its folder ``good``, and those in a folder for each kind of defect.

    ``spec.truth``, where given, is a folder with one folder of masks for each kind of defect: a picture's mask has
    its name, or its name and "_mask", and ends with one of `MASK_EXTENSIONS`. Defects whose folder is not there are
    judged by whole pictures only, which is noted. ``spec.only`` picks pictures by their name below ``spec.path``.
    Masks are checked when the set is opened: their size, and that a pixel of each is not 0. ``labels`` do not matter.

    Raises:
        DataError: no such folder, no good picture, or pictures without a mask beside others that have one.
    """
    root = _folder(spec.path, base, "path")
    masks = None if spec.truth is None else _folder(spec.truth, base, "truth")
    folders = sorted((Path(item.path) for item in os.scandir(root) if item.is_dir()), key=lambda place: place.name)
    folders = [folder for folder in folders if not folder.name.startswith(".")]
    if not any(folder.name == GOOD for folder in folders):
        found = ", ".join(folder.name for folder in folders[:SHOWN]) or "no folders"
        raise DataError(
            f"{root} has no folder {GOOD!r} (it has {found}); kind anomaly needs {GOOD} with pictures without a "
            "defect, and one folder for each kind of defect"
        )
    entries: list[Entry] = []
    bare: list[str] = []
    for folder in folders:
        mine = [Entry(path.relative_to(root).as_posix(), path, AnomalyTruth(False)) for path in image_paths(folder)]
        mine = [entry for entry in mine if spec.only is None or wanted_name(spec.only, entry.id)]
        if folder.name != GOOD:
            place = None if masks is None else masks / folder.name
            bare += [folder.name] if mine and (place is None or not place.is_dir()) else []
            mine = [_defective(entry, folder, place) for entry in mine]
        entries += mine
    if not any(entry.truth == AnomalyTruth(False) for entry in entries):
        only = "" if spec.only is None else f" that fits only: {spec.only!r}"
        raise DataError(f"{root / GOOD} has no picture{only}; good pictures are needed to learn from and to judge by")
    notes = (f"no masks for {', '.join(bare)}: judged by whole pictures only",) if bare else ()
    return Listing(str(root), tuple(entries), notes=notes)


def read_defect(data: bytes, *, picture: Path) -> AnomalyTruth:
    """The defect of a mask file's bytes: the pixels that are not 0.

    Raises:
        ValueError: no mask, of another size than the ``picture``, or all 0; the message is a reason in words.
    """
    values = mask_values(data)
    shape = shown_size(imagefile.read_bytes(picture))
    if values.shape != shape:
        have, wanted = f"{values.shape[1]} x {values.shape[0]}", f"{shape[1]} x {shape[0]}"
        raise ValueError(f"the mask has {have} pixels and its picture {picture.name} {wanted}; they must be the same")
    if not values.any():
        raise ValueError(f"the mask is all 0, so {picture.name} would show no defect; move it to {GOOD}, or draw it")
    return AnomalyTruth(True, (values > 0).astype(np.uint8))


def _folder(given: str | None, base: Path, key: str) -> Path:
    if given is None:
        raise DataError(f"data of kind anomaly has no {key}; add {key}: the folder that holds {GOOD} and the defects")
    place = Path(os.path.abspath(base / given))
    if not place.is_dir():
        problem = "is a file, not a folder" if place.exists() else "does not exist"
        raise DataError(f"{place} {problem}; {key} is {given!r}, relative to {base}")
    return place


def _defective(entry: Entry, folder: Path, masks: Path | None) -> Entry:
    """The picture with its mask, or without one where its kind of defect has none."""
    if masks is None or not masks.is_dir():
        return Entry(entry.id, entry.path, AnomalyTruth(True))
    stem = os.path.splitext(entry.path.relative_to(folder).as_posix())[0]
    named = [masks / (stem + extra + ending) for extra in (MASK_ENDING, "") for ending in MASK_EXTENSIONS]
    there = [path for path in named if path.is_file()]
    if len(there) != 1:
        shown = f"two masks, {there[0]} and {there[1]}; remove one" if there else f"no mask in {masks}"
        raise DataError(
            f"{entry.path} has {shown}. A mask has the picture's name, or that and {MASK_ENDING}, and ends with one of "
            f"{', '.join(MASK_EXTENSIONS)}; without the folder {masks.name} this defect is judged by whole pictures."
        )
    return Entry(entry.id, entry.path, TruthFile(there[0], partial(read_defect, picture=entry.path)))
