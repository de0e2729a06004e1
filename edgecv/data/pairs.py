"""Pictures with a reference picture each: the same scene as it should come out, and maybe larger."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from edgecv.core.recipe import DataSpec
from edgecv.core.tensor import Array
from edgecv.data import imagefile
from edgecv.data.files import Entry, Listing, TruthFile
from edgecv.data.imagefile import EXTENSIONS
from edgecv.data.paired import list_paired, shown_size

_SCALE_ENDING = re.compile(r"[_-]?[xX]\d{1,2}$")


def list_pairs(spec: DataSpec, *, base: Path, labels: Sequence[str] = ()) -> Listing:
    """The pictures of ``spec.path`` (a folder or glob) with the reference pictures of ``spec.truth``.

    ``truth`` is a folder, where a picture's reference has its name (in the same folder below) and any known ending; or
    a path with ``{stem}``, which stands for the picture's name without its ending. In a folder, a scale at the end of a
    picture's name, such as the x2 of 0801x2.png, may be missing in the reference's. References that the glob finds
    among the pictures are left out. The size of each reference is checked when the set is opened: a whole number of
    times that of its picture, the same for all. ``labels`` do not matter.

    Raises:
        DataError: no pictures, no such folder, or pictures without a reference (they are named).
    """
    listing, found = list_paired(spec, base=base, what="reference", endings=sorted(EXTENSIONS), names=_names)
    scale = _first_scale([(entry.path, found[entry.id]) for entry in listing.entries])
    entries = (
        Entry(item.id, item.path, TruthFile(found[item.id], partial(read_reference, picture=item.path, scale=scale)))
        for item in listing.entries
    )
    return Listing(listing.place, tuple(entries))


def read_reference(data: bytes, *, picture: Path, scale: int | None = None) -> Array:
    """The reference of a file's bytes, uint8 `(H, W, 3)` BGR.

    Raises:
        ValueError: no picture, or not a whole number of times (``scale``, where given) as large as the ``picture``; the
            message is a reason in words.
    """
    reference = imagefile.decode(data)
    height, width = shown_size(imagefile.read_bytes(picture))
    have, want = f"{reference.shape[1]} x {reference.shape[0]}", f"{width} x {height}"
    found = _ratio(reference.shape[:2], (height, width))
    if found is None:
        raise ValueError(
            f"the reference has {have} pixels and its picture {picture.name} {want}; it must be the same whole number "
            "of times as high and as wide. Cut what is too much at the right and bottom."
        )
    if scale is not None and found != scale:
        raise ValueError(
            f"the reference has {have} pixels, {found} times as many each way as its picture {picture.name} ({want}); "
            f"others of the set are {scale} times as large"
        )
    return reference


def _first_scale(pairs: Sequence[tuple[Path, Path]]) -> int | None:
    """How much larger the first sound reference is than its picture."""
    for picture, reference in pairs:
        try:
            sizes = [shown_size(imagefile.read_bytes(path)) for path in (reference, picture)]
        except ValueError:
            continue  # named when the set is opened
        found = _ratio(sizes[0], sizes[1])
        if found is not None:
            return found
    return None


def _ratio(reference: Sequence[int], picture: tuple[int, int]) -> int | None:
    times, rest = divmod(reference[0], picture[0])
    return times if rest == 0 and times >= 1 and reference[1] == times * picture[1] else None


def _names(stem: str) -> Iterable[str]:
    """The picture's name, and that without a scale at its end."""
    return dict.fromkeys((stem, _SCALE_ENDING.sub("", stem)))
