"""Pictures with a mask each: a picture of class indices, one for every pixel."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecv.core.recipe import DataSpec
from edgecv.data import imagefile
from edgecv.data.files import SHOWN, Listing, TruthFile
from edgecv.data.imageheader import PNG_START, image_size
from edgecv.data.paired import list_paired, shown_size
from edgecv.families.segmentation_map import NO_CLASS, MaskTruth

IGNORE_INDEX = 255
"""The value of pixels that are not judged, where a recipe names none."""
MASK_EXTENSIONS = (".png", ".bmp", ".tif", ".tiff")
_DEPTH_STEP = {1: 255, 2: 85, 4: 17}


def list_masks(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The pictures of ``spec.path`` (a folder or glob) with the masks of ``spec.truth``.

    ``truth`` is a folder, where a picture's mask has its name (and lies in the same folder below) and ends with
    one of `MASK_EXTENSIONS`; or a path with ``{stem}``, which stands for the picture's name without its ending.
    Masks that the glob finds among the pictures are left out. What is in a mask is checked when the set is
    opened: its size, and that its values are classes of ``labels`` or ``spec.ignore_index``.

    Raises:
        DataError: no pictures, no such folder, or pictures without a mask (they are named).
    """
    pictures, masks = list_paired(spec, base=base, what="mask", endings=MASK_EXTENSIONS)
    ignored = IGNORE_INDEX if spec.ignore_index is None else spec.ignore_index
    entries = (
        replace(item, truth=_truth(masks[item.id], item.path, len(labels), ignored)) for item in pictures.entries
    )
    return replace(pictures, entries=tuple(entries))


def _truth(mask: Path, picture: Path, classes: int, ignored: int) -> TruthFile:
    return TruthFile(mask, partial(read_mask, picture=picture, classes=classes, ignored=ignored))


def read_mask(data: bytes, *, picture: Path, classes: int, ignored: int) -> MaskTruth:
    """The mask of a file's bytes; pixels of value ``ignored`` become `NO_CLASS`.

    Raises:
        ValueError: no picture of class indices, of another size than the ``picture``, or with values that are neither
            0..``classes`` - 1 nor ``ignored``; the message is a reason in words.
    """
    values = mask_values(data)
    shape = shown_size(imagefile.read_bytes(picture))
    if values.shape != shape:
        have, wanted = f"{values.shape[1]} x {values.shape[0]}", f"{shape[1]} x {shape[0]}"
        raise ValueError(f"the mask has {have} pixels and its picture {picture.name} {wanted}; they must be the same")
    found = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    strange = [int(value) for value in found if value >= classes and value != ignored]
    if strange:
        shown = ", ".join(str(value) for value in strange[:SHOWN]) + (" and more" if len(strange) > SHOWN else "")
        raise ValueError(
            f"the mask holds {shown}; allowed are the classes 0..{classes - 1} and {ignored}, which is not judged. Set "
            "ignore_index to the value of unlabelled pixels, or give a label for each class."
        )
    if classes == 2 and ignored == IGNORE_INDEX and list(found) == [0, IGNORE_INDEX]:
        raise ValueError("the mask holds only 0 and 255, and 255 is not judged; write 1 for the second class")
    judged = np.where(values == ignored, np.uint8(NO_CLASS), values)
    return MaskTruth(judged)


def mask_values(data: bytes) -> npt.NDArray[np.uint8]:
    """The stored values of a mask file `(H, W)` uint8: palette indices, gray values, or a colour of equal channels.

    Raises:
        ValueError: broken, JPEG (which changes values), in colour, or with values above 255.
    """
    import cv2

    height, width = image_size(data)
    if height * width > imagefile.MAX_PIXELS:
        raise ValueError(f"the mask has {width} x {height} pixels; allowed are {imagefile.MAX_PIXELS} in all")
    if data.startswith(b"\xff\xd8"):
        raise ValueError("the mask is a JPEG, which changes the values of pixels; write it as PNG")
    if data.startswith(b"BM") and (indices := _bmp_indices(data, height, width)) is not None:
        return indices
    step = 1
    if data.startswith(PNG_START):
        data, step = _gray_png(data)
    decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError("the mask cannot be decoded; the file is damaged or of a kind that OpenCV does not read")
    if decoded.ndim == 3:
        if not (decoded[:, :, :1] == decoded[:, :, :3]).all():
            raise ValueError("the mask is in colour; write class indices (gray, or a palette with the index as value)")
        decoded = decoded[:, :, 0]
    if not np.issubdtype(decoded.dtype, np.integer) or int(decoded.max(initial=0)) > 255:
        raise ValueError(f"the mask has {decoded.dtype} values up to {decoded.max()}; allowed are whole numbers to 255")
    values: npt.NDArray[np.uint8] = (decoded // step).astype(np.uint8)
    return values


def _gray_png(data: bytes) -> tuple[bytes, int]:
    """A PNG of palette indices as one of gray values, and by how much values of few bits are spread apart.

    Decoders replace indices by colours; without the palette, and marked gray, the indices themselves come out.
    """
    depth, kind = data[24], data[25]
    if kind not in (0, 3):
        return data, 1
    kept = [PNG_START]
    position = len(PNG_START)
    while position < len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        if name == b"IHDR":
            body = body[:9] + b"\0" + body[10:]
        if name in (b"IHDR", b"IDAT", b"IEND"):
            kept.append(struct.pack(">I4s", length, name) + body + struct.pack(">I", zlib.crc32(name + body)))
        position += 12 + length
        if name == b"IEND":
            break
    return b"".join(kept), _DEPTH_STEP.get(depth, 1)


def _bmp_indices(data: bytes, height: int, width: int) -> npt.NDArray[np.uint8] | None:
    """The palette indices of an uncompressed 8-bit BMP; None for other BMPs."""
    try:
        start, header = struct.unpack_from("<II", data, 10)
        if header < 40:
            return None
        signed, _, bits, packing = struct.unpack_from("<iHHI", data, 22)
    except struct.error:
        raise ValueError("the file is cut short") from None
    if bits != 8 or packing != 0:
        return None
    stride = (width + 3) // 4 * 4
    if start + stride * height > len(data):
        raise ValueError("the file is cut short")
    rows = np.frombuffer(data, dtype=np.uint8, count=stride * height, offset=start).reshape(height, stride)
    values: npt.NDArray[np.uint8] = rows[:: -1 if signed > 0 else 1, :width].copy()
    return values
