"""Pictures of good surfaces, of which some are spoiled: to judge inspection before there are pictures of defects."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec
from edgecv.data.derived import DerivedReader
from edgecv.data.readers import LabelledReader
from edgecv.errors import DataError
from edgecv.families.anomaly_map import AnomalyTruth
from edgecv.vision.textures import DEFECTS, add_defect

__all__ = ["spoil"]

_NOTE = "the defects are painted on; real ones may be harder to find"


def spoil(reader: LabelledReader, spec: DataSpec, *, whole: bool = True) -> LabelledReader:
    """``reader``'s pictures, all of them good, with `AnomalyTruth`; outside of split ``train`` about half are spoiled.

    Which ones, by which of `edgecv.vision.textures.DEFECTS`, and where follows from a picture's id alone, so that a
    part of the set is spoiled as the whole is. Masks are exact; defects grow with the picture. ``whole`` is False for
    a part of a set, which may well be all good.

    Raises:
        DataError: the whole set has no good picture, or none that is spoiled.
    """
    wrong = [None if spec.split == "train" else defect_of(name) for name in reader.ids]
    if whole and spec.split != "train" and len({item is None for item in wrong}) < 2:
        raise DataError(
            f"{spec.path} has {len(wrong)} pictures, and by name {'none' if wrong[0] is None else 'all'} of them "
            "would be spoiled; both good and spoiled ones are needed to judge by: add pictures"
        )

    def sample(index: int) -> Sample:
        plain, kind = reader[index], wrong[index]
        if kind is None:
            return Sample(plain.id, plain.image, AnomalyTruth(False))
        image, mask = add_defect(plain.image, kind, np.random.default_rng(_number(plain.id)))
        return Sample(plain.id, image, AnomalyTruth(True, mask))

    truths: list[Any] = [AnomalyTruth(False) if kind is None else "defect" for kind in wrong]
    notes = () if spec.split == "train" else (_NOTE,)
    return DerivedReader(reader, sample, truths=truths, notes=(*reader.notes, *notes))


def defect_of(name: str) -> str | None:
    """What is wrong with the picture of this id: one of `DEFECTS`, or None."""
    turn, odd = divmod(_number(name), 2)
    return DEFECTS[turn % len(DEFECTS)] if odd else None


def _number(name: str) -> int:
    return zlib.crc32(name.encode(errors="surrogateescape"))
