"""Where text stands in a picture, what it says where a second stage read it, and the truth it is held against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.results import Placement, Shapes
from edgecv.core.tensor import FloatArray
from edgecv.families.text_layout import Line, reading_order
from edgecv.vision.draw import Brief, color_of, put_text
from edgecv.vision.image import Image
from edgecv.vision.polygons import cut_quad, iou, longer, reading_quad, tight_quad

__all__ = ["TextRegions", "TextTruth", "pairs"]

SAME_IOU = 0.5
_LEAST_LEFT = 0.3
_ENDS = 0.12
"""A piece is cut out longer by this share of its height: a coarse map loses the ends of the first and last letter."""

Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class TextTruth:
    """The true pieces of text of one picture.

    ``polygons`` are x, y in pixels of the picture, at least three corners each; ``ignored`` marks those that count
    neither as found nor as missed (illegible, or another script); ``texts`` says what they say where that is known.
    ``size`` (height, width) of the picture is there in training alone.
    """

    polygons: tuple[Polygon, ...]
    ignored: tuple[bool, ...]
    texts: tuple[str, ...] = ()
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len(self.ignored) != len(self.polygons) or len(self.texts) not in (0, len(self.polygons)):
            raise ValueError(
                f"{len(self.polygons)} polygons, {len(self.ignored)} marks and {len(self.texts)} texts; "
                "as many of each are needed"
            )

    @staticmethod
    def of(quads: npt.NDArray[Any], ignored: npt.NDArray[Any], texts: tuple[str, ...] = ()) -> TextTruth:
        """From corners `(N, K, 2)` and marks `(N,)`."""
        polygons = tuple(tuple((float(x), float(y)) for x, y in quad) for quad in quads)
        return TextTruth(polygons, tuple(bool(mark) for mark in ignored), texts)

    def placed(self, place: Placement, size: tuple[int, int]) -> TextTruth:
        """The same in pixels of the network's input of ``size`` (height, width), where ``place`` puts the picture.

        What lies outside is gone; what is cut off for the most part is ignored.
        """
        moved = [np.asarray(place.to_network(np.array(polygon))) for polygon in self.polygons]
        return self._inside(moved, size)

    def shapes(self) -> Shapes:
        """The corners of all pieces, to be moved with their picture."""
        corners = [corner for polygon in self.polygons for corner in polygon]
        return Shapes(np.zeros((0, 4), dtype=np.float32), np.array(corners, dtype=np.float32).reshape(-1, 2))

    def with_shapes(self, shapes: Shapes, *, size: tuple[int, int], mirrored: bool) -> TextTruth:
        """The same with other corners in a picture of ``size``, cut as `placed` does."""
        ends = np.cumsum([len(polygon) for polygon in self.polygons])
        return self._inside(np.split(shapes.points, ends[:-1]) if len(ends) else [], size)

    def _inside(self, polygons: list[npt.NDArray[Any]], size: tuple[int, int]) -> TextTruth:
        rows, marks = [], []
        for row, polygon in enumerate(polygons):
            low, high = polygon.min(axis=0), polygon.max(axis=0)
            cut = np.clip(high, 0, size[::-1]) - np.clip(low, 0, size[::-1])
            left = float(np.prod(cut / np.maximum(high - low, 1e-9)))
            if left > 0:
                rows.append(row)
                marks.append(self.ignored[row] or left < _LEAST_LEFT)
        kept = tuple(tuple((float(x), float(y)) for x, y in polygons[row]) for row in rows)
        texts = tuple(self.texts[row] for row in rows) if self.texts else ()
        return TextTruth(kept, tuple(marks), texts, size)


@dataclass(frozen=True)
class TextRegions:
    """The pieces of text of one picture.

    ``polygons`` are `(K, 2)` float32 each, x, y in pixels of the picture: quadrilaterals from the top left corner of
    the text on, clockwise, or outlines of any number of corners. ``scores`` `(N,)` float32 0..1. ``second`` holds what
    a second stage read in each (None: it did not look); () without a second stage.
    """

    polygons: tuple[FloatArray, ...]
    scores: FloatArray
    second: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.polygons) or len(self.second) not in (0, len(self.polygons)):
            raise ValueError(
                f"{len(self.polygons)} polygons, {len(self.scores)} scores, {len(self.second)} readings; "
                "as many of each are needed"
            )

    def __len__(self) -> int:
        return len(self.polygons)

    @cached_property
    def quads(self) -> FloatArray:
        """The quadrilateral of each piece `(N, 4, 2)`: itself, or the smallest turned rectangle around an outline."""
        found = [reading_quad(item) if len(item) == 4 else tight_quad(item) for item in self.polygons]
        return np.array(found, dtype=np.float32).reshape(-1, 4, 2)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The pieces as lines in the order in which they are read; each knows its block (paragraph)."""
        return reading_order(self.quads)

    @property
    def text(self) -> str:
        """What was read: words of a line with spaces between, a new line for each, an empty one between blocks."""
        if not self.second:
            return ""
        out: list[str] = []
        for before, line in zip((None, *self.lines), self.lines, strict=False):
            if before is not None and before.block != line.block:
                out.append("")
            out.append(" ".join(filter(None, (self._brief(row) for row in line.rows))))
        return "\n".join(out)

    def cut(self, image: Image, row: int, *, margin: float) -> Image | None:
        """Piece ``row`` of ``image`` seen upright, for a second stage; None where nothing can be cut out."""
        return cut_quad(image, longer(self.quads[row], _ENDS), margin=margin)

    def answered(self, answers: tuple[Any, ...]) -> TextRegions:
        """The same with what a second stage said of each piece (None: nothing)."""
        return replace(self, second=answers)

    def likeness(self, other: TextRegions) -> float:
        """The share 0..1 of the pieces of both that have a partner of IoU 0.5 in the other; 1 where both have none."""
        total = len(self) + len(other)
        return 2 * len(pairs(self.polygons, other.polygons)) / total if total else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``regions`` (polygon, score, second), ``lines`` (block and rows of the regions, in

        reading order) and, where they were read, their ``text``.
        """
        regions: list[dict[str, Any]] = []
        for row, polygon in enumerate(self.polygons):
            item: dict[str, Any] = {
                "polygon": polygon.astype(np.float64).round(2).tolist(),
                "score": round(float(self.scores[row]), 5),
            }
            if self.second and self.second[row] is not None:
                item["second"] = self.second[row].to_dict()
            regions.append(item)
        found: dict[str, Any] = {
            "regions": regions,
            "lines": [{"block": line.block, "regions": list(line.rows)} for line in self.lines],
        }
        return found | ({"text": self.text} if self.second else {})

    def words(self) -> str:
        """The text where it was read, lines parted by " / "; else how many pieces there are, in how many lines."""
        if self.second:
            return self.text.replace("\n\n", " // ").replace("\n", " / ") or "no text"
        plural = "s" if len(self.lines) != 1 else ""
        scores = ", ".join(f"{score:.2f}" for score in self.scores)
        return (
            f"text in {len(self)} places on {len(self.lines)} line{plural}, scores {scores}" if len(self) else "no text"
        )

    def draw(self, image: Image, scale: float) -> None:
        """Draw the outlines into ``image``, a colour for each block, and what was read above each."""
        thick = max(1, round(1.5 * scale))
        for line in self.lines:
            color = color_of(line.block)
            for row in line.rows:
                outline = np.round(self.polygons[row] * 16 - 8).astype(np.int32).reshape(-1, 1, 2)
                cv2.polylines(image, [outline], True, color, thick, cv2.LINE_AA, 4)
                words = self._brief(row) if self.second else f"{self.scores[row]:.2f}"
                if words:
                    corner = self.quads[row][0]
                    put_text(image, words, (round(float(corner[0])), round(float(corner[1])) - 3), scale * 0.8, color)

    def _brief(self, row: int) -> str:
        said = self.second[row] if self.second else None
        return said.brief() if isinstance(said, Brief) else ""


def pairs(
    one: tuple[FloatArray, ...] | list[FloatArray], other: tuple[FloatArray, ...] | list[FloatArray]
) -> list[tuple[int, int]]:
    """Rows of polygons that have more than half of their union in common; each is in one pair at most.

    In the order of ``one``, the first fitting ``other`` is taken, as ICDAR's evaluation does.
    """
    found: list[tuple[int, int]] = []
    free = list(range(len(other)))
    for row, polygon in enumerate(one):
        partner = next((item for item in free if iou(polygon, other[item]) > SAME_IOU), None)
        if partner is not None:
            free.remove(partner)
            found.append((row, partner))
    return found
