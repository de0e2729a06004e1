"""The calibration pictures of a run: opened from the manifest or picked as the recipe says, and checked."""

from __future__ import annotations

from edgecv.build.context import Context
from edgecv.core.recipe import CalibrationSpec, Recipe
from edgecv.data.calibration import SubsetReader, open_calibration
from edgecv.data.lint import LintFinding, lint_calibration, refuse
from edgecv.data.readers import LabelledReader
from edgecv.data.selection import Rule, pick
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
    labels, contract = recipe.family.labels, recipe.model.input
    manifest, spec = context.plan.calibration, calibration_spec(recipe)
    reader: LabelledReader
    select: Rule = "stratified"
    if manifest is not None:
        reader = open_calibration(manifest, base=context.plan.base, labels=labels, progress=context.progress)
        select = manifest.select
    elif spec is not None:
        source = context.reader(spec.source)
        count = min(spec.samples, len(source))
        picked = pick(source, labels=labels, samples=count, select=spec.select, seed=spec.seed, contract=contract)
        reader = SubsetReader(source, picked)
        select = spec.select
    else:
        raise ModelError("int8 needs calibration pictures and the recipe names none; set data.calibration")
    findings = lint_calibration(
        reader, context.reader(recipe.data.eval), labels=labels, contract=contract, select=select
    )
    refuse(findings)
    return reader, findings
