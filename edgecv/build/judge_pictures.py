"""Pictures of its own for the repair ladder: none that set the scales, none that the accuracy gate looks at.

A ladder that chose its settings on the pictures of the gate would find those that suit these pictures by luck, and
the gate would believe them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgecv.build.calibration import calibration_spec, check, open_pictures
from edgecv.build.context import Context
from edgecv.core.recipe import Recipe
from edgecv.data.files import even_pick
from edgecv.data.lint import MIN_PICTURES, LintFinding
from edgecv.data.readers import LabelledReader
from edgecv.data.selection import truths_of
from edgecv.data.subset import SubsetReader, hashes, spare
from edgecv.errors import DataError

MOST_PICTURES = 1000
"""A rung is judged on an even pick of so many pictures; the compiled file is judged on all of the evaluation set."""
ENOUGH_SPARE = 32
"""With fewer spare pictures than this in a data set, the calibration set gives up some of its own."""
GIVEN_UP = 4
"""One in so many."""
LEAST_JUDGED = 4


@dataclass(frozen=True)
class JudgePictures:
    """What the ladder's rungs are judged on.

    ``labelled`` says that the truths are what the metric takes; else likeness to the float network counts.
    ``origin`` names the data set in words.
    """

    reader: LabelledReader
    labelled: bool
    origin: str

    @property
    def words(self) -> str:
        """Which pictures these are, in one line."""
        return f"{len(self.reader)} pictures of {self.origin}, none of calibration or evaluation"


def open_for_repair(context: Context, recipe: Recipe) -> tuple[LabelledReader, list[LintFinding], JudgePictures]:
    """The calibration pictures, the lint's warnings, and the pictures that the repair ladder is judged on.

    Those are the recipe's validation set; without one, spare pictures of the training set or of the set that
    calibration picks from, with labels before without; where too few are spare, one in four of the calibration
    pictures is taken out of calibration.

    Raises:
        ModelError: the recipe has neither calibration nor training data.
        DataError: the set is not fit to calibrate with, or too small to hold pictures out of; of the validation set
            hardly a picture is left.
        ArtifactError: pictures of a manifest are missing or were changed.
    """
    reader, select = open_pictures(context, recipe)
    evaluation = context.reader(recipe.data.eval)
    # An inspector's training pictures are all good: by their labels no metric of defects can be taken.
    sample = None if recipe.family.kind == "anomaly" else next(iter(truths_of(evaluation)))
    taken = hashes(evaluation) | hashes(reader)
    if (validation := context.validation()) is not None:
        rest = spare(validation, taken)
        if len(rest) < LEAST_JUDGED:
            raise DataError(
                f"of the {len(validation)} pictures of data.validation {len(rest)} are not in the calibration set as "
                f"well, and the repair ladder needs {LEAST_JUDGED}; name other pictures, or a smaller calibration set."
            )
        judge = _judge(validation, rest, "the validation set", sample)
        return reader, check(context, recipe, reader, select), judge
    found: JudgePictures | None = None
    for source, origin in _sources(context, recipe):
        rest = spare(source, taken)
        if len(rest) < ENOUGH_SPARE:
            continue
        made = _judge(source, rest, origin, sample)
        if found is None or (made.labelled and not found.labelled):
            found = made
        if found.labelled:
            break
    if found is None:
        reader, found = _give_up(reader, sample, hashes(evaluation))
    return reader, check(context, recipe, reader, select), found


def _sources(context: Context, recipe: Recipe) -> Iterator[tuple[LabelledReader, str]]:
    """The data sets that may have spare pictures, each opened once."""
    train, manifest, picked = recipe.data.train, context.plan.calibration, calibration_spec(recipe)
    if train is not None:
        yield context.reader(train), "the training set"
    source = manifest.source if manifest is not None else picked.source if picked is not None else None
    if source is not None and source != train:
        yield context.reader(source), "the set that calibration picks from"


def _judge(source: LabelledReader, rest: list[int], origin: str, sample: Any) -> JudgePictures:
    truths = truths_of(source)
    picked = [rest[index] for index in even_pick([truths[index] for index in rest], MOST_PICTURES)]
    labelled = sample is not None and all(type(truths[index]) is type(sample) for index in picked)
    return JudgePictures(SubsetReader(source, picked), labelled, origin)


def _give_up(reader: LabelledReader, sample: Any, judged: set[str]) -> tuple[LabelledReader, JudgePictures]:
    """The calibration set without one in four of its pictures, and these, copies of which stay in neither.

    Raises:
        DataError: too few pictures would be left to calibrate with.
    """
    rest = spare(reader, judged)
    held = rest[GIVEN_UP - 1 :: GIVEN_UP]
    out = {reader.sha256(index) for index in held}
    kept = [index for index in range(len(reader)) if reader.sha256(index) not in out]
    if len(held) < LEAST_JUDGED or len(kept) < MIN_PICTURES:
        raise DataError(
            f"the repair ladder needs pictures of its own, and the calibration set has {len(reader)}: one in "
            f"{GIVEN_UP} is held out, {LEAST_JUDGED} at least, and {MIN_PICTURES} must be left. Raise "
            "data.calibration.samples, name a larger source or data.train, or set repair: off in the quantize step."
        )
    return SubsetReader(reader, kept), _judge(reader, held, "the calibration set, held out of it", sample)
