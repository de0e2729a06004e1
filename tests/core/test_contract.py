"""The input contract names what is wrong with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgecv.core.contract import Clip, InputContract

GOOD = InputContract(size=(224, 224))


def test_sound_contracts() -> None:
    assert GOOD.problems() == []
    assert GOOD.channels == 3
    gray = InputContract(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,))
    assert gray.problems() == []
    assert gray.channels == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (replace(GOOD, size=(0, 224)), "size is [0, 224]"),
        (replace(GOOD, size=(224, 16385)), "16384"),
        (replace(GOOD, mean=(0.5,)), "mean has 1 values; color rgb needs 3"),
        (replace(GOOD, color="gray"), "mean has 3 values; color gray needs 1"),
        (replace(GOOD, std=(1.0, 0.0, 1.0)), "divide by zero"),
        (replace(GOOD, range=(1.0, 1.0)), "two ends must differ"),
    ],
)
def test_problems_are_named(changed: InputContract, says: str) -> None:
    assert any(says in problem for problem in changed.problems())


def test_all_problems_are_listed() -> None:
    assert len(replace(GOOD, size=(0, 0), mean=(), std=(0.0,), range=(0.0, 0.0)).problems()) == 5


def test_a_contract_can_be_a_key() -> None:
    """Pre-processing caches its tables by contract."""
    assert len({GOOD, replace(GOOD), replace(GOOD, pad_value=0)}) == 2


def test_what_goes_in_at_once_is_a_picture_a_clip_or_a_frame() -> None:
    clip = replace(GOOD, clip=Clip(8, 8.0))
    stream = replace(GOOD, clip=Clip(8, 8.0, stream=True))
    assert (GOOD.once, clip.once, stream.once) == (GOOD, clip, GOOD)
    assert [item.streams for item in (GOOD, clip, stream)] == [False, False, True]
    assert stream.planes == clip.planes == 24
    wrong = replace(GOOD, clip=Clip(8, 8.0, layout="CTHW", stream=True)).problems()
    assert wrong == ["clip has layout CTHW; a network that streams takes frames: leave layout out"]
