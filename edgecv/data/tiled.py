"""A data set cut to the network's size: one tile of each picture, for all that feeds a network one input at a time.

Training, calibration and verification take pictures that have the size of the network's input. Where a family works in
tiles, resizing them would show the network another sharpness than it sees in use, so a tile is cut out instead.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.protocols import Sample
from edgecv.core.recipe import FamilySpec
from edgecv.data.derived import DerivedReader
from edgecv.data.readers import LabelledReader
from edgecv.errors import DataError
from edgecv.vision.tiles import Grid, Tiling, cut, grid


def as_inputs(reader: LabelledReader, spec: FamilySpec, contract: InputContract) -> LabelledReader:
    """``reader`` itself, or for a family that works in tiles one tile of each of its pictures."""
    tiling = families.tiling(spec, contract)
    return reader if tiling is None else tiles(reader, tiling)


def tiles(reader: LabelledReader, tiling: Tiling) -> LabelledReader:
    """One tile of the network's size of each picture of ``reader``, with the same part of its reference.

    Which tile follows from the sample's name, so that it is the same each time. Reading a sample raises a `DataError`
    where its reference is not as many times as large as the model enlarges.
    """
    return DerivedReader(reader, lambda index: _tile(reader[index], tiling))


def _tile(sample: Sample, tiling: Tiling) -> Sample:
    plan = grid((sample.image.shape[0], sample.image.shape[1]), tiling)
    chosen = zlib.crc32(sample.id.encode("utf-8", "surrogatepass")) % len(plan)
    return Sample(sample.id, cut(sample.image, plan)[chosen], _part(sample, plan, chosen, tiling))


def _part(sample: Sample, plan: Grid, chosen: int, tiling: Tiling) -> Any:
    truth = sample.truth
    if not isinstance(truth, np.ndarray):
        return truth
    picture = (sample.image.shape[0] * tiling.scale, sample.image.shape[1] * tiling.scale)
    if truth.shape[:2] != picture:
        raise DataError(
            f"{sample.id}: the reference is {truth.shape[:2]} pixels and the picture {sample.image.shape[:2]}; "
            f"with family.options.scale {tiling.scale} it must be {picture}. Set it to what the model enlarges by."
        )
    return cut(truth, plan, times=tiling.scale)[chosen]
