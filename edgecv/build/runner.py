"""The one sequence: every step of a plan, each done once, each kept in the store as soon as it is done.

A failing target does not stop the others. A failing step that every target needs (load, prune, finetune, fit)
stops the run.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecv.backends.common import quiet
from edgecv.build.context import NOTES, Context, Hardware
from edgecv.build.plan import FilePlan, Plan, PlannedStep, TargetPlan
from edgecv.build.publish import publish
from edgecv.build.steps import shared_actions
from edgecv.build.store import StepRecord, Store, explained
from edgecv.build.target_steps import compile_file, evaluate_file, measure_file, verify_file
from edgecv.core.progress import Progress
from edgecv.errors import EdgecvError
from edgecv.report.schema import StepFigures

LOG = "edgecv.log"
_ALL_NEED = ("load", "prune", "finetune", "fit")


@dataclass(frozen=True)
class Failure:
    """Why a target stopped: the step, the message, and the exit code of its error."""

    step: str
    message: str
    exit_code: int


@dataclass
class Run:
    """What has been done so far: records by step key, which of them were in the store, failures by target."""

    context: Context
    started_s: float
    records: dict[str, StepRecord] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)
    failures: dict[str, Failure] = field(default_factory=dict)
    step_errors: dict[str, Exception] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall time since the run began."""
        return time.perf_counter() - self.started_s

    def step_figures(self) -> tuple[StepFigures, ...]:
        """Every finished step for the report, in the order in which they were done."""
        return tuple(
            StepFigures(record.kind, record.title, key, record.seconds, key in self.cached, "", _shown(record.effect))
            for key, record in self.records.items()
        )


def run_plan(
    plan: Plan, *, store: Store, out: Path, progress: Progress, hardware: Hardware, started_s: float | None = None
) -> Run:
    """Do every step of ``plan`` that the store does not have, and publish each target's artifact below ``out``.

    ``started_s`` is on the clock of ``time.perf_counter``.

    Raises:
        EdgecvError: ``out`` or the store cannot be written, or the disk is full; failures of single targets are
            kept in the result instead.
    """
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / LOG).touch()
    context = Context(plan, store, progress, out / LOG, hardware)
    run = Run(context, time.perf_counter() if started_s is None else started_s)
    total = len(plan.steps)
    waiting = [step for step in plan.steps if store.record(step.key) is None]
    progress.line(f"{plan.recipe.name}: {total} steps, {total - len(waiting)} of them done before")
    for target in plan.targets:
        _target(run, target, out)
    return run


def _target(run: Run, target: TargetPlan, out: Path) -> None:
    """All steps of one target; an error ends this target only."""
    name = target.target.name
    doing = kind = ""
    try:
        for step, action in _sequence(run, target):
            doing, kind = step.title, step.kind
            _do(run, step, action)
        doing = kind = "publish"
        run.folders[name] = publish(run.context, target, out)
    except EdgecvError as error:
        if kind in _ALL_NEED:
            raise
        run.failures[name] = Failure(doing, str(error), error.exit_code)
        run.context.progress.line(f"{name}: {doing} failed: {error}")
    except Exception as error:  # noqa: BLE001 - the fence around a target: a defect in one must not stop the others
        with run.context.log.open("a", encoding="utf-8") as stream:
            traceback.print_exc(file=stream)
        message = f"a defect ({type(error).__name__}: {error}); the log has the lines: {run.context.log.name}"
        run.failures[name] = Failure(doing, message, EdgecvError.exit_code)
        run.context.progress.line(f"{name}: {doing} failed: {message}")


def _sequence(run: Run, target: TargetPlan) -> list[tuple[PlannedStep, Callable[[Path], Mapping[str, Any]]]]:
    """The target's steps in order, with what does each."""
    shared = shared_actions()
    recipe, context = target.recipe, run.context
    steps: list[tuple[PlannedStep, Callable[[Path], Mapping[str, Any]]]] = []

    def add(step: PlannedStep | None, action: Callable[[PlannedStep, Path], Mapping[str, Any]]) -> None:
        if step is not None:
            steps.append((step, lambda folder: action(step, folder)))

    def common(step: PlannedStep, folder: Path) -> Mapping[str, Any]:
        return shared[step.kind](context, step, recipe, folder)

    def of_file(plan: FilePlan) -> None:
        add(plan.export, common)
        add(plan.reference, common)
        add(plan.compile, lambda step, folder: compile_file(context, step, plan, target.target, folder))
        add(plan.verify, lambda step, folder: verify_file(context, step, recipe, target.target, folder))
        add(plan.evaluate, lambda step, folder: evaluate_file(context, step, recipe, target.target, folder))
        add(plan.measure, lambda step, folder: measure_file(context, step, recipe, target.target, folder))

    for step in target.chain:
        add(step, common)
    of_file(target.float_reference)
    of_file(target.optimized)
    return steps


def _do(run: Run, step: PlannedStep, action: Callable[[Path], Mapping[str, Any]]) -> None:
    """One step: from the store, or done now with its output in the log. An error is remembered for all targets."""
    if step.key in run.records:
        return
    if step.key in run.step_errors:
        raise run.step_errors[step.key]
    context = run.context
    if context.store.record(step.key) is not None:
        run.cached.add(step.key)

    def logged(folder: Path) -> Mapping[str, Any]:
        context.progress.line(f"{step.title} ...")
        with quiet(context.log):
            return action(folder)

    try:
        record = context.store.run(step.key, kind=step.kind, title=step.title, action=logged)
    except Exception as error:
        run.step_errors[step.key] = error
        raise
    run.records[step.key] = record
    if step.key not in run.cached:
        context.progress.line(f"{step.title}: {record.seconds:.1f} s{_effect_words(record.effect)}")


def _effect_words(effect: Mapping[str, Any]) -> str:
    shown = [f"{name} {value}" for name, value in effect.items() if isinstance(value, (int, float)) or name == "status"]
    return f" ({', '.join(shown)})" if shown else ""


def _shown(effect: Mapping[str, Any]) -> dict[str, float | int | str]:
    return {
        name: value if isinstance(value, (int, float, str)) else json.dumps(value)
        for name, value in effect.items()
        if name != NOTES
    }
