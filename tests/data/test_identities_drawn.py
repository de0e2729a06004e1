"""Made-up identities: the same each time, of other plaques in the test set, and told apart by more than chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.data.identities_drawn import IDENTITIES
from edgecv.data.readers import LabelledReader, open_reader, open_subset


def opened(**settings: object) -> LabelledReader:
    spec = DataSpec(kind="scenes-identities", **settings)  # type: ignore[arg-type]
    return open_reader(spec, base=Path(), labels=["plaque"])


def test_plaques_take_turns_and_those_of_the_test_are_strangers() -> None:
    reader = opened(limit=2 * IDENTITIES["test"] + 1, split="test")
    truths = np.array(reader.truths)
    assert len(np.unique(truths)) == IDENTITIES["test"]
    assert truths[0] == truths[IDENTITIES["test"]]
    assert not set(reader.truths) & set(opened(limit=400, split="train").truths)
    assert len(opened()) == 1000
    assert len(set(opened(limit=5).ids)) == 10


def test_a_picture_is_a_function_of_its_name() -> None:
    one, other = opened(limit=6, split="test"), opened(limit=3, split="test")
    assert one.sha256(2) == other.sha256(2)
    assert one.fingerprint() != other.fingerprint()
    assert one[2].image.shape == (64, 64, 3)
    assert one[2].truth == one.truths[2]
    spec = DataSpec(kind="scenes-identities", split="test", limit=6)
    picked = open_subset(spec, [one.ids[4]], base=Path(), labels=[])
    assert list(picked.ids) == [one.ids[4]]
    np.testing.assert_array_equal(picked[0].image, one[4].image)
