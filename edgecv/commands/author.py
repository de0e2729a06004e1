"""`edgecv init` and `edgecv calibrate`: the files that a user starts from."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgecv.build.progress import terminal_progress
from edgecv.core.recipe import CalibrationSpec
from edgecv.data.calibration import calibrate as pick_set
from edgecv.errors import UsageError
from edgecv.recipe.files import find_recipe
from edgecv.recipe.load import load_recipe
from edgecv.recipe.starter import starter_recipe
from edgecv.recipe.yaml_lines import parse_yaml
from edgecv.report.schema_io import write_atomic


def init(options: argparse.Namespace) -> int:
    """Write a commented recipe for the model that the user names."""
    text = starter_recipe(options.source, name=options.name, family=options.family)
    name = parse_yaml(text, file=options.source).value["name"]
    if options.out == "-":
        print(text, end="")
        return 0
    path = Path(options.out or f"{name}.yaml")
    if path.exists() and not options.force:
        raise UsageError(f"{path} exists; choose another file with --out, or replace it with --force")
    write_atomic(path, text)
    print(f"{path} is written. Fill in the lines marked EDIT, then run: edgecv optimize {path}")
    return 0


def calibrate(options: argparse.Namespace) -> int:
    """Pick pictures from the recipe's training set and write their manifest."""
    loaded = load_recipe(find_recipe(options.recipe), sets=options.set)
    recipe, out = loaded.recipe, Path(options.out)
    named = recipe.data.calibration
    source = named.source if isinstance(named, CalibrationSpec) else recipe.data.train
    if source is None:
        raise UsageError(f"{loaded.path} has no data.train to pick from; name one, or data.calibration with a source")
    with terminal_progress() as progress:
        manifest, findings = pick_set(
            source,
            base=loaded.base,
            labels=recipe.family.labels,
            contract=recipe.model.input,
            samples=options.samples,
            select=options.select,
            seed=options.seed,
            name=out.stem,
            licence=options.licence,
            out=out,
            evaluation=recipe.data.eval,
            force=options.force,
            progress=progress,
        )
    for finding in findings:
        print(f"{finding.level}: {finding.code}: {finding.message}", file=sys.stderr)
    classes = len(manifest.coverage)
    print(f"{out}: {len(manifest.files)} pictures of {classes} classes, {manifest.select}, seed {manifest.seed}")
    return 0
