"""CSV data sets: columns, labels, rows that fail, and paths that must not leave the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.csvfile import list_csv
from edgecv.data.files import Listing
from edgecv.data.readers import open_reader
from edgecv.errors import DataError

from .conftest import encoded, picture

LABELS = ["cat", "dog", "7"]


def listed(folder: Path, text: str, **settings: str) -> Listing:
    (folder / "set.csv").write_text(text, encoding="utf-8")
    return list_csv(DataSpec(kind="csv", path="set.csv", **settings), base=folder, labels=LABELS)


def test_names_and_indices(tmp_path: Path) -> None:
    listing = listed(tmp_path, "file,label\nb.png,dog\na.png,0\n\nc/d.png,7\n")
    assert [(entry.id, entry.truth) for entry in listing.entries] == [("b.png", 1), ("a.png", 0), ("c/d.png", 2)]
    assert listing.entries[2].path == tmp_path / "c" / "d.png"
    assert listing.skipped == {}


def test_columns_root_quotes_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    text = '\ufeffid, kind ,path\n1,cat,"a, b.png"\n2,dog,./sub/../c.png\n'
    listing = listed(tmp_path, text, file_column="path", label_column="kind", root="images")
    assert [entry.id for entry in listing.entries] == ["a, b.png", "c.png"]
    assert listing.entries[0].path == tmp_path / "images" / "a, b.png"


def test_absolute_paths_inside_the_folder(tmp_path: Path) -> None:
    assert listed(tmp_path, f"file,label\n{tmp_path}/a.png,cat\n").entries[0].id == "a.png"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("../a.png,cat", "leaves the folder"),
        ("sub/../../a.png,cat", "leaves the folder"),
        ("/etc/passwd,cat", "leaves the folder"),
        (".,cat", "leaves the folder"),
        (",cat", "file name is empty"),
        ("a.png,", "label is empty"),
        ("a.png", "label is empty"),
        ("a.png,cow", "'cow' is neither a class name nor an index within 0..2"),
        ("a.png,3", "'3' is neither"),
        ("a.png,-1", "'-1' is neither"),
        ("good.png,dog", "stands in line 2 already"),
    ],
)
def test_row_that_fails_is_skipped_with_its_line(tmp_path: Path, row: str, reason: str) -> None:
    listing = listed(tmp_path, f"file,label\ngood.png,cat\n{row}\n")
    assert [entry.id for entry in listing.entries] == ["good.png"]
    assert list(listing.skipped) == ["set.csv:3"]
    assert reason in listing.skipped["set.csv:3"]


def test_missing_images_and_bad_rows_are_skipped_alike(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(0)))
    (tmp_path / "set.csv").write_text("file,label\na.png,cat\ngone.png,dog\nb.png,cow\n")
    spec = DataSpec(kind="csv", path="set.csv")
    reader = open_reader(spec, base=tmp_path, labels=LABELS)
    assert list(reader.ids) == ["a.png"]
    assert set(reader.skipped) == {"gone.png", "set.csv:4"}
    with pytest.raises(DataError, match="2 of 3 samples cannot be used"):
        open_reader(DataSpec(kind="csv", path="set.csv", strict=True), base=tmp_path, labels=LABELS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n", "a header and no rows"),
        ("", "0 columns are named 'file'.*columns are: none"),
        ("name,label\na,b\n", "0 columns are named 'file'.*columns are: name, label"),
        ("file,label,label\na,b,c\n", "2 columns are named 'label' .label_column."),
        ('file,label\n"a.png,cat\n', "not a CSV file"),
    ],
)
def test_file_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        listed(tmp_path, text)


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes(b"file,label\n\xff\xfe,cat\n")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        list_csv(DataSpec(kind="csv", path="set.csv"), base=tmp_path, labels=LABELS)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/set.csv does not exist"):
        list_csv(DataSpec(kind="csv", path="set.csv"), base=tmp_path, labels=LABELS)
    with pytest.raises(DataError, match="no path"):
        list_csv(DataSpec(kind="csv"), base=tmp_path, labels=LABELS)
    with pytest.raises(DataError, match="images is not a folder; root is 'images'"):
        listed(tmp_path, "file,label\na,cat\n", root="images")


def test_imagenet_samples(shared_data: Path) -> None:
    spec = DataSpec(kind="csv", path="imagenet-samples/labels.csv", label_column="class_index_0_999")
    labels = [f"class {index}" for index in range(1000)]
    listing = list_csv(spec, base=shared_data, labels=labels)
    assert len(listing.entries) == 500
    assert [entry.truth for entry in listing.entries] == list(range(0, 1000, 2))
    assert listing.entries[0].id == "n01440764_tench.JPEG"
    assert all(entry.path.is_file() for entry in listing.entries)
