"""What every action of the build may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgecv.build.plan import Plan
from edgecv.build.store import Store
from edgecv.core.progress import Progress
from edgecv.core.recipe import DataSpec
from edgecv.data.files import shown_skips
from edgecv.data.kept import kept
from edgecv.data.pieces import Pieces
from edgecv.data.readers import LabelledReader, open_reader
from edgecv.data.subset import SubsetReader, hashes, spare
from edgecv.data.tiled import as_inputs
from edgecv.errors import DataError


@dataclass(frozen=True)
class Hardware:
    """What training may use, in Lightning Fabric's words."""

    accelerator: str = "auto"
    devices: str = "auto"
    nodes: int = 1
    strategy: str = "auto"


NOTES = "notes"
"""Of a step's effect: whole sentences for the report, the same from every step that tells them."""
LEAST_VALIDATION = 4
"""Fewer pictures than this choose by chance."""
KEPT_BYTES = 256_000_000
"""Pictures of the evaluation set that a build keeps in memory: every engine's file is evaluated on them."""


def data_notes(reader: LabelledReader, use: str) -> list[str]:
    """What a report must say of a data set: how it was understood, and what was left out. ``use`` is what it is for."""
    notes = list(reader.notes)
    if reader.skipped:
        count = len(reader.skipped)
        notes.append(f"{count} of {count + len(reader)} samples left out. {shown_skips(reader.skipped)}")
    return [f"{use}: {note}" for note in notes]


def loss_effect(losses: Sequence[float]) -> dict[str, float]:
    """The mean training loss of the first and of the last epoch; nothing where there are not two to compare."""
    if len(losses) < 2:
        return {}
    return {"first_epoch_loss": round(losses[0], 6), "last_epoch_loss": round(losses[-1], 6)}


@dataclass(frozen=True)
class Context:
    """The plan, where finished steps are kept, where progress and third-party output go."""

    plan: Plan
    store: Store
    progress: Progress
    log: Path
    hardware: Hardware

    def reader(self, spec: DataSpec) -> LabelledReader:
        """A data set of the recipe; of a family that works in tiles, one tile of each picture."""
        recipe = self.plan.recipe
        return as_inputs(self.pictures(spec), recipe.family, recipe.model.input)

    def validation(self) -> LabelledReader | None:
        """The recipe's validation set without pictures of its evaluation set, by which nothing may be chosen.

        Raises:
            DataError: hardly any picture is left.
        """
        data = self.plan.recipe.data
        if data.validation is None:
            return None
        reader = self.reader(data.validation)
        rest = spare(reader, hashes(self.reader(data.eval)))
        if len(rest) < LEAST_VALIDATION:
            raise DataError(
                f"data.validation has {len(reader)} pictures, and {len(rest)} of them are neither copies nor in "
                f"data.eval; {LEAST_VALIDATION} are needed. Name other pictures, or remove data.validation: then "
                "pictures of data.train are held out."
            )
        return SubsetReader(reader, rest)

    def unlabelled(self) -> LabelledReader | None:
        """The recipe's pictures without labels, or their pieces, but none of its evaluation and validation sets.

        Raises:
            DataError: no picture is left.
        """
        data = self.plan.recipe.data
        if data.unlabelled is None:
            return None
        reader = self.reader(data.unlabelled)
        judges = [self.reader(spec) for spec in (data.eval, data.validation) if spec is not None]
        rest = spare(reader, set().union(*(hashes(judge) for judge in judges)))
        if not rest:
            raise DataError(
                f"all {len(reader)} pictures of data.unlabelled are in data.eval or data.validation, by which the "
                "network is judged. Name other pictures, or remove data.unlabelled."
            )
        others = SubsetReader(reader, rest)
        return others if data.unlabelled.pieces is None else Pieces(others, data.unlabelled.pieces)

    def pictures(self, spec: DataSpec) -> LabelledReader:
        """A data set of the recipe, its pictures whole: what the task metric is taken on."""
        if spec != self.plan.recipe.data.eval:
            return self._open(spec)
        return self._evaluation

    @cached_property
    def _evaluation(self) -> LabelledReader:
        return kept(self._open(self.plan.recipe.data.eval), limit_bytes=KEPT_BYTES)

    def _open(self, spec: DataSpec) -> LabelledReader:
        recipe = self.plan.recipe
        return open_reader(
            spec,
            base=self.plan.base,
            labels=recipe.family.labels,
            progress=self.progress,
            clip=recipe.model.input.clip,
        )
