"""The order in which pieces of text are read: words to lines, lines to blocks (paragraphs)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Line", "reading_order"]

Floats = npt.NDArray[np.float64]

_SAME_LINE = 0.5
"""Two pieces are on one line where their heights overlap by so much of the smaller one ..."""
_WORD_GAP = 2.0
"""... the gap between them is at most so many heights ..."""
_SAME_HEIGHT = 2.0
"""... and neither is more than so many times as high as the other."""
_LINE_GAP = 1.2
"""Lines are in one block where the gap between them is at most so many heights, and they overlap along the line."""


@dataclass(frozen=True)
class Line:
    """``rows`` of the pieces on one line, in reading order, and the number of its ``block``, from 0."""

    rows: tuple[int, ...]
    block: int


@dataclass(frozen=True)
class _Span:
    """Where some pieces lie in upright coordinates, ``height`` being that of a letter."""

    rows: tuple[int, ...]
    left: float
    top: float
    right: float
    bottom: float
    height: float


def reading_order(quads: npt.NDArray[Any]) -> tuple[Line, ...]:
    """Lines of the quadrilaterals `(N, 4, 2)` (from the top left corner on, clockwise), each read from left to right.

    The page is first turned upright by the median direction of its pieces, wide ones counting more. Blocks are read
    from top to bottom; of blocks beside each other the left one first.
    """
    if len(quads) == 0:
        return ()
    spans = _upright(np.asarray(quads, dtype=np.float64))
    lines = [_together(group) for group in _groups(spans, _on_one_line)]
    blocks = [_Block(_together(group), group) for group in _groups(lines, _in_one_block)]
    found: list[Line] = []
    for number, block in enumerate(_sorted_blocks(blocks)):
        lines = sorted(block.lines, key=lambda item: item.top + item.bottom)
        found += [Line(tuple(sorted(line.rows, key=lambda row: spans[row].left)), number) for line in lines]
    return tuple(found)


@dataclass(frozen=True)
class _Block:
    span: _Span
    lines: list[_Span]


def _upright(quads: Floats) -> list[_Span]:
    along = (quads[:, 1] + quads[:, 2] - quads[:, 0] - quads[:, 3]) / 2
    widths = np.linalg.norm(along, axis=1)
    angles = np.arctan2(along[:, 1], along[:, 0])
    order = np.argsort(angles)
    shares = np.cumsum(widths[order])
    angle = float(angles[order][np.searchsorted(shares, shares[-1] / 2)])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = quads @ turn
    heights = np.linalg.norm(quads[:, 3] + quads[:, 2] - quads[:, 0] - quads[:, 1], axis=1) / 2
    spans = []
    for row, quad in enumerate(turned):
        # Of a piece that is not quite level its middle counts: its corners would reach into other lines.
        middle, half = float(quad[:, 1].mean()), float(heights[row]) / 2
        spans.append(
            _Span(
                (row,),
                float(quad[:, 0].min()),
                middle - half,
                float(quad[:, 0].max()),
                middle + half,
                float(heights[row]),
            )
        )
    return spans


def _on_one_line(one: _Span, other: _Span) -> bool:
    small, large = sorted((one.height, other.height))
    common = min(one.bottom, other.bottom) - max(one.top, other.top)
    gap = max(one.left, other.left) - min(one.right, other.right)
    return common >= _SAME_LINE * small and gap <= _WORD_GAP * large and large <= _SAME_HEIGHT * max(small, 1e-9)


def _in_one_block(one: _Span, other: _Span) -> bool:
    small, large = sorted((one.height, other.height))
    gap = max(one.top, other.top) - min(one.bottom, other.bottom)
    beside = max(one.left, other.left) - min(one.right, other.right)
    return beside < 0 and gap <= _LINE_GAP * small and large <= _SAME_HEIGHT * max(small, 1e-9)


def _groups(spans: list[_Span], near: Callable[[_Span, _Span], bool]) -> list[list[_Span]]:
    """Spans that are near each other, straight or by way of others."""
    left, found = list(spans), []
    while left:
        group, waiting = [], [left.pop(0)]
        while waiting:
            one = waiting.pop()
            group.append(one)
            hits = [other for other in left if near(one, other)]
            left = [other for other in left if other not in hits]
            waiting += hits
        found.append(group)
    return found


def _together(spans: list[_Span]) -> _Span:
    return _Span(
        tuple(row for span in spans for row in span.rows),
        min(span.left for span in spans),
        min(span.top for span in spans),
        max(span.right for span in spans),
        max(span.bottom for span in spans),
        float(np.median([span.height for span in spans])),
    )


def _sorted_blocks(blocks: list[_Block]) -> list[_Block]:
    """From top to bottom; blocks that start before the highest one ends are beside it, and the left one is first."""
    waiting, found = sorted(blocks, key=lambda block: block.span.top), []
    while waiting:
        end = (waiting[0].span.top + waiting[0].span.bottom) / 2
        row = [block for block in waiting if block.span.top < end]
        found += sorted(row, key=lambda block: block.span.left)
        waiting = [block for block in waiting if block.span.top >= end]
    return found
