"""Picking calibration pictures: counts, balance, repeatability, and how well k-center covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec
from edgecv.data import selection
from edgecv.data.digits import DigitsReader, open_digits
from edgecv.data.features import features_of
from edgecv.data.readers import open_reader
from edgecv.data.selection import Rule, covering_radius, greedy_k_center, pick, truths_of
from edgecv.errors import DataError

from .conftest import picture
from .memory_reader import MemoryReader

RULES: tuple[Rule, ...] = get_args(Rule)


@pytest.fixture(scope="module")
def digits(digit_labels: Sequence[str]) -> DigitsReader:
    return open_digits(split="train", labels=digit_labels, limit=300)


@pytest.mark.parametrize("select", RULES)
def test_every_rule(select: Rule, digits: DigitsReader, digit_labels: Sequence[str], gray: InputContract) -> None:
    def picked(samples: int, seed: int) -> list[int]:
        return pick(digits, labels=digit_labels, samples=samples, select=select, seed=seed, contract=gray)

    one = picked(40, 0)
    assert len(set(one)) == 40
    assert one == sorted(one)
    assert 0 <= one[0] <= one[-1] < 300
    assert picked(40, 0) == one
    assert picked(40, 1) != one
    assert picked(300, 0) == list(range(300))


@pytest.mark.parametrize("samples", [0, 301])
def test_more_than_there_are(samples: int, digits: DigitsReader, gray: InputContract) -> None:
    with pytest.raises(DataError, match=rf"samples is {samples}; the data set has 300 pictures, so 1..300"):
        pick(digits, labels=["x"], samples=samples, select="random", seed=0, contract=gray)


def test_stratified_is_balanced(digits: DigitsReader, digit_labels: Sequence[str], gray: InputContract) -> None:
    picked = pick(digits, labels=digit_labels, samples=43, select="stratified", seed=3, contract=gray)
    counts = Counter(digits.truths[index] for index in picked)
    assert sorted(counts.values()) == [4] * 7 + [5] * 3


def test_stratified_uses_up_small_classes(gray: InputContract) -> None:
    classes = [0] * 50 + [1] * 3 + [2] * 20
    reader = MemoryReader([picture(index, height=8, width=8) for index in range(73)], classes)
    picked = pick(reader, labels=["a", "b", "c", "none"], samples=23, select="stratified", seed=0, contract=gray)
    assert Counter(classes[index] for index in picked) == {0: 10, 1: 3, 2: 10}


def test_truths_without_a_shortcut() -> None:
    assert list(truths_of(MemoryReader([picture(0), picture(1)], [4, 2]))) == [4, 2]


def test_greedy_k_center_by_hand() -> None:
    line = np.array([[0.0], [1.0], [2.0], [9.0], [10.0]], np.float32)
    assert greedy_k_center(line, 3, first=0) == [0, 4, 2]
    assert covering_radius(line, [0, 4, 2]) == 1.0
    assert covering_radius(line, [0]) == 10.0


def test_greedy_k_center_of_twins_picks_each_row_once() -> None:
    twins = np.zeros((6, 2), np.float32)
    assert sorted(greedy_k_center(twins, 6, first=2)) == [0, 1, 2, 3, 4, 5]


def test_k_center_covers_better_than_chance(
    digits: DigitsReader, digit_labels: Sequence[str], gray: InputContract
) -> None:
    vectors = features_of(digits, range(len(digits)), gray).vectors

    def radius(select: Rule, seed: int) -> float:
        picked = pick(digits, labels=digit_labels, samples=40, select=select, seed=seed, contract=gray)
        return covering_radius(vectors, picked)

    worst = max(radius("k-center", seed) for seed in range(3))
    assert worst < min(radius("random", seed) for seed in range(10))
    assert worst < min(radius("stratified", seed) for seed in range(10))


def test_k_center_on_photographs(shared_data: Path, cifar_labels: Sequence[str], contract: InputContract) -> None:
    spec = DataSpec(kind="imagefolder", path="cifar10-mini/train", limit=500)
    reader = open_reader(spec, base=shared_data, labels=cifar_labels)
    vectors = features_of(reader, range(len(reader)), contract).vectors
    radii = {
        select: covering_radius(
            vectors, pick(reader, labels=cifar_labels, samples=64, select=select, seed=0, contract=contract)
        )
        for select in RULES
    }
    assert radii["k-center"] < 0.9 * min(radii["random"], radii["stratified"])


def test_k_center_looks_at_a_bounded_pool(
    digits: DigitsReader, gray: InputContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MAX_CANDIDATES", 20)
    asked: list[int] = []
    whole = DigitsReader.__getitem__
    monkeypatch.setattr(DigitsReader, "__getitem__", lambda self, index: (asked.append(index), whole(self, index))[1])
    picked = pick(digits, labels=["x"] * 10, samples=5, select="k-center", seed=0, contract=gray)
    assert len(asked) == 20
    assert set(picked) <= set(asked)
    asked.clear()
    assert len(pick(digits, labels=["x"] * 10, samples=30, select="k-center", seed=0, contract=gray)) == 30
    assert len(asked) == 30
