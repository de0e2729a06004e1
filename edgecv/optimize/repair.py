"""The repair ladder: what is tried, cheapest first, while an int8 network loses too much.

Every rung is a change of the recipe's quantize settings, so what helped can be written into the recipe, and
the same recipe gives the same file again without a ladder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.fx import GraphModule

from edgecv.core.figures import DropFigures
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Batches
from edgecv.core.recipe import Quantize
from edgecv.optimize.capture import capture
from edgecv.optimize.examples import Example, picture_shape, pictures
from edgecv.optimize.histogram import Range
from edgecv.optimize.ptq import Prepared, prepare_ptq
from edgecv.optimize.quantized import QuantizedGraph, wrap_up
from edgecv.optimize.repair_rungs import RUNGS, Proposal, Scene
from edgecv.optimize.sensitivity import output_sqnr_db
from edgecv.optimize.switches import make_board

__all__ = ["Judge", "Judged", "Repair", "RepairRung", "Workshop", "acceptable", "changed_fields", "repair"]

SQNR_PICTURES = 32
AIM = 0.5
"""Of the allowed drop: what a rung should bring. The best of several tries on some pictures looks better than it is,
so a ladder that stops right at the limit would fail the gate on other pictures as often as not."""


@dataclass(frozen=True)
class Judged:
    """The task metric of a network, and its drop against float as the accuracy gate sees it."""

    value: float
    drop: DropFigures


Judge = Callable[[nn.Module], Judged]
Train = Callable[[Quantize], tuple[QuantizedGraph, nn.Module]]
"""Quantisation-aware training with these settings: the graph, and a module that computes what it computes."""


@dataclass(frozen=True)
class RepairRung:
    """One thing that was tried.

    ``changes`` are the fields of the quantize step that it set. ``before`` and ``after`` are the task metric
    (``after`` None where nothing was worth judging). Where it is not ``kept``, it was rolled back; ``note`` says why.
    """

    rung: str
    what: str
    changes: dict[str, Any]
    before: float
    after: float | None
    sqnr_before_db: float
    sqnr_after_db: float | None
    seconds: float
    kept: bool
    note: str = ""


@dataclass(frozen=True)
class Repair:
    """The climb. ``mended_by`` names the rung that met the limit ("" where none did or none was needed).

    ``settings`` are the fields of the quantize step that differ from the recipe's, as it may be written back. ``gate``
    is what the accuracy gate said of the first network, where it was asked.
    """

    outcome: Literal["not-needed", "mended", "not-mended"]
    first: Judged
    last: Judged
    rungs: tuple[RepairRung, ...]
    mended_by: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    gate: Judged | None = None


@dataclass(frozen=True)
class _State:
    """A network with its settings and how good it is. ``made`` is set where it was trained."""

    step: Quantize
    prepared: Prepared | None
    judged: Judged
    sqnr_db: float
    made: QuantizedGraph | None = None


@dataclass(frozen=True)
class Workshop:
    """What the ladder works on and with.

    ``example`` is `(1, C, H, W)`. ``judge`` gets a module that takes one picture `(1, C, H, W)` and computes what
    the int8 network computes. ``gate``, which does the same, is asked once, where ``judge`` refuses what the step's own
    settings give: a judge without labels is stricter than the accuracy gate. ``pixels`` is the input's range
    (`edgecv.optimize.pixel_grid`). ``train`` is used where the step's ``repair`` is full. ``latency_ms`` has the float
    layers' milliseconds by name, to keep the cheapest layers float; without it their multiplications count.
    """

    module: nn.Module
    example: Example
    calibration: Batches
    judge: Judge
    samples: int = 300
    pixels: Range | None = None
    train: Train | None = None
    gate: Judge | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    progress: Progress = field(default_factory=SilentProgress)
    log: Path | None = None

    @cached_property
    def captured(self) -> GraphModule:
        return capture(self.module, self.example)

    def prepare(self, step: Quantize) -> tuple[Prepared, float]:
        """The network with these settings, and its signal to noise in dB on calibration pictures."""
        prepared = prepare_ptq(
            self.module,
            self.example,
            step=step,
            calibration=self.calibration,
            samples=self.samples,
            pixels=self.pixels,
            captured=self.captured,
            progress=self.progress,
            log=self.log,
        )
        return prepared, output_sqnr_db(make_board(prepared.graph, prepared.originals), self.pictures())

    def judged(self, step: Quantize) -> _State:
        prepared, sqnr_db = self.prepare(step)
        return _State(step, prepared, self.judge(make_board(prepared.graph, prepared.originals).module), sqnr_db)

    def asked(self, first: _State) -> Judged | None:
        """What the gate says of the first network; None where there is no need to ask it, or it cannot be."""
        if self.gate is None or first.prepared is None or acceptable(first.judged):
            return None
        return self.gate(make_board(first.prepared.graph, first.prepared.originals).module)

    def pictures(self) -> Iterator[Example]:
        """The pictures that signal to noise is measured on."""
        return pictures(self.calibration, limit=min(self.samples, SQNR_PICTURES), shape=picture_shape(self.example))


def acceptable(judged: Judged) -> bool:
    """Whether the gate lets it pass: proven, or not disproven and measured within the limit."""
    drop = judged.drop
    if drop.max_drop is None or drop.outcome in ("pass", "not-checked"):
        return True
    return drop.outcome == "inconclusive" and drop.drop <= drop.max_drop


def _safe(judged: Judged) -> bool:
    """Whether the drop is proven to be allowed, or at most half of what is."""
    drop = judged.drop
    return acceptable(judged) and (drop.outcome != "inconclusive" or drop.drop <= AIM * (drop.max_drop or 0.0))


def repair(ladder: Workshop, step: Quantize) -> tuple[QuantizedGraph, Repair]:
    """Quantise as ``step`` (method ptq) says, and where the judge refuses the result, climb the ladder.

    Where the gate, asked once, lets the first result pass, nothing is climbed. A rung stays where the drop becomes
    smaller, else it is rolled back. The climb ends where the drop is proven to be
    allowed or is half of what is; rungs that turn out not to be needed are then rolled back as well. Where no
    rung brings that, the first that is within the limit has mended the network.

    Raises:
        ModelError: the module cannot be traced.
        DataError: there is no calibration picture.
        ToolchainError: NNCF refuses the graph.
    """
    first = ladder.judged(step)
    gate = ladder.asked(first) if step.repair != "off" else None
    needed = not acceptable(first.judged if gate is None else gate)
    state, rungs, mended_by = _climbed(ladder, step, first) if needed and step.repair != "off" else (first, [], "")
    outcome: Literal["not-needed", "mended", "not-mended"] = "not-mended"
    if not needed:
        outcome = "not-needed"
    elif mended_by:
        outcome = "mended"
    settings = changed_fields(step, state.step)
    found = Repair(outcome, first.judged, state.judged, tuple(rungs), mended_by, settings, gate)
    if state.made is not None:
        return state.made, found
    assert state.prepared is not None
    made = state.prepared
    graph = wrap_up(
        made.graph, plan=made.plan, example=ladder.example, calibration=ladder.calibration, ranges=made.told
    )
    return graph, found


def _climbed(ladder: Workshop, step: Quantize, first: _State) -> tuple[_State, list[RepairRung], str]:
    """Where the climb ended, its rungs, and the name of the one that met the limit."""
    state, rungs, mended_by = first, list[RepairRung](), ""
    within: tuple[_State, int] | None = None
    for name, propose in RUNGS:
        state, rung = _climb(ladder, name, propose, state)
        if rung is not None:
            rungs.append(rung)
            ladder.progress.line(f"repair: {_words(rung)}")
        if _safe(state.judged):
            state, rungs = _without_idle(ladder, step, state, rungs)
            return state, rungs, name
        if within is None and acceptable(state.judged):
            within = state, len(rungs)
    if within is not None:
        state, rungs = within[0], _until(rungs, within[1])
        mended_by = rungs[within[1] - 1].rung
    elif step.repair == "full" and ladder.train is not None:
        state, rung = _train(ladder, ladder.train, state)
        rungs.append(rung)
        mended_by = rung.rung if acceptable(state.judged) else ""
    return state, rungs, mended_by


def changed_fields(before: Quantize, after: Quantize) -> dict[str, Any]:
    """The fields that differ, with their new values."""
    names = [item.name for item in fields(Quantize)]
    return {name: getattr(after, name) for name in names if getattr(before, name) != getattr(after, name)}


def _climb(
    ladder: Workshop, name: str, propose: Callable[[Scene, Quantize], Iterator[Proposal]], state: _State
) -> tuple[_State, RepairRung | None]:
    """All proposals of one rung; the best of them stays if it is better than what was there.

    Where none is as good as it should be, the first that is within the limit goes before better ones: it costs less.
    """
    assert state.prepared is not None
    started = time.perf_counter()
    scene = Scene(
        state.prepared,
        state.sqnr_db,
        ladder.pictures,
        ladder.latency_ms,
        lambda step: ladder.prepare(step)[1],
        ladder.captured,
    )
    best, what, tried, note = state, "", 0, ""
    last: _State | None = None
    within: tuple[_State, str] | None = None
    generator = propose(scene, state.step)
    answer: bool | None = None
    while True:
        try:
            proposal = next(generator) if answer is None else generator.send(answer)  # type: ignore[attr-defined]
        except StopIteration:
            break
        tried += 1
        last = ladder.judged(replace(state.step, **proposal.changes))
        answer = _safe(last.judged)
        if last.judged.drop.drop < best.judged.drop.drop or (answer and proposal.smaller):
            best, what = last, proposal.what
        elif not what:
            note = proposal.what
        if within is None and acceptable(last.judged):
            within = last, proposal.what
    if tried == 0 or last is None:
        return state, None
    if within is not None and not _safe(best.judged) and not acceptable(state.judged):
        best, what = within
    kept = best is not state
    shown = best if kept else last
    return best, RepairRung(
        name,
        what or note,
        changed_fields(state.step, shown.step),
        state.judged.value,
        shown.judged.value,
        state.sqnr_db,
        shown.sqnr_db,
        time.perf_counter() - started,
        kept,
        "" if kept else "the drop did not become smaller",
    )


def _without_idle(
    ladder: Workshop, first: Quantize, state: _State, rungs: list[RepairRung]
) -> tuple[_State, list[RepairRung]]:
    """Roll back the earlier rungs without which the drop is as small as it should be, too."""
    shown = list(rungs)
    for index, rung in enumerate(rungs[:-1]):
        if not rung.kept:
            continue
        undone = {name: getattr(first, name) for name in rung.changes}
        candidate = ladder.judged(replace(state.step, **undone))
        if _safe(candidate.judged):
            state = candidate
            shown[index] = replace(rung, kept=False, note=f"not needed beside {rungs[-1].rung}")
    return state, shown


def _until(rungs: list[RepairRung], count: int) -> list[RepairRung]:
    """The first ``count`` as they are, the others rolled back."""
    note = "the limit was met without it"
    return [*rungs[:count], *(replace(rung, kept=False, note=note) if rung.kept else rung for rung in rungs[count:])]


def _train(ladder: Workshop, train: Train, state: _State) -> tuple[_State, RepairRung]:
    started = time.perf_counter()
    changes: dict[str, Any] = {"method": "qat"}
    step = replace(state.step, **changes)
    made, module = train(step)
    judged = ladder.judge(module)
    kept = judged.drop.drop < state.judged.drop.drop
    rung = RepairRung(
        "quantisation-aware training",
        f"{step.epochs} epochs at {step.lr:g} with the original network as teacher",
        changes,
        state.judged.value,
        judged.value,
        state.sqnr_db,
        None,
        time.perf_counter() - started,
        kept,
        "" if kept else "the drop did not become smaller",
    )
    return (_State(step, None, judged, state.sqnr_db, made) if kept else state), rung


def _words(rung: RepairRung) -> str:
    after = "" if rung.after is None else f": {rung.before:.4f} -> {rung.after:.4f}"
    return f"{rung.rung} ({rung.what}){after}, {'kept' if rung.kept else 'rolled back'}"
