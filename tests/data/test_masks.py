"""Masks: every way that class indices are stored, and every way that they can be wrong."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from edgecv import cli
from edgecv.core.recipe import DataSpec
from edgecv.data.masks import list_masks, mask_values
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError
from edgecv.families.segmentation_map import NO_CLASS, MaskTruth

from .conftest import encoded, picture

LABELS = ("background", "cat", "dog")
HEIGHT, WIDTH = 24, 32


def classes(seed: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (HEIGHT, WIDTH), dtype=np.uint8)


def png(values: np.ndarray, *, depth: int, palette: bool) -> bytes:
    """A PNG of ``depth`` bits a pixel, of palette indices or gray values."""
    height, width = values.shape
    bits = np.unpackbits(values[:, :, None], axis=2)[:, :, 8 - depth :].reshape(height, width * depth)
    rows = np.packbits(bits, axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 3 if palette else 0, 0, 0, 0)
    colors = chunk(b"PLTE", bytes(range(255, 255 - 3 * 2 ** min(depth, 6), -1))) if palette else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + colors
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


def write_set(folder: Path, count: int = 3) -> Path:
    for place in ("images", "masks"):
        (folder / place).mkdir(parents=True)
    for index in range(count):
        (folder / "images" / f"{index}.jpg").write_bytes(encoded(picture(index), ".jpg"))
        (folder / "masks" / f"{index}.png").write_bytes(encoded(classes(index)))
    return folder


def spec(folder: Path, **more: object) -> DataSpec:
    values = {"path": str(folder / "images"), "truth": str(folder / "masks"), **more}
    return DataSpec("masks", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("palette", [True, False])
def test_png_of_any_depth_gives_its_indices(depth: int, palette: bool) -> None:
    values = classes(1, min(2**depth, 60))
    assert np.array_equal(mask_values(png(values, depth=depth, palette=palette)), values)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_gray_files_give_their_values(ending: str) -> None:
    assert np.array_equal(mask_values(encoded(classes(2), ending)), classes(2))


def test_equal_channels_and_16_bits_are_taken() -> None:
    values = classes(3)
    assert np.array_equal(mask_values(encoded(np.repeat(values[:, :, None], 3, axis=2))), values)
    assert np.array_equal(mask_values(encoded(values.astype(np.uint16))), values)


def test_a_bmp_with_a_palette_of_colours_gives_its_indices() -> None:
    data = bytearray(encoded(classes(4), ".bmp"))
    data[54:66] = bytes([0, 0, 0, 0, 0, 0, 255, 0, 0, 255, 0, 0])
    assert np.array_equal(mask_values(bytes(data)), classes(4))
    with pytest.raises(ValueError, match="cut short"):
        mask_values(bytes(data[:-100]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"no picture at all", "not an image"),
        (encoded(picture(1), ".jpg"), "JPEG, which changes the values"),
        (encoded(picture(1)), "in colour"),
        (encoded(np.full((4, 4), 300, np.uint16)), "values up to 300"),
        (png(classes(0), depth=8, palette=True)[:-20], "cut short"),
    ],
)
def test_what_is_no_mask_is_told(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mask_values(data)


def test_pictures_come_with_their_masks(tmp_path: Path) -> None:
    reader = open_reader(spec(write_set(tmp_path)), base=Path(), labels=LABELS)
    assert list(reader.ids) == ["0.jpg", "1.jpg", "2.jpg"]
    assert reader[1].image.shape == (HEIGHT, WIDTH, 3)
    assert isinstance(reader[1].truth, MaskTruth)
    assert np.array_equal(reader[1].truth.classes, classes(1))
    assert len(open_subset(spec(tmp_path), ["2.jpg"], base=Path(), labels=LABELS)) == 1


def test_a_pattern_names_masks_beside_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for index in range(2):
        (tmp_path / "a" / f"{index}.png").write_bytes(encoded(picture(index)))
        (tmp_path / "a" / f"{index}_mask.png").write_bytes(encoded(classes(index)))
    named = DataSpec("masks", path=str(tmp_path), truth=str(tmp_path / "{stem}_mask.png"))
    reader = open_reader(named, base=Path(), labels=LABELS)
    assert list(reader.ids) == ["a/0.png", "a/1.png"]  # masks are no pictures
    assert np.array_equal(reader[1].truth.classes, classes(1))


def test_the_ignored_value_becomes_no_class(tmp_path: Path) -> None:
    write_set(tmp_path)
    values = classes(0)
    values[:5] = 255
    (tmp_path / "masks/0.png").write_bytes(encoded(values))
    truth = open_reader(spec(tmp_path), base=Path(), labels=LABELS)[0].truth
    assert (truth.classes[:5] == NO_CLASS).all()
    assert np.array_equal(truth.classes[5:], values[5:])
    values[:5] = 7
    (tmp_path / "masks/0.png").write_bytes(encoded(values))
    truth = open_reader(spec(tmp_path, ignore_index=7), base=Path(), labels=LABELS)[0].truth
    assert (truth.classes[:5] == NO_CLASS).all()


def refused(folder: Path, values: np.ndarray, labels: tuple[str, ...] = LABELS, **more: object) -> str:
    """Why the data set with this mask for its first picture is refused."""
    write_set(folder)
    (folder / "masks/0.png").write_bytes(encoded(values))
    with pytest.raises(DataError, match="1 truth is broken") as caught:
        open_reader(spec(folder, **more), base=Path(), labels=labels)
    return str(caught.value)


def test_values_without_a_label_are_named(tmp_path: Path) -> None:
    values = classes(0)
    values[0, :2] = (9, 37)
    assert "0.png: the mask holds 9, 37; allowed are the classes 0..2 and 255" in refused(tmp_path, values)


def test_another_size_is_named(tmp_path: Path) -> None:
    why = refused(tmp_path, np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    assert "the mask has 33 x 24 pixels and its picture 0.jpg 32 x 24" in why


def test_black_and_white_is_no_pair_of_classes(tmp_path: Path) -> None:
    write_set(tmp_path)
    for index in range(3):
        (tmp_path / f"masks/{index}.png").write_bytes(encoded((classes(index, 2) * 255).astype(np.uint8)))
    with pytest.raises(DataError, match="write 1 for the second class"):
        open_reader(spec(tmp_path), base=Path(), labels=("background", "person"))


def test_an_empty_mask_is_named(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "masks/1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 truth is broken: .*1\.png: the file is empty\. Correct"):
        open_reader(spec(tmp_path), base=Path(), labels=LABELS)


def test_pictures_without_a_mask_are_named(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "masks/2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 pictures have no mask: 2\.jpg"):
        list_masks(spec(tmp_path), base=Path(), labels=LABELS)
    assert len(list_masks(spec(tmp_path, only="[01].jpg"), base=Path(), labels=LABELS).entries) == 2
    with pytest.raises(DataError, match="does not exist; truth is the folder of the masks"):
        list_masks(spec(tmp_path, truth=str(tmp_path / "mask")), base=Path(), labels=LABELS)
    with pytest.raises(DataError, match="has no truth"):
        list_masks(spec(tmp_path, truth=None), base=Path(), labels=LABELS)


def test_two_masks_for_a_picture_are_named(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "masks/1.bmp").write_bytes(encoded(classes(1), ".bmp"))
    with pytest.raises(DataError, match=r"1\.jpg has two masks"):
        list_masks(spec(tmp_path), base=Path(), labels=LABELS)


def test_a_turned_photo_has_the_size_that_is_seen(tmp_path: Path) -> None:
    """EXIF orientation 6: stored lying, shown standing; the mask is as shown."""
    write_set(tmp_path, 1)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    photo = encoded(picture(0), ".jpg")
    turned = photo[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + photo[2:]
    (tmp_path / "images/0.jpg").write_bytes(turned)
    (tmp_path / "masks/0.png").write_bytes(encoded(np.ascontiguousarray(classes(0).T)))
    sample = open_reader(spec(tmp_path), base=Path(), labels=LABELS)[0]
    assert sample.image.shape[:2] == sample.truth.classes.shape == (WIDTH, HEIGHT)


def test_the_hash_sees_masks_and_the_ignored_value(tmp_path: Path) -> None:
    write_set(tmp_path)
    one = spec_fingerprint(spec(tmp_path), base=Path(), labels=LABELS)
    assert spec_fingerprint(spec(tmp_path, ignore_index=3), base=Path(), labels=LABELS) != one
    (tmp_path / "masks/0.png").write_bytes(encoded(classes(9)) + b" ")
    assert spec_fingerprint(spec(tmp_path), base=Path(), labels=LABELS) != one


def test_camvid(shared_data: Path) -> None:
    folder = shared_data / "camvid-mini"
    lines = (folder / "classes.txt").read_text().split("\n")
    labels = [line.split(maxsplit=1)[1] for line in lines if line.strip()][:11]
    reader = open_reader(spec(folder, ignore_index=11), base=Path(), labels=labels)
    assert len(reader) == 8
    truth = reader[0].truth.classes
    assert truth.shape == reader[0].image.shape[:2] == (360, 480)
    assert set(np.unique(truth)) <= {*range(11), NO_CLASS}
    assert (truth == 3).mean() > 0.2  # road


@pytest.mark.parametrize(
    ("name", "agreement", "bird"),
    [("deeplabv3_mnv2_pascal_quant", 0.979, 0.905), ("deeplabv3_mnv2_dm05_pascal_quant", 0.961, 0.819)],
)
def test_deeplab_agrees_with_its_reference(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, agreement: float, bird: float
) -> None:
    """Imported and evaluated by command, as a user would: the agreement that the model's publisher's mask gives."""
    import json

    place = shared_data / "segmentation-ref"
    model = shared_data / "models" / name / f"{name}.tflite"
    labels = place / "pascal_voc_segmentation_labels.txt"
    words = ["import", str(model), "--out", str(tmp_path / "art"), "--family", "segmentation", "--head", "classmap"]
    words += ["--labels", str(labels), "--size", "513", "513", "--range", "-1", "0.9921875"]
    assert cli.main(words) == 0
    capsys.readouterr()
    data = f"masks:{place}/bird*.bmp,truth={place}/{{stem}}_mask.bmp"
    assert cli.main(["eval", str(tmp_path / "art"), "--metric", "pixel_accuracy", "--json", "--data", data]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["value"] == pytest.approx(agreement, abs=0.001)
    assert figures["extras"]["iou bird"] == pytest.approx(bird, abs=0.002)
