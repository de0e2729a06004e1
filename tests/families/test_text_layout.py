"""The order in which pieces of text are read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgecv.families.text_layout import reading_order

Quads = np.ndarray[Any, Any]


def word(left: float, top: float, width: float = 60, height: float = 20) -> list[list[float]]:
    """A level word."""
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


def turned(quads: Quads, degrees: float) -> Quads:
    """All turned around the page's middle."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    moved: Quads = (quads - 200) @ turn + 200
    return moved


PAGE = np.array(
    [
        word(90, 12), word(10, 10),                       # 0, 1: first line, the second word first
        word(10, 40), word(82, 41),                       # 2, 3: second line
        word(10, 150), word(10, 180, width=90),           # 4, 5: a block below
        word(300, 152), word(300, 181),                   # 6, 7: one beside it
    ],
    dtype=np.float64,
)  # fmt: skip
ORDER = [((1, 0), 0), ((2, 3), 0), ((4,), 1), ((5,), 1), ((6,), 2), ((7,), 2)]


@pytest.mark.parametrize("degrees", [0, 12, -15, 25])
def test_words_lines_and_blocks(degrees: float) -> None:
    assert [(line.rows, line.block) for line in reading_order(turned(PAGE, degrees))] == ORDER


def test_the_order_of_the_findings_does_not_matter() -> None:
    shuffled = np.random.default_rng(0).permutation(len(PAGE))
    found = [(tuple(int(shuffled[row]) for row in line.rows), line.block) for line in reading_order(PAGE[shuffled])]
    assert found == ORDER


def test_columns_far_apart_are_no_line() -> None:
    quads = np.array([word(0, 0), word(300, 0), word(0, 30), word(300, 30)], dtype=np.float64)
    assert [line.rows for line in reading_order(quads)] == [(0,), (2,), (1,), (3,)]


def test_a_headline_is_a_block_of_its_own() -> None:
    quads = np.array([word(0, 60), word(0, 0, width=200, height=50)], dtype=np.float64)
    assert [(line.rows, line.block) for line in reading_order(quads)] == [((1,), 0), ((0,), 1)]


def test_nothing() -> None:
    assert reading_order(np.zeros((0, 4, 2))) == ()
