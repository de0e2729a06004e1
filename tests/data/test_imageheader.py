"""Sizes from headers, held against what OpenCV decodes, and files that are cut short."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from edgecv.data.imageheader import image_size

from .conftest import encoded, picture

EXTENSIONS = [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_size_of_each_format(extension: str) -> None:
    assert image_size(encoded(picture(0, height=37, width=61), extension)) == (37, 61)


def test_size_of_progressive_jpeg_and_lossless_webp() -> None:
    image = picture(1, height=40, width=50)
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    lossless = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    with_alpha = cv2.imencode(".webp", np.dstack([image, image[:, :, 0]]), [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()
    assert image_size(progressive) == image_size(lossless) == image_size(with_alpha) == (40, 50)


def test_size_of_ppm_with_a_comment() -> None:
    assert image_size(b"P6\n# made by hand\n5 7\n255\n" + bytes(105)) == (7, 5)


def test_size_of_big_endian_tiff() -> None:
    entries = struct.pack(">HHIHH", 256, 3, 1, 640, 0) + struct.pack(">HHII", 257, 4, 1, 480)
    assert image_size(b"MM\0*" + struct.pack(">IH", 8, 2) + entries) == (480, 640)


def test_tiff_without_its_size_is_damaged() -> None:
    with pytest.raises(ValueError, match="TIFF header is damaged"):
        image_size(b"II*\0" + struct.pack("<IH", 8, 0))


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_cut_short(extension: str, share: float) -> None:
    data = encoded(picture(2, height=200, width=200), extension)
    with pytest.raises(ValueError, match=r"cut short|known format"):
        image_size(data[: max(4, int(len(data) * share))])


def test_jpeg_thumbnail_end_marker_does_not_count() -> None:
    data = encoded(picture(3), ".jpg")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 4) + b"\xff\xd8\xff\xd9"
    cut = data[:2] + thumbnail + data[2:-20]
    with pytest.raises(ValueError, match="end marker is missing"):
        image_size(cut)
    assert image_size(data[:2] + thumbnail + data[2:]) == (24, 32)


def test_png_with_a_flipped_bit() -> None:
    data = bytearray(encoded(picture(4)))
    data[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        image_size(bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"hello, this is text", "known format"), (b"\0" * 64, "known")]
)
def test_no_image(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        image_size(data)


def test_garbage_behind_a_jpeg_start() -> None:
    with pytest.raises(ValueError, match=r"damaged|cut short"):
        image_size(b"\xff\xd8\xff" + b"x" * 200)
