"""Made-up print as data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError
from edgecv.families.textdet_result import TextTruth
from edgecv.vision.printed import LETTERS

HERE = Path()


def test_words() -> None:
    reader = open_reader(DataSpec(kind="scenes-words", split="train", limit=20), base=HERE, labels=tuple(LETTERS))
    assert len(reader) == 20
    assert all(set(reader[index].truth) <= set(LETTERS) for index in range(20))
    assert len({reader[index].truth for index in range(20)}) > 15
    again = open_reader(DataSpec(kind="scenes-words", split="train", limit=20), base=HERE, labels=tuple(LETTERS))
    assert reader.fingerprint() == again.fingerprint()


def test_labels_must_hold_all_letters() -> None:
    with pytest.raises(DataError, match="lack A, B, C, D, E and 21 more"):
        open_reader(DataSpec(kind="scenes-words", limit=2), base=HERE, labels=tuple("0123456789"))


def test_pages() -> None:
    spec = DataSpec(kind="scenes-text", split="test", limit=4)
    reader = open_reader(spec, base=HERE, labels=("text",))
    truths = [reader[index].truth for index in range(4)]
    assert all(isinstance(truth, TextTruth) for truth in truths)
    assert all(len(truth.texts) == len(truth.polygons) for truth in truths)
    assert any(truth.polygons for truth in truths)
    assert reader[0].image.shape == (384, 512, 3)
    assert len(spec_fingerprint(spec, base=HERE, labels=("text",))) == 64


def test_splits_share_no_picture() -> None:
    both = open_reader(DataSpec(kind="scenes-text", limit=2), base=HERE, labels=("text",))
    assert list(both.ids) == ["train-00000", "train-00001", "test-00000", "test-00001"]
    assert len({both.sha256(index) for index in range(4)}) == 4
    some = open_subset(DataSpec(kind="scenes-text"), ["test-00001"], base=HERE, labels=("text",))
    assert list(some.ids) == ["test-00001"]
    assert np.array_equal(some[0].image, both[3].image)
