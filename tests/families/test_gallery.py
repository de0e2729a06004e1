"""Galleries: the search against sorting, votes, what is stored, and files that are broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.results import Embedding
from edgecv.errors import ArtifactError, DataError, UsageError
from edgecv.families.gallery import UNKNOWN, Gallery, load_gallery


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


def test_whoever_is_like_nobody_is_unknown() -> None:
    strict = replace(gallery(), least=0.9)
    near, far = (strict.recognise(Embedding(unit(row)[0])) for row in ([1, 0.05], [-1, 0.3]))
    assert near.brief() == "anna"
    assert near.labels == ("anna", "berta", "clara")
    assert (far.brief(), far.class_ids.tolist()) == (UNKNOWN, [3])
    cosine = float(unit([-1, 0.3])[0] @ unit([0, 1])[0])
    assert far.scores.tolist() == pytest.approx([0, 0, 0, cosine])
    assert gallery().recognise(Embedding(unit([-1, 0.3])[0])).brief() == "anna", "nobody is unknown by default"


def test_the_limit_lets_one_stranger_in_a_hundred_pass() -> None:
    random = np.random.default_rng(3)
    centres = np.repeat(random.normal(size=(60, 24)), 5, axis=0)
    vectors = unit(*(centres + 0.5 * random.normal(size=centres.shape)).tolist())
    numbers = np.repeat(np.arange(60), 5)
    found = Gallery(vectors, numbers, tuple(str(item) for item in range(60)), "")
    limit, recognised = found.stranger_limit()
    cosines = vectors @ vectors.T
    other = numbers[:, None] != numbers
    passed = np.where(other, cosines, -1).max(axis=1) >= limit
    own = ~other & ~np.eye(300, dtype=bool)
    assert 0 < passed.mean() <= 0.01
    assert recognised == pytest.approx((np.where(own, cosines, -1).max(axis=1) >= limit).mean(), abs=1e-6)
    assert recognised > 0.8
    looser, more = found.stranger_limit(share=0.2)
    assert looser < limit
    assert more >= recognised


@pytest.mark.parametrize(
    ("numbers", "says"),
    [([0, 0, 0, 0], "are of one identity"), ([0, 1, 2, 3], "are the only ones of their identities")],
)
def test_strangers_need_two_identities_and_two_pictures(numbers: list[int], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Gallery(gallery().vectors, np.array(numbers), ("a", "b", "c", "d"), "").stranger_limit()


def test_stored_and_read(tmp_path: Path) -> None:
    replace(gallery(), least=0.25).save(tmp_path / "people.npz")
    found = load_gallery(tmp_path / "people.npz")
    assert found.least == 0.25
    np.testing.assert_array_equal(found.vectors, gallery().vectors)
    assert (found.names, found.model, found.numbers.tolist()) == (gallery().names, "f" * 64, [1, 0, 0, 2])
    assert [path.name for path in tmp_path.iterdir()] == ["people.npz"]


def test_files_that_know_no_strangers(tmp_path: Path) -> None:
    gallery().save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as stored:
        arrays = {name: stored[name] for name in stored.files if name != "least"}
    np.savez(tmp_path / "old.npz", **arrays)
    assert load_gallery(tmp_path / "old.npz").least == -1


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


def test_a_cosine_is_at_most_1() -> None:
    with pytest.raises(DataError, match=r"least cosine is 1\.5; -1 to 1"):
        replace(gallery(), least=1.5)


def test_other_embeddings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"has 3 numbers .* the gallery has 2 numbers"):
        gallery().nearest(Embedding(np.ones(3, np.float32)))
    with pytest.raises(UsageError, match="1 or more"):
        gallery().nearest(Embedding(np.ones(2, np.float32)), count=0)
