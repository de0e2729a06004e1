"""From finished steps to the report: figures of each artifact, budgets held against them, the outcome."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import edgecv
from edgecv.build.context import NOTES
from edgecv.build.plan import FilePlan, TargetPlan
from edgecv.build.publish import chain_of
from edgecv.build.reference import LADDER
from edgecv.build.runner import Run
from edgecv.build.target_steps import ACCURACY, LATENCY, PARTS, CompiledFile, read_compiled
from edgecv.core.figures import (
    AccuracyFigures,
    Delegation,
    DropFigures,
    Ladder,
    LatencyFigures,
    Tag,
    Verdict,
)
from edgecv.core.kinds import lower_is_better
from edgecv.core.plain import from_plain, to_plain
from edgecv.core.recipe import Budgets
from edgecv.errors import BudgetError, MeasurementError
from edgecv.measure.accuracy import load_parts
from edgecv.measure.gate import check_accuracy, check_latency, check_size, judge_drop, judge_parts
from edgecv.measure.ladder import deferred_rung, ladder
from edgecv.report.outcome import overall_outcome
from edgecv.report.schema import ArtifactFigures, Report


def make_report(run: Run) -> Report:
    """The report of a run, finished or not."""
    plan = run.context.plan
    artifacts: list[ArtifactFigures] = []
    seen: set[str] = set()
    for target in plan.targets:
        artifacts.append(_artifact(run, target))
        key = target.float_reference.compile.key
        if key not in seen and key in run.records:
            seen.add(key)
            artifacts.append(_float_reference(run, target))
    return Report(
        name=plan.recipe.name,
        edgecv_version=edgecv.__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        outcome=overall_outcome(artifacts),
        machine=plan.machine,
        artifacts=tuple(artifacts),
        steps=run.step_figures(),
        seconds=round(run.seconds, 3),
        recipe=to_plain(plan.resolved),
        recipe_sha256=plan.recipe_sha256,
        data={name: value for name, value in plan.prints.items() if value},
        notes=_notes(run),
    )


def exit_code(run: Run, report: Report) -> int:
    """0 all budgets met; a failed target's own code; 3 a budget failed; 4 a measurement cannot tell."""
    if run.failures:
        return min(failure.exit_code for failure in run.failures.values())
    if report.outcome == "fail":
        return BudgetError.exit_code
    return MeasurementError.exit_code if report.outcome == "inconclusive" else 0


def _artifact(run: Run, target: TargetPlan) -> ArtifactFigures:
    plan, board = target.optimized, target.target
    failure = run.failures.get(board.name)
    made, reference = _compiled(run, plan), _compiled(run, target.float_reference)
    accuracy, delegation = _accuracy(run, plan)
    before, _ = _accuracy(run, target.float_reference)
    drop = None
    if accuracy is not None and before is not None:
        drop = _drop(run, target, before, accuracy)
    latency = _latency(run, plan)
    bytes_, float_bytes = _bytes(made), _bytes(reference)
    folder = run.folders.get(board.name)
    return ArtifactFigures(
        target=board.name,
        title=board.title,
        backend=board.backend,
        precision=plan.precision,
        role="optimized",
        tag=_tag(target, made),
        folder=folder.name if folder else "",
        file=made.compiled.model if made else "",
        file_bytes=bytes_,
        size_ratio=bytes_ / float_bytes if bytes_ and float_bytes else None,
        accuracy=accuracy,
        drop=drop,
        latency=latency,
        delegation=delegation,
        ladder=_ladder(run, plan, board.backend),
        verdicts=() if failure else _verdicts(target, accuracy, drop, latency, bytes_, float_bytes),
        chain=chain_of(run.context, plan, made),
        notes=_artifact_notes(target, made),
        failed_step=failure.step if failure else "",
        error=failure.message if failure else "",
    )


def _float_reference(run: Run, target: TargetPlan) -> ArtifactFigures:
    plan, board = target.float_reference, target.target
    made = _compiled(run, plan)
    accuracy, delegation = _accuracy(run, plan)
    return ArtifactFigures(
        target=board.name,
        title=f"original float model, {board.backend}",
        backend=board.backend,
        precision=plan.precision,
        role="float",
        tag=_tag(target, made),
        file=made.compiled.model if made else "",
        file_bytes=_bytes(made),
        accuracy=accuracy,
        latency=_latency(run, plan),
        delegation=delegation,
        chain=chain_of(run.context, plan, made),
    )


