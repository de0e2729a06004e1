"""Class folders: how they are matched to labels, and which files count."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.imagefolder import list_folder, match_classes
from edgecv.errors import DataError

from .conftest import Draw

SPEC = DataSpec(kind="imagefolder", path="set")


@pytest.mark.parametrize(
    ("folders", "labels", "expected"),
    [
        (["cat", "dog"], ["dog", "cat"], [1, 0]),
        (["Cat", "DOG"], ["dog", "cat"], [1, 0]),
        (["A", "a"], ["a", "A"], [1, 0]),
        (["n01", "n02", "n03"], ["tench", "shark", "hen"], [0, 1, 2]),
        (["dog"], ["cat", "dog", "hen"], [1]),
    ],
)
def test_match(folders: list[str], labels: list[str], expected: list[int]) -> None:
    assert match_classes(folders, labels, place="here")[0] == expected


def test_match_in_sorted_order_is_noted() -> None:
    notes = match_classes(["n01", "n02"], ["tench", "shark"], place="here")[1]
    assert len(notes) == 1
    assert "sorted order" in notes[0]
    assert "n01 = tench" in notes[0]
    assert match_classes(["cat", "dog"], ["cat", "dog"], place="here")[1] == []
    assert match_classes(["dog"], ["cat", "dog", "hen"], place="here")[1] == ["2 of 3 labels have no folder"]


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (["cat", "dgo"], ["cat", "dog"]),  # one name is right, so the order says nothing about the other
        (["cat", "cow", "dgo"], ["cat", "dog"]),
        (["x", "y", "z"], ["cat", "dog"]),
        (["Cat", "cat"], ["cat", "dog"]),  # both would be label 0
        (["CAT"], ["cat", "Cat"]),  # either could be meant
    ],
)
def test_mismatch_shows_both_sides(folders: list[str], labels: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        match_classes(folders, labels, place="here")
    wrong, free = str(caught.value).split("Labels without a folder: ")
    assert folders[-1] in wrong
    assert labels[-1] in free
    assert "set family.labels" in free


def test_long_lists_are_cut() -> None:
    with pytest.raises(DataError, match="f0, f1, f2, f3, f4 and 15 more"):
        match_classes([f"f{index}" for index in range(20)], ["cat"], place="here")


def test_which_files_count(draw: Draw, tmp_path: Path) -> None:
    folder = draw({"b": 1, "a": 2})
    (folder / "a" / "._000.png").write_bytes(b"what some systems leave behind")
    (folder / "a" / "notes.txt").write_text("not a picture")
    (folder / "a" / "more").mkdir()
    (folder / "a" / "000.png").rename(folder / "a" / "more" / "X.JPEG")
    (folder / ".cache").mkdir()
    (folder / "labels.csv").touch()
    (tmp_path / "elsewhere").mkdir()
    (folder / "b" / "000.png").rename(tmp_path / "elsewhere" / "9.png")
    (folder / "b").rmdir()
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    listing = list_folder(SPEC, base=tmp_path, labels=["a", "b"])
    assert [(entry.id, entry.truth) for entry in listing.entries] == [
        ("a/001.png", 0),
        ("a/more/X.JPEG", 0),
        ("b/9.png", 1),
    ]


def test_missing_folder_names_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/set does not exist; path is 'set', relative to"):
        list_folder(SPEC, base=tmp_path, labels=["a"])
    (tmp_path / "set").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        list_folder(SPEC, base=tmp_path, labels=["a"])
    with pytest.raises(DataError, match="has no path"):
        list_folder(DataSpec(kind="imagefolder"), base=tmp_path, labels=["a"])


def test_images_without_class_folders(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match="empty of class folders"):
        list_folder(SPEC, base=tmp_path, labels=["a"])
    (tmp_path / "set" / "1.jpg").touch()
    with pytest.raises(DataError, match=r"1 images lie directly in it.*one folder a class"):
        list_folder(SPEC, base=tmp_path, labels=["a"])


def test_empty_class_folders(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"1 class folders and no image in them; allowed are files ending in .bmp"):
        list_folder(SPEC, base=tmp_path, labels=["a"])
