"""Galleries: the search against sorting, votes, what is stored, and files that are broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.core.results import Embedding
from edgecv.errors import ArtifactError, DataError, UsageError
from edgecv.families.gallery import Gallery, load_gallery


def unit(*rows: list[float]) -> np.ndarray:
    values = np.array(rows, np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def gallery() -> Gallery:
    vectors = unit([1, 0], [0.9, 0.1], [0.8, 0.3], [0, 1])
    return Gallery(vectors, np.array([1, 0, 0, 2]), ("anna", "berta", "clara"), "f" * 64)


def test_nearest_is_what_sorting_gives() -> None:
    random = np.random.default_rng(0)
    vectors = unit(*random.normal(size=(500, 16)).tolist())
    found = Gallery(vectors, np.zeros(500, np.int64), ("x",), "")
    looked = Embedding(unit(random.normal(size=16).tolist())[0])
    rows, cosines = found.nearest(looked, count=7)
    wanted = np.argsort(-(vectors @ looked.vector), kind="stable")[:7]
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_array_equal(cosines, (vectors @ looked.vector)[wanted])
    assert len(found.nearest(looked, count=900)[0]) == 500


def test_the_nearest_names_it_alone_and_more_of_them_vote() -> None:
    looked = Embedding(unit([1, 0])[0])
    alone = gallery().recognise(looked, count=1)
    assert alone.brief() == "berta"
    assert alone.scores.tolist() == pytest.approx([0, 1, 0])
    voted = gallery().recognise(looked, count=3)
    assert voted.class_ids.tolist() == [0, 1], "two pictures of anna against one of berta"
    assert voted.scores[1] == pytest.approx(1.0)
    assert 0.9 < voted.scores[0] < 1.0
    assert voted.words().startswith("anna 0.9")


def test_equal_votes_go_to_the_nearer() -> None:
    found = gallery().recognise(Embedding(unit([0.5, 1])[0]), count=2)
    assert found.brief() == "clara"
    away = gallery().recognise(Embedding(unit([-1, -1])[0]), count=4)
    assert (away.scores == 0).all(), "cosines below 0 count as 0"


def test_stored_and_read(tmp_path: Path) -> None:
    gallery().save(tmp_path / "people.npz")
    found = load_gallery(tmp_path / "people.npz")
    np.testing.assert_array_equal(found.vectors, gallery().vectors)
    assert (found.names, found.model, found.numbers.tolist()) == (gallery().names, "f" * 64, [1, 0, 0, 2])
    assert [path.name for path in tmp_path.iterdir()] == ["people.npz"]


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04" + b"\0" * 40])
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read as a gallery"):
        load_gallery(tmp_path / "x.npz")


def test_cut_files_other_files_and_none(tmp_path: Path) -> None:
    gallery().save(tmp_path / "x.npz")
    whole = (tmp_path / "x.npz").read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        (tmp_path / "x.npz").write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            load_gallery(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", a=np.zeros(2))
    with pytest.raises(ArtifactError, match="no gallery"):
        load_gallery(tmp_path / "y.npz")
    np.savez(tmp_path / "z.npz", form=np.array({"a": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_gallery(tmp_path / "z.npz")
    with pytest.raises(UsageError, match="there is no gallery"):
        load_gallery(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("vectors", "numbers", "says"),
    [
        (np.zeros((0, 2), np.float32), [], "a gallery has vectors"),
        (unit([1, 0]), [0, 1], "numbers"),
        (np.array([[2, 0]], np.float32), [0], "length 1"),
        (np.array([[np.nan, 0]], np.float32), [0], "length 1"),
        (unit([1, 0]), [3], "3 to 3; it has 1 names"),
        (unit([1, 0]), [-1], "-1 to -1"),
    ],
)
def test_what_is_no_gallery(vectors: np.ndarray, numbers: list[int], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Gallery(vectors, np.array(numbers, dtype=np.int64), ("a",), "")


def test_other_embeddings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"has 3 numbers .* the gallery has 2 numbers"):
        gallery().nearest(Embedding(np.ones(3, np.float32)))
    with pytest.raises(UsageError, match="1 or more"):
        gallery().nearest(Embedding(np.ones(2, np.float32)), count=0)
