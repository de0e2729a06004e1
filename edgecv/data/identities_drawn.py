"""Made-up identities as a data set: pictures of plaques, drawn when they are asked for."""

from __future__ import annotations

from functools import partial

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.data.drawn import DrawnReader
from edgecv.vision.image import Image
from edgecv.vision.plaques import plaque_view

DEFAULT_SAMPLES = 500
IDENTITIES = {"train": 150, "test": 50}
"""How many plaques there are; those of the test set are none of the training set's."""
_FIRST = {"train": 0, "test": 1_000_000}


def open_drawn_identities(spec: DataSpec, *, only: frozenset[str] | None = None) -> DrawnReader:
    """Pictures uint8 `(64, 64, 3)` BGR with ids such as ``plaque-007/train-00107``; truths are numbers of plaques.

    ``spec.limit`` is the number of pictures of each split, 500 where it is not set; the plaques of a split take turns.
    ``only`` keeps the samples with these ids.
    """
    count = DEFAULT_SAMPLES if spec.limit is None else spec.limit
    splits = ("train", "test") if spec.split == "all" else (spec.split,)
    truths = {
        f"plaque-{number % IDENTITIES[split]:03d}/{split}-{number:05d}": _FIRST[split] + number % IDENTITIES[split]
        for split in splits
        for number in range(count)
    }
    kept = {name: truth for name, truth in truths.items() if only is None or name in only}
    return DrawnReader(list(kept), partial(_drawn, kept), list(kept.values()))


def _drawn(truths: dict[str, int], name: str) -> tuple[Image, int]:
    split, _, number = name.rpartition("/")[2].partition("-")
    random = np.random.default_rng([_FIRST[split] + int(number), 37])
    return plaque_view(truths[name], random), truths[name]
