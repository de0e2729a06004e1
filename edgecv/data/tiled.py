"""A data set cut to the network's size: one tile of each picture, for all that feeds a network one input at a time.

Training, calibration and verification take pictures that have the size of the network's input. Where a family works in
tiles, resizing them would show the network another sharpness than it sees in use, so a tile is cut out instead.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.protocols import Sample
from edgecv.core.recipe import FamilySpec
from edgecv.data.readers import LabelledReader
from edgecv.errors import DataError
from edgecv.vision.tiles import Grid, Tiling, cut, grid


def as_inputs(reader: LabelledReader, spec: FamilySpec, contract: InputContract) -> LabelledReader:
    """``reader`` itself, or for a family that works in tiles one tile of each of its pictures."""
    tiling = families.tiling(spec, contract)
    return reader if tiling is None else TileReader(reader, tiling)


class TileReader:
    """A `Reader` that gives one tile of each picture of another one, with the same part of its reference.

    Which tile follows from the sample's name, so that it is the same each time. Names and hashes are the pictures'.
    """

    def __init__(self, reader: LabelledReader, tiling: Tiling) -> None:
        self._reader, self._tiling = reader, tiling
        self.ids: Sequence[str] = reader.ids
        self.truths: Sequence[Any] = reader.truths
        self.skipped: Mapping[str, str] = reader.skipped
        self.notes = reader.notes

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``: a tile of the network's size, and its part of the truth where that is a picture.

        Raises:
            DataError: the picture cannot be read, or its truth is not as many times as large as the model enlarges.
        """
        sample = self._reader[index]
        plan = grid((sample.image.shape[0], sample.image.shape[1]), self._tiling)
        chosen = zlib.crc32(sample.id.encode("utf-8", "surrogatepass")) % len(plan)
        return Sample(sample.id, cut(sample.image, plan)[chosen], self._part(sample, plan, chosen))

    def _part(self, sample: Sample, plan: Grid, chosen: int) -> Any:
        truth, tiling = sample.truth, self._tiling
        if not isinstance(truth, np.ndarray):
            return truth
        picture = (sample.image.shape[0] * tiling.scale, sample.image.shape[1] * tiling.scale)
        if truth.shape[:2] != picture:
            raise DataError(
                f"{sample.id}: the reference is {truth.shape[:2]} pixels and the picture {sample.image.shape[:2]}; "
                f"with family.options.scale {tiling.scale} it must be {picture}. Set it to what the model enlarges by."
            )
        return cut(truth, plan, times=tiling.scale)[chosen]

    def sha256(self, index: int) -> str:
        """Hash of the whole picture of sample ``index``."""
        return self._reader.sha256(index)

    def fingerprint(self) -> str:
        """Hash over the pictures and truths that the tiles are of."""
        return self._reader.fingerprint()
