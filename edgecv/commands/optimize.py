"""`edgecv optimize`: the plan, the run, the report."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from edgecv.build.context import Context, Hardware
from edgecv.build.figures import exit_code, make_report
from edgecv.build.follow import follow, rank
from edgecv.build.inputs import gather
from edgecv.build.plan import Plan, make_plan
from edgecv.build.progress import terminal_progress
from edgecv.build.publish import result_hash
from edgecv.build.runner import run_plan
from edgecv.build.store import Store, default_root
from edgecv.core.progress import SilentProgress
from edgecv.errors import UsageError
from edgecv.recipe.files import find_recipe
from edgecv.recipe.load import load_recipe
from edgecv.report.render import render_all
from edgecv.report.schema_io import to_json
from edgecv.report.text import render_text

MOST_JOBS = 2
"""Two engines have a compiler that is slow enough: LiteRT and Core ML."""


def optimize(options: argparse.Namespace) -> int:
    """Run a recipe, or print what would be done."""
    started_s = time.perf_counter()
    # Threads of torch that wait for work must sleep, not spin: on a machine that does other work as well, spinning
    # made training seven times slower. Read once, when the first library with OpenMP is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    jobs = _jobs(options.jobs)
    loaded = load_recipe(find_recipe(options.recipe), sets=options.set)
    plan = make_plan(loaded, only=options.target, inputs=gather(loaded))
    store = Store(Path(options.cache).absolute() if options.cache else default_root())
    if options.dry_run:
        print(json.dumps(plan_values(plan, store), indent=2) if options.json else plan_text(plan, store))
        return 0
    out = Path(options.out) if options.out else Path("runs") / plan.recipe.name
    hardware = Hardware(options.accelerator, options.devices, options.nodes, options.strategy)
    if rank() > 0:
        follow(Context(plan, store, SilentProgress(), Path(os.devnull), hardware))
        return 0
    with terminal_progress() as progress:
        run = run_plan(plan, store=store, out=out, progress=progress, hardware=hardware, started_s=started_s, jobs=jobs)
        report = make_report(run)
        render_all(report, out)
        code = exit_code(run, report)
    if options.json:
        print(to_json(report), end="")
    else:
        print(render_text(report))
        print(f"\nReport: {out / 'report.html'}   Artifacts: {out}/<target>   Log: {out / 'edgecv.log'}")
        names = [target.target.name for target in plan.targets]
        print(f"Result: {result_hash(out, names)[:16]}   {run.seconds:.1f} s   exit code {code}")
    sys.stdout.flush()
    return code


def _jobs(wanted: str | None) -> int:
    """How many processes compile beside the run: as asked for, or two where there are two cores."""
    text = os.environ.get("EDGECV_JOBS", "auto") if wanted is None else wanted
    if text == "auto":
        return MOST_JOBS if (os.cpu_count() or 1) >= MOST_JOBS else 0
    if not text.isdecimal():
        raise UsageError(f"jobs is {text!r}; allowed: auto, or how many processes compile beside the run (0: none)")
    return int(text)


def plan_values(plan: Plan, store: Store) -> dict[str, Any]:
    """The resolved plan as plain values."""
    return {
        "name": plan.recipe.name,
        "recipe_sha256": plan.recipe_sha256,
        "targets": [
            {
                "name": item.target.name,
                "backend": item.target.backend,
                "precision": item.optimized.precision,
                "steps": [step.key for step in item.steps],
                "deferred": item.optimized.evaluate is None,
            }
            for item in plan.targets
        ],
        "steps": [
            {
                "kind": step.kind,
                "title": step.title,
                "key": step.key,
                "inputs": list(step.inputs),
                "cached": store.record(step.key) is not None,
            }
            for step in plan.steps
        ],
        "recipe": plan.resolved,
        "cache": str(store.root),
    }


def plan_text(plan: Plan, store: Store) -> str:
    """The resolved plan for people: steps in order with their hashes, then the targets."""
    lines = [f"{plan.recipe.name}: recipe {plan.recipe_sha256[:12]}, store {store.root}", "", "steps"]
    for step in plan.steps:
        state = "cached" if store.record(step.key) is not None else "to do"
        lines.append(f"  {step.key[:12]}  {state:6}  {step.kind:9}  {step.title}")
    lines += ["", "targets"]
    for item in plan.targets:
        proof = "deferred to the device" if item.optimized.evaluate is None else "proven here"
        timed = "measured here" if item.optimized.measure else "latency on the board"
        what = proof if item.optimized.evaluate is None else f"{proof}, {timed}"
        lines.append(f"  {item.target.name:20} {item.target.backend:12} {item.optimized.precision:5} {what}")
    return "\n".join(lines)
