"""An image file as a data set holds it: what is wrong with it, and its pixels.

What is found before a file is used: an empty file, a file that is no image of a known format, a
file that is cut short (JPEG without its end marker, PNG with a missing or damaged chunk, any format
whose decoder gives up) and an image that is too large. Damage inside the compressed pixels of a
JPEG cannot be told from pixels and passes.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import numpy as np

from edgecv.core.tensor import Array
from edgecv.data.imageheader import PNG_START, image_size
from edgecv.errors import DataError

MAX_PIXELS = 178_956_970
"""Largest picture that is decoded (0.5 GB of colour pixels); a bigger one is taken for a decompression bomb."""
MAX_FILE_BYTES = 1 << 30
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})

T = TypeVar("T")

# The complaints of libjpeg and libpng; TIFF goes through OpenCV's own log, which is turned off.
_COMPLAINT = re.compile(
    rb"Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|Inconsistent progression|"
    rb"unknown JFIF revision|Unknown Adobe color|libpng (warning|error)"
)
_stderr_lock = threading.RLock()


def _for_decoder(data: bytes) -> bytes:
    """The file without PNG chunks that hold no pixels: libpng complains to the terminal about many of them."""
    if not data.startswith(PNG_START):
        return data
    kept = [PNG_START]
    position = len(PNG_START)
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):
            kept.append(data[position:end])
        position = end
        if kind == b"IEND":
            break
    return b"".join(kept)


@lru_cache(maxsize=1)
def _silence_opencv() -> None:
    """Once for the process: a level that is set and put back for each file is a race between threads."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(data: bytes, *, probe: bool = False) -> Array:
    """Pixels of an image file: uint8 `(H, W, 3)` in BGR order.

    Gray becomes three equal channels, 16 bit becomes 8, transparency is dropped. The EXIF orientation
    is applied, so that the picture stands as a viewer shows it. ``probe`` gives a smaller picture
    sooner, to find out whether the file can be decoded.

    Raises:
        ValueError: the file is broken or too large; the message is a reason in words.
    """
    import cv2

    height, width = image_size(data)
    if height < 1 or width < 1:
        raise ValueError(f"the image has {width} x {height} pixels")
    if height * width > MAX_PIXELS:
        raise ValueError(f"the image has {width} x {height} pixels; allowed are {MAX_PIXELS} in all")
    flag = cv2.IMREAD_REDUCED_COLOR_8 if probe and min(height, width) >= 64 else cv2.IMREAD_COLOR
    _silence_opencv()
    try:
        image: Array | None = cv2.imdecode(np.frombuffer(_for_decoder(data), dtype=np.uint8), flag)
    except cv2.error as error:
        raise ValueError(f"the image cannot be decoded ({error.err})") from error
    if image is None:
        raise ValueError("the image cannot be decoded; the file is damaged or cut short")
    return image


def read_bytes(path: os.PathLike[str] | str) -> bytes:
    """The whole file.

    Raises:
        ValueError: it cannot be read, or is larger than 1 GiB; the message is a reason in words.
    """
    try:
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size > MAX_FILE_BYTES:
                raise ValueError(f"the file is larger than {MAX_FILE_BYTES} bytes")
            return stream.read()
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from error


def quietly(work: Callable[[], T]) -> tuple[T, bool]:
    """The result of ``work``, and whether an image decoder complained meanwhile.

    The JPEG and PNG libraries inside OpenCV print about damaged files straight to the process's error
    stream. It is turned aside while ``work`` runs; what others printed is passed on afterwards, so
    keep ``work`` short. One thread at a time.
    """
    with _stderr_lock, tempfile.TemporaryFile() as sink:
        try:
            stream = os.dup(2)
        except OSError:  # no error stream at all: nothing to protect
            return work(), False
        os.dup2(sink.fileno(), 2)
        try:
            result = work()
        finally:
            os.dup2(stream, 2)
            sink.seek(0)
            lines = sink.read().splitlines(keepends=True)
            others = b"".join(line for line in lines if not _COMPLAINT.search(line))
            with contextlib.suppress(OSError):  # nobody listens any more
                os.write(stream, others)
            os.close(stream)
        return result, any(_COMPLAINT.search(line) for line in lines)


def load_image(path: os.PathLike[str] | str, *, noisy: bool = False) -> Array:
    """Pixels of the image file ``path``: uint8 `(H, W, 3)` BGR, see `decode`.

    ``noisy`` says that its decoder is known to print to the error stream; that is kept off the terminal.

    Raises:
        DataError: the file is missing, broken or too large.
    """
    try:
        data = read_bytes(path)
        return quietly(lambda: decode(data))[0] if noisy else decode(data)
    except ValueError as error:
        raise DataError(f"{path}: {error}; give an image that can be opened") from error
