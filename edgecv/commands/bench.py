"""`edgecv bench`: latency of an artifact by the protocol, or (``--soak``) what is left of its rate when it is hot."""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

import edgecv
from edgecv import backends
from edgecv.commands.samples import pictures
from edgecv.commands.values import duration_s
from edgecv.core.artifact import Manifest
from edgecv.core.figures import SoakFigures, Verdict
from edgecv.core.plain import to_plain
from edgecv.core.progress import PlainProgress
from edgecv.core.target import ThermalZone
from edgecv.errors import BudgetError, MeasurementError, UsageError
from edgecv.measure.energy import open_meter
from edgecv.measure.host import Sampler, machine_facts
from edgecv.measure.latency import PLANS, measure_latency
from edgecv.measure.soak import SoakPlan, soak
from edgecv.measure.tools import Tools
from edgecv.report.outcome import overall_outcome, reasons
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.runtime.load import Model, load_artifact

BENCH_PICTURES = 32
_FPS = 30.0
_IDLE_S = 5.0
_STOPPED = 130


def bench(options: argparse.Namespace) -> int:
    """Latency on this machine, as a report of its own."""
    if options.soak is not None:
        return bench_soak(options)
    if options.min_fps is not None or options.max_mj_per_frame is not None:
        raise UsageError("--min-fps and --max-mj-per-frame are budgets of a soak; add --soak 10m")
    started_s = time.perf_counter()
    with load_artifact(options.artifact, threads=options.threads) as model:
        watch = Sampler(zones=_zones(model))
        figures = measure_latency(
            model.subject,
            pictures(options, model, BENCH_PICTURES),
            fps=_FPS if options.fps is None else options.fps,
            plan=PLANS[options.protocol],
            watch=watch,
            progress=PlainProgress(),
        )
        figures = replace(figures, events=watch.events)
        artifact = replace(_artifact(model), latency=figures)
        report = _report(model, artifact, seconds=time.perf_counter() - started_s)
    if figures.invalid:
        report = replace(report, outcome="inconclusive")
    _show(options, report, figures)
    if figures.invalid:
        raise MeasurementError(f"the measurement is invalid: {figures.invalid}. Cool or power the board and run again.")
    return 0


def bench_soak(options: argparse.Namespace) -> int:
    """Sustained rate, time to throttle and energy per frame on this machine, as a report of its own."""
    seconds = duration_s(options.soak, "--soak")
    plan = SoakPlan(seconds=seconds, fps=options.fps, idle_s=min(_IDLE_S, seconds / 10))
    plan.check()
    started_s = time.perf_counter()
    tools = Tools()
    meter, notes = open_meter(tools=tools)
    with load_artifact(options.artifact, threads=options.threads) as model:
        watch = Sampler(zones=_zones(model), tools=tools)
        images = pictures(options, model, BENCH_PICTURES)
        with _stoppable() as stopped, meter.running() if meter is not None else nullcontext():
            figures = soak(
                model.subject,
                images,
                plan=plan,
                watch=watch,
                power=meter,
                stop=stopped,
                progress=PlainProgress(),
            )
            was_stopped = stopped()
        artifact = replace(_artifact(model), soak=figures, verdicts=_verdicts(options, figures))
        report = _report(model, artifact, seconds=time.perf_counter() - started_s)
    if meter is None and not notes:
        notes = ("No power sensor was found here; watts and energy were not measured.",)
    _show(options, replace(report, notes=(*notes, *watch.notes)), figures)
    found = "; ".join(reason.text for reason in reasons(report))
    if report.outcome == "fail":
        raise BudgetError(f"a budget is not met: {found}")
    if report.outcome == "inconclusive":
        raise MeasurementError(f"a budget cannot be judged: {found}")
    return _STOPPED if was_stopped else 0


def _verdicts(options: argparse.Namespace, figures: SoakFigures) -> tuple[Verdict, ...]:
    found = []
    if options.min_fps is not None:
        held = figures.sustained_fps >= options.min_fps
        outcome: Any = "pass" if held else "fail"
        found.append(Verdict("soak.fps.min", options.min_fps, figures.sustained_fps, "per second", outcome))
    if options.max_mj_per_frame is not None:
        value = figures.power.mj_per_frame if figures.power is not None else None
        outcome = "inconclusive" if value is None else "pass" if value <= options.max_mj_per_frame else "fail"
        why = "no power sensor answered" if value is None else ""
        found.append(Verdict("soak.mj_per_frame", options.max_mj_per_frame, value, "mJ", outcome, why))
    return tuple(found)


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM end the soak in order, so that its figures are kept; a second one ends the process."""
    before: dict[int, Any] = {}
    seen: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(number, before[number])

    for wanted in (signal.SIGINT, signal.SIGTERM):
        before[int(wanted)] = signal.signal(wanted, note)
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(options: argparse.Namespace, report: Report, figures: Any) -> None:
    from edgecv.report.render import render_all, render_text

    if options.out:
        render_all(report, Path(options.out))
    print(json.dumps(to_plain(figures)) if options.json else render_text(report))


def _zones(model: Model) -> tuple[ThermalZone, ...]:
    return tuple(ThermalZone(**zone) for zone in model.manifest.thermal)


def _artifact(model: Model) -> ArtifactFigures:
    manifest: Manifest = model.manifest
    return ArtifactFigures(
        target=manifest.target,
        title=manifest.name,
        backend=manifest.backend,
        precision=manifest.precision,
        role="optimized",
        tag="measured",
        folder=".",
        file=manifest.model,
        file_bytes=manifest.model_bytes,
        delegation=model.engine.delegation(),
        chain=manifest.chain,
        notes=manifest.notes,
    )


def _report(model: Model, artifact: ArtifactFigures, *, seconds: float) -> Report:
    manifest: Manifest = model.manifest
    return Report(
        name=manifest.name,
        edgecv_version=edgecv.__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        outcome=overall_outcome((artifact,)),
        machine=machine_facts({manifest.backend: backends.get(manifest.backend).version()}),
        artifacts=(artifact,),
        steps=(),
        seconds=round(seconds, 3),
        recipe_sha256=manifest.chain.recipe,
    )
