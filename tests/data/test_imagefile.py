"""Decoding: what comes out, what is refused, and that no decoder writes to the terminal."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.data import imagefile
from edgecv.data.imageheader import PNG_START
from edgecv.errors import DataError

from .conftest import encoded, picture


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def noisy_jpeg() -> bytes:
    """A JPEG that decodes, with a complaint of libjpeg: bytes too many before its end."""
    data = encoded(picture(0, height=64, width=64), ".jpg")
    return data[:-2] + bytes(600) + data[-2:]


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_formats_come_back_exactly(extension: str) -> None:
    image = picture(1)
    assert np.array_equal(imagefile.decode(encoded(image, extension)), image)


def test_gray_sixteen_bit_and_alpha_become_bgr() -> None:
    image = picture(2)
    gray = image[:, :, 0]
    assert np.array_equal(imagefile.decode(encoded(gray)), np.dstack([gray] * 3))
    assert np.array_equal(imagefile.decode(encoded(image.astype(np.uint16) * 257)), image)
    assert np.array_equal(imagefile.decode(encoded(np.dstack([image, gray]))), image)


def test_exif_orientation_is_applied() -> None:
    data = encoded(picture(3, height=24, width=48), ".jpg")
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert imagefile.decode(turned).shape == (48, 24, 3)


def test_probe_of_a_large_jpeg_is_small() -> None:
    data = encoded(picture(4, height=160, width=240), ".jpg")
    assert imagefile.decode(data, probe=True).shape == (20, 30, 3)


def test_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    bomb = PNG_START + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(ValueError, match="20000 x 20000 pixels; allowed are 178956970"):
        imagefile.decode(bomb)


def test_no_pixels() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 8, 8, 2, 0, 0, 0))
    with pytest.raises(ValueError, match="0 x 8 pixels"):
        imagefile.decode(PNG_START + header + chunk(b"IEND", b""))


@pytest.mark.parametrize("extension", [".webp", ".bmp", ".tif", ".ppm"])
def test_formats_without_an_end_marker_cut_short(extension: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(picture(5, height=80, width=80), extension)
    with pytest.raises(ValueError, match=r"cannot be decoded|cut short"):
        imagefile.decode(data[: len(data) // 2])
    assert capfd.readouterr().err == ""


def test_damaged_png_colour_profile_is_not_mentioned(capfd: pytest.CaptureFixture[str]) -> None:
    image = picture(6)
    data = encoded(image)
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    assert np.array_equal(imagefile.decode(data[:33] + profile + data[33:]), image)
    assert capfd.readouterr().err == ""


def test_quietly_hears_libjpeg_and_passes_on_the_rest(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        imagefile.decode(noisy_jpeg())
        os.write(2, b"a line of someone else\n")
        return 5

    assert imagefile.quietly(work) == (5, True)
    assert capfd.readouterr().err == "a line of someone else\n"
    assert imagefile.quietly(lambda: 6) == (6, False)
    print("later", file=sys.stderr)
    assert capfd.readouterr().err == "later\n"


def test_quietly_puts_the_stream_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        imagefile.quietly(lambda: 1 // 0)
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_load_image_of_a_noisy_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "noisy.jpg"
    path.write_bytes(noisy_jpeg())
    assert imagefile.load_image(path, noisy=True).shape == (64, 64, 3)
    assert capfd.readouterr().err == ""


def test_load_image_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg: the file cannot be read"):
        imagefile.load_image(tmp_path / "gone.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match=r"empty\.jpg: the file is empty"):
        imagefile.load_image(tmp_path / "empty.jpg")


def test_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.bmp"
    with path.open("wb") as stream:
        stream.truncate(imagefile.MAX_FILE_BYTES + 1)  # sparse: takes no room on the disk
    with pytest.raises(ValueError, match="larger than"):
        imagefile.read_bytes(path)


def test_decodes_as_opencv_reads_files(shared_data: Path) -> None:
    for path in sorted((shared_data / "imagenet-samples").glob("*.JPEG"))[:5]:
        assert np.array_equal(imagefile.decode(path.read_bytes()), cv2.imread(str(path)))
