"""Pictures with a depth map each: a 16-bit PNG of distances."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.data import imagefile
from edgecv.data.files import Entry, Listing, TruthFile
from edgecv.data.paired import list_paired, shown_size
from edgecv.families.depth_map import DepthTruth

ENDINGS = (".png", ".tif", ".tiff")
DEFAULT_UNIT = "mm"


def list_depth(spec: DataSpec, *, base: Path, labels: Sequence[str] = ()) -> Listing:
    """The pictures of ``spec.path`` (a folder or glob) with the depth maps of ``spec.truth`` (see `list_paired`).

    ``spec.depth_unit`` tells what the values are (see `read_depth`); ``labels`` do not matter. Size and values of each
    map are checked when the set is opened.

    Raises:
        DataError: no pictures, no such folder, or pictures without a depth map (they are named).
    """
    listing, found = list_paired(spec, base=base, what="depth map", endings=ENDINGS)
    unit = spec.depth_unit or DEFAULT_UNIT
    entries = (
        Entry(item.id, item.path, TruthFile(found[item.id], partial(read_depth, picture=item.path, unit=unit)))
        for item in listing.entries
    )
    return Listing(listing.place, tuple(entries))


def read_depth(data: bytes, *, picture: Path, unit: str) -> DepthTruth:
    """The depth map of a file's bytes, 0 where it is not known.

    ``unit`` is what one step of the 16-bit values means: ``mm`` a millimetre, ``kitti`` 1/256 m, ``sun-rgbd`` a
    millimetre with the bits turned left by three (S. Song et al., SUN RGB-D, CVPR 2015).

    Raises:
        ValueError: no single-channel 16-bit picture, of another size than the ``picture``, or nowhere known; the
            message is a reason in words.
    """
    import cv2

    found = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if found is None:
        raise ValueError("the depth map cannot be decoded; the file is damaged or of a kind that OpenCV does not read")
    if found.dtype != np.uint16 or found.ndim != 2:
        raise ValueError(f"the depth map is {found.dtype} of shape {found.shape}; one channel of 16 bits is needed")
    shape = shown_size(imagefile.read_bytes(picture))
    if found.shape != shape:
        have, wanted = f"{found.shape[1]} x {found.shape[0]}", f"{shape[1]} x {shape[0]}"
        raise ValueError(f"the depth map has {have} pixels and its picture {picture.name} {wanted}; align them first")
    if not found.any():
        raise ValueError("the depth map is 0 everywhere, so no distance is known; leave the picture out by only")
    if unit == "sun-rgbd":
        found = (found >> 3) | (found << 13)
    metres = found.astype(np.float32) / np.float32(256.0 if unit == "kitti" else 1000.0)
    return DepthTruth(metres)
