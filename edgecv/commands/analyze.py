"""`edgecv analyze`: what each layer loses in int8, what it costs in time, and how a collapse can be mended."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgecv.backends.common import quiet
from edgecv.build.analyze import Analysis, analyze
from edgecv.build.context import Context, Hardware
from edgecv.build.inputs import gather
from edgecv.build.plan import make_plan
from edgecv.build.progress import terminal_progress
from edgecv.build.store import Store, default_root, explained
from edgecv.core.plain import to_plain
from edgecv.core.recipe import Quantize
from edgecv.errors import BudgetError, UsageError
from edgecv.recipe.files import find_recipe
from edgecv.recipe.load import load_recipe
from edgecv.recipe.write_back import set_step_fields
from edgecv.report.schema_io import write_atomic
from edgecv.report.sensitivity import render_sensitivity_html, render_sensitivity_text

JSON, HTML = "sensitivity.json", "sensitivity.html"


def analyze_command(options: argparse.Namespace) -> int:
    """Print the sensitivity table of a recipe, and climb the repair ladder where that is asked for."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if options.write_back and options.repair == "off":
        raise UsageError("--write-back writes what the repair ladder found; add --repair ptq")
    if (Path(options.recipe) / "manifest.json").is_file():
        raise UsageError(
            f"{options.recipe} is an artifact, which has no weights to switch; give the recipe it came from"
        )
    path = find_recipe(options.recipe)
    loaded = load_recipe(path, sets=options.set)
    plan = make_plan(loaded, only=[options.target] if options.target else [], inputs=gather(loaded))
    store = Store(Path(options.cache).absolute() if options.cache else default_root())
    out = Path(options.out) if options.out else Path("runs") / plan.recipe.name
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
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
    plain = {"name": plan.recipe.name, "table": to_plain(found.table), "repair": to_plain(found.repair)}
    write_atomic(out / JSON, json.dumps(plain, indent=1) + "\n")
    write_atomic(out / HTML, render_sensitivity_html(found.table, name=plan.recipe.name))
    if options.json:
        print(json.dumps(plain, indent=1))
    else:
        print(render_sensitivity_text(found.table, name=plan.recipe.name))
        print(*_repair_lines(found), f"\nReport: {out / HTML}", sep="\n")
    if options.write_back and found.repair.settings:
        text = path.read_text(encoding="utf-8")
        write_atomic(path, set_step_fields(text, found.repair.settings, step="quantize", file=str(path)))
    if found.repair is not None and found.repair.outcome == "not-mended":
        raise BudgetError(f"{plan.recipe.name}: no rung of the repair ladder met budgets.accuracy.max_drop")
    return 0


def _repair_lines(found: Analysis) -> list[str]:
    if found.repair is None:
        return []
    lines = ["", f"repair: {found.repair.outcome}"]
    for rung in found.repair.rungs:
        after = "" if rung.after is None else f" {rung.before:.4f} -> {rung.after:.4f},"
        state = "kept" if rung.kept else f"rolled back: {rung.note}"
        lines.append(f"  {rung.rung}: {rung.what};{after} {rung.seconds:.1f} s, {state}")
    settings: dict[str, Any] = found.repair.settings
    known = [item.name for item in fields(Quantize) if item.name in settings]
    return lines + [f"  settings: {', '.join(f'{name}={settings[name]}' for name in known)}" for _ in known[:1]]