def _tag(target: TargetPlan, made: CompiledFile | None) -> Tag:
    """measured: on the target itself; emulated: the board's engine on this machine; deferred: not run here."""
    if made is None or target.optimized.evaluate is None:
        return "deferred"
    return "measured" if target.target.arch == "host" else "emulated"


def _artifact_notes(target: TargetPlan, made: CompiledFile | None) -> tuple[str, ...]:
    notes = list(made.compiled.notes) if made else []
    precision, faster = target.optimized.precision, target.target.precisions
    if precision not in faster:
        notes.append(f"{precision} is not what this target runs faster: {', '.join(faster)} is")
    if target.optimized.evaluate is None:
        notes.append("cannot run on this machine: accuracy and latency are deferred to the device")
    elif target.optimized.measure is None:
        notes.append(
            "accuracy is of this file on this machine's build of the engine; latency is for `edgecv bench` there"
        )
    return tuple(notes)


def _verdicts(
    target: TargetPlan,
    accuracy: AccuracyFigures | None,
    drop: DropFigures | None,
    latency: LatencyFigures | None,
    bytes_: int | None,
    float_bytes: int | None,
) -> tuple[Verdict, ...]:
    budgets: Budgets = target.recipe.budgets
    found: list[Verdict] = []
    if budgets.accuracy is not None:
        found += check_accuracy(
            budgets.accuracy, accuracy, drop, why_absent="deferred: run `edgecv eval` on the device"
        )
    if budgets.latency is not None:
        found += check_latency(budgets.latency, latency, why_absent="deferred: run `edgecv bench` on the device")
    return (*found, *check_size(budgets, model_bytes=bytes_, float_bytes=float_bytes))


def _compiled(run: Run, plan: FilePlan) -> CompiledFile | None:
    return read_compiled(run.context, plan.compile.key) if plan.compile.key in run.records else None


def _bytes(made: CompiledFile | None) -> int | None:
    return sum(entry.bytes for entry in made.entries) if made else None


def _read(run: Run, key: str, name: str) -> Any:
    return json.loads((run.context.store.folder(key) / name).read_text(encoding="utf-8"))


def _accuracy(run: Run, plan: FilePlan) -> tuple[AccuracyFigures | None, Delegation | None]:
    if plan.evaluate is None or plan.evaluate.key not in run.records:
        return None, None
    raw = _read(run, plan.evaluate.key, ACCURACY)
    share = raw["delegation"]
    return from_plain(AccuracyFigures, raw["accuracy"]), None if share is None else from_plain(Delegation, share)


def _drop(run: Run, target: TargetPlan, before: AccuracyFigures, after: AccuracyFigures) -> DropFigures:
    """What was lost against the float model on the same engine: of the metric itself where it is no mean."""
    budget = target.recipe.budgets.accuracy
    max_drop = budget.max_drop if budget else None
    paths = [
        run.context.store.folder(plan.evaluate.key) / PARTS
        for plan in (target.float_reference, target.optimized)
        if plan.evaluate is not None
    ]
    if len(paths) == 2 and all(path.is_file() for path in paths):
        return judge_parts(load_parts(paths[0]), load_parts(paths[1]), max_drop=max_drop)
    return judge_drop(before.per_sample, after.per_sample, max_drop=max_drop, errors=lower_is_better(before.metric))


def _latency(run: Run, plan: FilePlan) -> LatencyFigures | None:
    if plan.measure is None or plan.measure.key not in run.records:
        return None
    return from_plain(LatencyFigures, _read(run, plan.measure.key, LATENCY))


def _ladder(run: Run, plan: FilePlan, backend: str) -> Ladder | None:
    if plan.verify is not None and plan.verify.key in run.records:
        climbed = from_plain(Ladder, _read(run, plan.verify.key, LADDER))
        return ladder((*climbed.rungs, deferred_rung("device", f"compiled {backend}")), climbed.diagnosis)
    if plan.reference is not None and plan.reference.key in run.records:
        climbed = from_plain(Ladder, _read(run, plan.reference.key, LADDER))
        return ladder((*climbed.rungs, deferred_rung(f"compiled {backend}", climbed.rungs[-1].name)), climbed.diagnosis)
    return None


def _notes(run: Run) -> tuple[str, ...]:
    warnings = [(record.title, text) for record in run.records.values() for text in record.effect.get("warnings", [])]
    notes = [text for record in run.records.values() for text in record.effect.get(NOTES, [])]
    return tuple(dict.fromkeys([*(f"{title}: {text}" for title, text in warnings), *notes]))
