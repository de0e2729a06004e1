"""The state of a network that streams, told by its inputs and outputs."""

from __future__ import annotations

import re

import pytest

from edgecv.core.state import StateTensor, split_state, state_of, state_problems
from edgecv.core.tensor import Quantization, TensorSpec

FRAME = TensorSpec("x", (1, 1), "float32", "NC")
BEFORE = TensorSpec("s", (1, 2), "float32", "NC")
SUM = TensorSpec("y", (1, 1), "float32", "NC")
AFTER = TensorSpec("t", (1, 2), "float32", "NC")


def test_the_state_of_a_file_is_told_by_name() -> None:
    before = TensorSpec("s", (1, 2), "int8", "NC", Quantization(0.5, 7))
    assert state_of((FRAME, before), (SUM, AFTER)) == (StateTensor("s", "t", (1, 2), "int8", 7),)
    assert state_of((FRAME,), (SUM,)) == ()


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ((FRAME,), (SUM,), "1 inputs and 1 outputs"),
        ((FRAME, BEFORE), (SUM,), "2 inputs and 1 outputs"),
        ((FRAME, BEFORE), (SUM, TensorSpec("t", (1, 3), "float32")), "'t', which follows it, \\(1, 3\\)"),
    ],
)
def test_tensors_that_are_no_state_are_named(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], words: str
) -> None:
    problems = state_problems(inputs, outputs)
    assert len(problems) == 1
    assert re.search(words, problems[0])
    assert state_problems((FRAME, BEFORE), (SUM, AFTER)) == []


def test_the_answers_come_before_the_state() -> None:
    more = TensorSpec("z", (1, 3), "float32", "NC")
    assert split_state((FRAME, BEFORE), (SUM, more, AFTER)) == ((SUM, more), (BEFORE,), (AFTER,))
    assert split_state((FRAME,), (SUM, more)) == ((SUM, more), (), ())
