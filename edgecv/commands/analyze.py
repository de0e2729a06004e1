"""`edgecv analyze`: what each layer loses in int8, what it costs in time, and how a collapse can be mended."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgecv.backends.common import quiet
from edgecv.build.analyze import Analysis, analyze
from edgecv.build.analyze_file import NOTE, analyze_file, readable_artifact
from edgecv.build.context import Context, Hardware
from edgecv.build.inputs import gather
from edgecv.build.plan import make_plan
from edgecv.build.progress import terminal_progress
from edgecv.build.store import Store, default_root, explained
from edgecv.core.artifact import MANIFEST, Manifest, read_manifest
from edgecv.core.plain import to_plain
from edgecv.core.recipe import Quantize
from edgecv.errors import BudgetError, RecipeError, UsageError
from edgecv.recipe.files import find_recipe, list_recipes
from edgecv.recipe.load import load_recipe
from edgecv.recipe.write_back import set_step_fields
from edgecv.report.schema_io import write_atomic
from edgecv.report.sensitivity import render_sensitivity_html, render_sensitivity_text

JSON, HTML = "sensitivity.json", "sensitivity.html"


def analyze_command(options: argparse.Namespace) -> int:
    """Print the sensitivity table of a recipe or an artifact, and climb the repair ladder where that is asked for.

    Of an artifact the recipe that it was built from is looked for; without it the artifact's own file is read.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if options.write_back and options.repair == "off":
        raise UsageError("--write-back writes what the repair ladder found; add --repair ptq")
    folder = Path(options.recipe)
    if not (folder / MANIFEST).is_file():
        if options.from_recipe is not None:
            raise UsageError(f"--recipe says where an artifact came from, and {folder} is no artifact; leave it out")
        return _of_recipe(find_recipe(options.recipe), options, options.target)
    manifest = read_manifest(folder)
    path = _recipe_of(folder, manifest, options)
    if path is not None:
        print(f"{folder} was built from {path}", file=sys.stderr)
        return _of_recipe(path, options, options.target or manifest.target)
    return _of_file(folder, manifest, options)


def _of_recipe(path: Path, options: argparse.Namespace, target: str | None) -> int:
    loaded = load_recipe(path, sets=options.set)
    plan = make_plan(loaded, only=[target] if target else [], inputs=gather(loaded))
    store = Store(Path(options.cache).absolute() if options.cache else default_root())
    out = _out(options, plan.recipe.name)
    with terminal_progress() as progress:
        context = Context(plan, store, progress, out / "edgecv.log", Hardware())
        with quiet(context.log):
            found = analyze(
                context,
                plan.targets[0],
                pictures=options.pictures,
                scored=options.score,
                repair_with=options.repair,
                timed=not options.no_times,
            )
    _show(found, plan.recipe.name, out, options)
    if options.write_back and found.repair.settings:
        text = path.read_text(encoding="utf-8")
        write_atomic(path, set_step_fields(text, found.repair.settings, step="quantize", file=str(path)))
    if found.repair is not None and found.repair.outcome == "not-mended":
        raise BudgetError(f"{plan.recipe.name}: no rung of the repair ladder met budgets.accuracy.max_drop")
    return 0


def _of_file(folder: Path, manifest: Manifest, options: argparse.Namespace) -> int:
    """The table out of the artifact itself, or of one beside it with the same int8 graph."""
    needs = {"--repair": options.repair != "off", "--score": options.score > 0, "--set": bool(options.set)}
    for name, given in needs.items():
        if given:
            raise UsageError(
                f"{name} needs the recipe that {folder} was built from, and no file here has its hash "
                f"({manifest.chain.recipe[:12] or 'none recorded'}); name it with --recipe FILE"
            )
    chosen = readable_artifact(folder)
    if chosen != folder:
        print(f"{folder} cannot be taken apart; {chosen} is of the same int8 graph", file=sys.stderr)
    out = _out(options, manifest.name)
    with terminal_progress() as progress, quiet(out / "edgecv.log"):
        table = analyze_file(chosen, progress=progress)
    _show(Analysis(table), f"{manifest.name} {manifest.target}", out, options, note=NOTE)
    return 0


def _out(options: argparse.Namespace, name: str) -> Path:
    out = Path(options.out) if options.out else Path("runs") / name
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    return out


def _recipe_of(folder: Path, manifest: Manifest, options: argparse.Namespace) -> Path | None:
    """The recipe that an artifact was built from: the named one, or one of the same hash.

    Looked at are the ready recipe of its name and the recipes here, beside the artifact and one folder up. None where
    it is none of these.
    """
    if options.from_recipe is not None:
        path = find_recipe(options.from_recipe)
        if load_recipe(path, sets=options.set, check_files=False).sha256 != manifest.chain.recipe:
            print(f"{path} is not as it was when {folder} was built; the table is of the recipe", file=sys.stderr)
        return path
    ready = list_recipes().get(manifest.name)
    above = folder.absolute().parent
    places = dict.fromkeys((Path.cwd(), above, above.parent))
    for path in (*([ready] if ready else []), *(item for place in places for item in sorted(place.glob("*.yaml")))):
        if _hash_of(path, options) == manifest.chain.recipe:
            return path
    return None


def _hash_of(path: Path, options: argparse.Namespace) -> str | None:
    """The hash of a recipe; None for another YAML file."""
    try:
        return load_recipe(path, sets=options.set, check_files=False).sha256
    except RecipeError:
        return None


def _show(found: Analysis, name: str, out: Path, options: argparse.Namespace, *, note: str = "") -> None:
    """The table on the terminal, and as JSON and HTML in ``out``."""
    plain = {"name": name, "table": to_plain(found.table), "repair": to_plain(found.repair)}
    plain |= {"judged_on": found.judged_on, "note": note}
    write_atomic(out / JSON, json.dumps(plain, indent=1) + "\n")
    write_atomic(out / HTML, render_sensitivity_html(found.table, name=name, note=note))
    if options.json:
        print(json.dumps(plain, indent=1))
    else:
        print(render_sensitivity_text(found.table, name=name, note=note))
        print(*_repair_lines(found), f"\nReport: {out / HTML}", sep="\n")


def _repair_lines(found: Analysis) -> list[str]:
    if found.repair is None:
        return []
    lines = ["", f"repair: {found.repair.outcome}; judged on {found.judged_on}"]
    for rung in found.repair.rungs:
        after = "" if rung.after is None else f" {rung.before:.4f} -> {rung.after:.4f},"
        state = "kept" if rung.kept else f"rolled back: {rung.note}"
        lines.append(f"  {rung.rung}: {rung.what};{after} {rung.seconds:.1f} s, {state}")
    settings: dict[str, Any] = found.repair.settings
    known = [item.name for item in fields(Quantize) if item.name in settings]
    return lines + [f"  settings: {', '.join(f'{name}={settings[name]}' for name in known)}" for _ in known[:1]]
