"""Identities from folders and CSV files: roles, cameras, numbers, and rows that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.files import Listing
from edgecv.data.identities import identity_names, list_identities
from edgecv.data.readers import open_reader, spec_fingerprint
from edgecv.errors import DataError
from edgecv.families.retrieval import IdentityTruth

from .conftest import encoded, picture

Draw = Callable[..., Path]


def rows(folder: Path, text: str, **settings: Any) -> Listing:
    (folder / "set.csv").write_text(text, encoding="utf-8")
    return list_identities(DataSpec(kind="identities-csv", path="set.csv", **settings), base=folder)


def test_folders_of_identities(draw: Draw) -> None:
    folder = draw({"berta": 2, "anna": 3})
    reader = open_reader(DataSpec(kind="identities", path=str(folder)), base=Path(), labels=["person"])
    assert list(reader.truths) == [0, 0, 0, 1, 1]
    assert reader.ids[0] == "anna/000.png"
    names = identity_names(DataSpec(kind="identities", path=str(folder)), base=Path())
    assert [names[name] for name in reader.ids] == ["anna"] * 3 + ["berta"] * 2


def test_query_and_gallery(draw: Draw) -> None:
    draw({"berta": 1, "carl": 1}, name="set/query")
    folder = draw({"anna": 1, "berta": 2}, name="set/gallery", first=9).parent
    listing = list_identities(DataSpec(kind="identities", path=str(folder)), base=Path())
    assert [entry.truth for entry in listing.entries] == [
        IdentityTruth(1, "query"),
        IdentityTruth(2, "query"),
        IdentityTruth(0, "gallery"),
        IdentityTruth(1, "gallery"),
        IdentityTruth(1, "gallery"),
    ]
    (folder / "gallery").rename(folder / "others")
    with pytest.raises(DataError, match="has a folder query and none named gallery"):
        list_identities(DataSpec(kind="identities", path=str(folder)), base=Path())


def test_rows_with_roles_and_cameras(tmp_path: Path) -> None:
    text = "file,label,camera,role\na.png,zoe,1,query\nb.png,zoe,2,gallery\nc.png,amy,,\nd.png,amy\n"
    listing = rows(tmp_path, text)
    assert [entry.truth for entry in listing.entries] == [
        IdentityTruth(1, "query", "1"),
        IdentityTruth(1, "gallery", "2"),
        0,
        0,
    ]
    assert listing.skipped == {}
    named = rows(tmp_path, "who,picture\n7,a.png\n7,b.png\n", file_column="picture", label_column="who")
    assert [entry.truth for entry in named.entries] == [0, 0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("../a.png,amy,both", "leaves the folder"),
        (",amy,both", "file name is empty"),
        ("a.png,,both", "the identity is empty"),
        ("a.png,amy,galery", "role is 'galery'; allowed are query, gallery, both"),
        ("good.png,amy,both", "stands in line 2 already"),
    ],
)
def test_a_row_that_fails_is_named(tmp_path: Path, row: str, reason: str) -> None:
    listing = rows(tmp_path, f"file,label,role\ngood.png,amy,both\n{row}\n")
    assert len(listing.entries) == 1
    assert reason in listing.skipped["set.csv:3"]
    for name in ("good.png", "a.png"):
        (tmp_path / name).write_bytes(encoded(picture(1)))
    spec = DataSpec(kind="identities-csv", path="set.csv", strict=True)
    with pytest.raises(DataError, match=r"set\.csv:3: "):
        open_reader(spec, base=tmp_path, labels=[])


def test_columns_and_rows_are_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set\.csv:1: 0 columns are named 'label'"):
        rows(tmp_path, "file,identity\na.png,amy\n")
    with pytest.raises(DataError, match="names no picture"):
        rows(tmp_path, "file,label\n")
    with pytest.raises(DataError, match="names no identities"):
        identity_names(DataSpec(kind="images", path="."), base=tmp_path)


def test_the_hash_sees_roles(tmp_path: Path, draw: Draw) -> None:
    draw({"x": 2})
    found = set()
    for role in ("query", "gallery"):
        (tmp_path / "set.csv").write_text(f"file,label,role\nset/x/000.png,amy,{role}\nset/x/001.png,amy,both\n")
        found.add(spec_fingerprint(DataSpec(kind="identities-csv", path="set.csv"), base=tmp_path))
    assert len(found) == 2
