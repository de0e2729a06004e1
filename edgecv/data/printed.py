"""Made-up print as data sets: words to read (scenes-words) and pages to find text in (scenes-text).

Each sample is a function of its name alone: nothing is stored, and another machine with the same OpenCV sees the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.data.drawn import DrawnReader
from edgecv.errors import DataError
from edgecv.families.textdet_result import TextTruth
from edgecv.vision.image import Image
from edgecv.vision.printed import LETTERS, draw_page, draw_word

__all__ = ["open_printed"]

DEFAULT_SAMPLES = 500
_FIRST = {"train": 0, "test": 1_000_000}


def open_printed(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> DrawnReader:
    """``scenes-words``: pictures of one word with its text. ``scenes-text``: pages of 384 x 512 pixels, a `TextTruth`.

    Ids are such as ``train-00042``; ``spec.limit`` is the number of samples of each split, 500 where it is not set;
    ``only`` keeps those with these ids.

    Raises:
        DataError: labels of ``scenes-words`` lack one of the capitals and digits.
    """
    words = spec.kind == "scenes-words"
    missing = [letter for letter in LETTERS if letter not in labels] if words else []
    if missing:
        raise DataError(
            f"data of kind {spec.kind} shows the letters {LETTERS}; the labels lack {', '.join(missing[:5])}"
            f"{f' and {len(missing) - 5} more' if len(missing) > 5 else ''}"
        )
    count = DEFAULT_SAMPLES if spec.limit is None else spec.limit
    splits = ("train", "test") if spec.split == "all" else (spec.split,)
    names = [f"{split}-{number:05d}" for split in splits for number in range(count)]
    if only is not None:
        names = [name for name in names if name in only]
    return DrawnReader(names, _word if words else _page, (spec.kind,) * len(names))


def _random(name: str, kind: int) -> np.random.Generator:
    split, _, number = name.partition("-")
    return np.random.default_rng([_FIRST[split] + int(number), kind])


def _word(name: str) -> tuple[Image, Any]:
    return draw_word(_random(name, 21))


def _page(name: str) -> tuple[Image, Any]:
    page = draw_page(_random(name, 22))
    return page.image, TextTruth.of(page.quads, page.illegible, page.texts)
