"""The calibration pictures of a run: opened from the manifest or picked as the recipe says, and checked."""

from __future__ import annotations

from edgecv.build.context import Context
from edgecv.core.recipe import CalibrationSpec, Recipe
from edgecv.data.calibration import open_calibration
from edgecv.data.lint import LintFinding, lint_calibration, refuse
from edgecv.data.readers import LabelledReader
from edgecv.data.selection import Rule, pick
from edgecv.data.subset import SubsetReader
from edgecv.data.tiled import as_inputs
from edgecv.errors import ModelError


def calibration_spec(recipe: Recipe) -> CalibrationSpec | None:
    """The selection that is made at build time; None where the recipe names a manifest or cannot calibrate."""
    named = recipe.data.calibration
    if isinstance(named, CalibrationSpec):
        return named
    if named is None and recipe.data.train is not None:
        return CalibrationSpec(recipe.data.train)
    return None


def open_checked(context: Context, recipe: Recipe) -> tuple[LabelledReader, list[LintFinding]]:
    """The calibration pictures and the lint's warnings.

    Raises:
        ModelError: the recipe has neither calibration nor training data.
        DataError: the set is not fit to calibrate with.
        ArtifactError: pictures of a manifest are missing or were changed.
    """
    reader, select = open_pictures(context, recipe)
    return reader, check(context, recipe, reader, select)


def open_pictures(context: Context, recipe: Recipe) -> tuple[LabelledReader, Rule]:
    """The calibration pictures as the recipe names them, unchecked, and the rule that they were picked by.

    Raises:
        ModelError: the recipe has neither calibration nor training data.
        DataError: the data set cannot be used.
        ArtifactError: pictures of a manifest are missing or were changed.
    """
    labels, contract = recipe.family.labels, recipe.model.input
    manifest, spec = context.plan.calibration, calibration_spec(recipe)
    if manifest is not None:
        found = open_calibration(
            manifest, base=context.plan.base, labels=labels, progress=context.progress, clip=contract.clip
        )
        return as_inputs(found, recipe.family, contract), manifest.select
    if spec is None:
        raise ModelError("int8 needs calibration pictures and the recipe names none; set data.calibration")
    source = context.reader(spec.source)
    count = min(spec.samples, len(source))
    picked = pick(source, labels=labels, samples=count, select=spec.select, seed=spec.seed, contract=contract)
    return SubsetReader(source, picked), spec.select


def check(context: Context, recipe: Recipe, reader: LabelledReader, select: Rule) -> list[LintFinding]:
    """The lint's warnings on a calibration set that was picked by the rule ``select``.

    Raises:
        DataError: the set is not fit to calibrate with.
    """
    findings = lint_calibration(
        reader,
        context.reader(recipe.data.eval),
        labels=recipe.family.labels,
        contract=recipe.model.input,
        select=select,
    )
    refuse(findings)
    return findings
