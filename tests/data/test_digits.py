"""The bundled digits: splits, pictures, ids and hashes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib import metadata

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edgecv.data import digits
from edgecv.data.digits import open_digits
from edgecv.errors import DataError, ToolchainError


def test_splits_are_fixed_stratified_and_apart(digit_labels: Sequence[str]) -> None:
    parts = {split: open_digits(split=split, labels=digit_labels, limit=None) for split in ("train", "test", "all")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 1201, "test": 596, "all": 1797}
    assert set(parts["train"].ids).isdisjoint(parts["test"].ids)
    assert {*parts["train"].ids, *parts["test"].ids} == set(parts["all"].ids)
    train, test = Counter(parts["train"].truths), Counter(parts["test"].truths)
    for digit in range(10):
        assert test[digit] / train[digit] == pytest.approx(0.5, abs=0.02)


def test_pictures_are_those_of_scikit_learn(digit_labels: Sequence[str]) -> None:
    source = load_digits()
    reader = open_digits(split="all", labels=digit_labels, limit=None)
    assert list(reader.truths) == source.target.tolist()
    sample = reader[17]
    assert (sample.id, sample.truth) == ("digits-0017", source.target[17])
    assert sample.image.dtype == np.uint8
    assert np.array_equal(sample.image, np.rint(source.images[17] * 255 / 16))
    assert sample.image.max() == 255
    assert reader.sha256(17) == hashlib.sha256(sample.image.tobytes()).hexdigest()


def test_sample_belongs_to_the_caller(digit_labels: Sequence[str]) -> None:
    reader = open_digits(split="test", labels=digit_labels, limit=1)
    before = reader.fingerprint()
    reader[0].image[:] = 0
    assert reader[0].image.any()
    assert reader.fingerprint() == before


def test_limit_is_even_over_the_classes(digit_labels: Sequence[str]) -> None:
    reader = open_digits(split="test", labels=digit_labels, limit=50)
    assert len(reader) == 50
    assert set(Counter(reader.truths).values()) <= {4, 5, 6}
    assert list(reader.ids) == sorted(reader.ids)


def test_only_some_ids(digit_labels: Sequence[str]) -> None:
    wanted = frozenset({"digits-0003", "digits-0000", "digits-9999"})
    reader = open_digits(split="all", labels=digit_labels, limit=None, only=wanted)
    assert list(reader.ids) == ["digits-0000", "digits-0003"]


def test_fingerprint_tells_splits_apart(digit_labels: Sequence[str]) -> None:
    prints = {open_digits(split=split, labels=digit_labels, limit=None).fingerprint() for split in ("train", "test")}
    assert len(prints) == 2


def test_labels_must_be_ten() -> None:
    with pytest.raises(DataError, match="3 labels; kind sklearn-digits needs 10"):
        open_digits(split="all", labels=["a", "b", "c"], limit=None)


def test_scikit_learn_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(ToolchainError, match="pip install"):
        digits.digits_fingerprint()
