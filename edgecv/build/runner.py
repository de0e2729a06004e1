"""The one sequence: every step of a plan, each done once, each kept in the store as soon as it is done.

A failing target does not stop the others. A failing step that every target needs (load, prune, finetune, fit)
stops the run.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgecv.backends.common import quiet
from edgecv.build.ahead import Ahead
from edgecv.build.context import NOTES, Context, Hardware
from edgecv.build.plan import Plan, PlannedStep, TargetPlan
from edgecv.build.publish import publish
from edgecv.build.steps import shared_actions
from edgecv.build.store import StepRecord, Store, explained
from edgecv.build.target_steps import compile_file, evaluate_file, measure_file, verify_file
from edgecv.core.progress import Progress
from edgecv.errors import EdgecvError
from edgecv.report.schema import StepFigures

LOG = "edgecv.log"
_ALL_NEED = ("load", "prune", "finetune", "fit")
_Action = Callable[[Path], Mapping[str, Any]]
_PROOFS = {"verify": verify_file, "evaluate": evaluate_file, "measure": measure_file}


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
    ahead: Ahead
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
    plan: Plan,
    *,
    store: Store,
    out: Path,
    progress: Progress,
    hardware: Hardware,
    started_s: float | None = None,
    jobs: int = 0,
) -> Run:
    """Do every step of ``plan`` that the store does not have, and publish each target's artifact below ``out``.

    All files are made first, then each is proven and measured. ``started_s`` is on the clock of
    ``time.perf_counter``; up to ``jobs`` processes compile beside the other steps (`edgecv.build.ahead`).

    Raises:
        EdgecvError: ``out`` or the store cannot be written, or the disk is full; failures of single targets are
            kept in the result instead.
    """
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / LOG).touch()
    context = Context(plan, store, progress, out / LOG, hardware)
    run = Run(context, time.perf_counter() if started_s is None else started_s, Ahead(context, jobs))
    total = len(plan.steps)
    waiting = [step for step in plan.steps if store.record(step.key) is None]
    progress.line(f"{plan.recipe.name}: {total} steps, {total - len(waiting)} of them done before")
    with closing(run.ahead):
        run.ahead.prepare()
        for target in plan.targets:
            with _fence(run, target) as doing:
                _do_all(run, _making(run, target), doing)
        for target in plan.targets:
            if target.target.name not in run.failures:
                with _fence(run, target) as doing:
                    _do_all(run, _proving(run, target), doing)
                    doing.title = "publish"
                    run.folders[target.target.name] = publish(context, target, out)
    return run


@dataclass
class _Doing:
    """What is being done for a target, for the message of an error."""

    title: str = ""
    kind: str = ""


@contextmanager
def _fence(run: Run, target: TargetPlan) -> Iterator[_Doing]:
    """Around steps of one target: an error in them ends this target only."""
    name, doing = target.target.name, _Doing()
    try:
        yield doing
    except EdgecvError as error:
        if doing.kind in _ALL_NEED:
            raise
        run.failures[name] = Failure(doing.title, str(error), error.exit_code)
        run.context.progress.line(f"{name}: {doing.title} failed: {error}")
    except Exception as error:  # noqa: BLE001 - a defect in one target must not stop the others
        with run.context.log.open("a", encoding="utf-8") as stream:
            traceback.print_exc(file=stream)
        message = f"a defect ({type(error).__name__}: {error}); the log has the lines: {run.context.log.name}"
        run.failures[name] = Failure(doing.title, message, EdgecvError.exit_code)
        run.context.progress.line(f"{name}: {doing.title} failed: {message}")


def _making(run: Run, target: TargetPlan) -> Iterator[tuple[PlannedStep, _Action]]:
    """The steps up to the target's two files, with what does each."""
    shared, context = shared_actions(), run.context
    files = {file.compile.key: file for file in (target.float_reference, target.optimized)}
    for step in target.making:
        if step.key in files:
            file = files[step.key]
            exported = context.store.folder(file.export.key)
            yield step, partial(compile_file, exported, file.precision, target.target, context.log)
        else:
            yield step, partial(shared[step.kind], context, step, target.recipe)


def _proving(run: Run, target: TargetPlan) -> Iterator[tuple[PlannedStep, _Action]]:
    """The steps that prove and measure the target's two files, with what does each."""
    for step in target.proving:
        yield step, partial(_PROOFS[step.kind], run.context, step, target.recipe, target.target)


def _do_all(run: Run, steps: Iterable[tuple[PlannedStep, _Action]], doing: _Doing) -> None:
    for step, action in steps:
        doing.title, doing.kind = step.title, step.kind
        _do(run, step, action)


def _measures(step: PlannedStep) -> bool:
    """Whether times are taken in this step."""
    return step.kind == "measure" or (step.kind == "prune" and step.params["step"]["by"] == "latency")


def _do(run: Run, step: PlannedStep, action: _Action) -> None:
    """One step: from the store, or done now with its output in the log. An error is remembered for all targets."""
    if step.key in run.records:
        return
    if step.key in run.step_errors:
        raise run.step_errors[step.key]
    context = run.context
    if context.store.record(step.key) is not None:
        if step.key not in run.ahead.taken:
            run.cached.add(step.key)
    elif _measures(step):
        run.ahead.settle()

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
    run.ahead.offer()
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
