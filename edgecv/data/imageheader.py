"""The size of an image file from its header, and whether the file is whole: nothing is decoded."""

from __future__ import annotations

import re
import struct
import zlib

PNG_START = b"\x89PNG\r\n\x1a\n"
_PNM = re.compile(rb"P[36](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width of an image file, in pixels, read from its header; nothing is decoded.

    Raises:
        ValueError: empty, of no known format, or cut short; the message is a reason in words.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg_size(data)
        if data.startswith(PNG_START):
            return _png_size(data)
        if data.startswith(b"BM"):
            return _bmp_size(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff_size(data)
        if match := _PNM.match(data[:4096]):
            return int(match[2]), int(match[1])
    except (struct.error, IndexError):
        raise ValueError("the file is cut short") from None
    raise ValueError("the file is not an image of a known format (JPEG, PNG, BMP, WebP, TIFF, PPM)")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    size: tuple[int, int] | None = None
    position = 2
    while True:
        if data[position] != 0xFF:
            raise ValueError("the JPEG header is damaged")
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        (length,) = struct.unpack_from(">H", data, position + 1)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 4)
            size = (height, width)
        if marker == 0xDA:  # from here on the pixels, in which 0xFF is never followed by 0xD9
            break
        position += 1 + length
    if data.find(b"\xff\xd9", position) < 0:
        raise ValueError("the JPEG file is cut short: its end marker is missing")
    if size is None:
        raise ValueError("the JPEG header is damaged")
    return size


def _png_size(data: bytes) -> tuple[int, int]:
    position = len(PNG_START)
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        (expected,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(data[position + 4 : end]) != expected:
            raise ValueError("the PNG file is damaged: a checksum does not hold")
        if kind == b"IEND":
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
        position = end + 4
    raise ValueError("the PNG file is cut short: its end is missing")


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(height), abs(width)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    return height, width


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    sizes = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257):
            (sizes[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    if len(sizes) < 2:
        raise ValueError("the TIFF header is damaged")
    return sizes[257], sizes[256]
