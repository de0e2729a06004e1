"""Made-up surfaces as a data set for inspection: good ones to learn from, good and spoiled ones to judge by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.data.drawn import DrawnReader
from edgecv.data.files import wanted_name
from edgecv.errors import DataError
from edgecv.families.anomaly_map import AnomalyTruth
from edgecv.vision.image import Image
from edgecv.vision.textures import DEFECTS, TEXTURES, add_defect, draw_texture

DEFAULT_SAMPLES = 200
SIZE = (128, 128)
GOOD = "good"
_FIRST = {"train": 0, "test": 1_000_000}


def open_textures(spec: DataSpec, *, labels: Sequence[str] = (), only: frozenset[str] | None = None) -> DrawnReader:
    """Surfaces uint8 `(128, 128, 3)` BGR with ids such as ``wood/scratch/test-00013``; truths are `AnomalyTruth`.

    Split ``train`` has good surfaces only, in split ``test`` every second one has a defect, its mask exact.
    ``spec.only`` picks surfaces by name (woven, wood, metal, tiles, stone), or by a glob; they take turns.
    ``spec.limit`` is
    the number of pictures of each split, 200 where it is not set; ``only`` keeps those with these ids. ``labels`` do
    not matter.

    Raises:
        DataError: no surface has such a name.
    """
    surfaces = [name for name in TEXTURES if spec.only is None or wanted_name(spec.only, name)]
    if not surfaces:
        raise DataError(f"only is {spec.only!r}, and no surface has that name; there are {', '.join(TEXTURES)}")
    count = DEFAULT_SAMPLES if spec.limit is None else spec.limit
    splits = ("train", "test") if spec.split == "all" else (spec.split,)
    names = [_name(split, number, surfaces) for split in splits for number in range(count)]
    kept = [name for name in names if only is None or name in only]
    truths = [AnomalyTruth(False) if f"/{GOOD}/" in name else "defect" for name in kept]
    return DrawnReader(kept, _drawn, truths)


def _name(split: str, number: int, surfaces: Sequence[str]) -> str:
    """A sample's id: surface, what is wrong with it, split and number."""
    wrong = GOOD
    turn, place = divmod(number, len(surfaces))
    if split == "test" and turn % 2:
        wrong = DEFECTS[(turn // 2 + place) % len(DEFECTS)]
    return f"{surfaces[place]}/{wrong}/{split}-{number:05d}"


def _drawn(name: str) -> tuple[Image, AnomalyTruth]:
    surface, wrong, moment = name.split("/")
    split, _, number = moment.partition("-")
    random = np.random.default_rng([TEXTURES.index(surface), _FIRST[split] + int(number)])
    image = draw_texture(surface, random, size=SIZE)
    if wrong == GOOD:
        return image, AnomalyTruth(False)
    spoiled, mask = add_defect(image, wrong, random)
    return spoiled, AnomalyTruth(True, mask)
