"""The prune step of a build: what decides (MACs, times or a sparse pattern), and the act."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv import backends
from edgecv.core.figures import MachineFacts
from edgecv.core.plain import from_plain, to_plain
from edgecv.core.recipe import Prune
from edgecv.core.target import Target
from edgecv.errors import ModelError
from edgecv.optimize.sparse_gain import gain_note, no_gain

if TYPE_CHECKING:
    from edgecv.build.context import Context

__all__ = ["decided", "goal_title", "not_measurable", "prune_step", "resolved", "timing_params"]

_MOST_ROUND_TO = 64


def resolved(step: Prune, targets: Sequence[Target], *, trains: bool = False) -> tuple[Prune, str]:
    """``step`` with the multiple, measure and target that it will use, and a note where times cannot decide
    or zeros bring nothing.

    ``trains``: there is a training set, whose pictures tell which channels matter and mend what is left.

    Raises:
        ModelError: ``step.target`` is not one of ``targets``, or milliseconds are wanted of a target that
            cannot be measured on this machine.
    """
    multiple = min(lcm(*(target.round_channels_to for target in targets), 1), _MOST_ROUND_TO)
    step = replace(step, round_to=step.round_to or multiple)
    if step.pattern is not None:
        return step, gain_note(targets, pattern=step.pattern)
    if step.importance == "auto":
        step = replace(step, importance="output" if trains else "magnitude")
    if step.repair is None:
        step = replace(step, repair=trains)
    if not step.by_latency:
        return step, ""
    target, reason = decided(step, targets)
    if not reason:
        return replace(step, target=target.name), ""
    if step.speedup is None:
        raise ModelError(
            f"prune latency_ms {step.latency_ms} cannot be held here: {reason}. Give speedup, which then counts MACs, "
            "or name a target that is this machine."
        )
    return replace(step, by="macs", target=None), f"by MACs, not by latency: {reason}"


def decided(step: Prune, targets: Sequence[Target]) -> tuple[Target, str]:
    """The target whose times decide, and why they cannot be taken here ("" where they can)."""
    named = [target for target in targets if step.target in (None, target.name)]
    if not named:
        raise ModelError(
            f"prune target {step.target!r} is not in the recipe; allowed: {', '.join(t.name for t in targets)}"
        )
    reasons = [not_measurable(target) for target in named]
    place = reasons.index("") if "" in reasons else 0
    return named[place], reasons[place]


def not_measurable(target: Target) -> str:
    """Why times of ``target`` cannot be taken on this machine; "" where they can."""
    if target.arch != "host":
        return f"{target.name} is another machine ({target.soc or target.arch}), and only times taken on it count"
    backend = backends.get(target.backend)
    return backend.missing(to="compile") or backend.missing(to="run") or ""


def goal_title(step: Prune) -> str:
    """A resolved step in a few words."""
    if step.pattern is not None:
        share = f" {step.ratio:g}" if step.ratio else ""
        return f"prune{share} {step.pattern} sparse"
    if step.latency_ms is not None:
        goal = f"to {step.latency_ms:g} ms on {step.target}"
    elif step.speedup is not None:
        goal = f"{step.speedup:g}x " + (f"faster on {step.target}" if step.by_latency else "fewer MACs")
    else:
        goal = f"{step.ratio:g} of channels"
    return f"prune {goal} by {step.importance}"


def timing_params(step: Prune, targets: Sequence[Target], machine: MachineFacts) -> dict[str, Any]:
    """What a resolved step by latency depends on besides its inputs, for its key; empty for the others."""
    if not step.by_latency:
        return {}
    target = next(target for target in targets if target.name == step.target)
    engine = backends.get(target.backend).version()
    return {"engine": engine, "timed": to_plain(target), "machine": asdict(machine)}


def prune_step(
    context: Context, params: Mapping[str, Any], *, module: Any, history: list[Any], batches: Any, folder: Path
) -> Mapping[str, Any]:
    """Prune ``module`` as the planned step's ``params`` say and write weights and history into ``folder``.

    ``batches`` are training samples, where the step looks at some.
    """
    from edgecv.optimize.prune import prune, save_module_state
    from edgecv.optimize.prune_latency import LatencyGoal

    wanted = Prune(**{**params["step"], "protect": tuple(params["step"]["protect"])})
    recipe = context.plan.recipe
    if wanted.pattern is not None:
        return _sparse(context, wanted, module=module, history=history, folder=folder)
    goal = None
    if wanted.by_latency:
        from edgecv.optimize.latency_probe import EngineProbe

        target = from_plain(Target, params["timed"])
        probe = EngineProbe(target, context.log, context.progress)
        goal = LatencyGoal(target.name, probe, context.store.root / "latency")
    result = prune(
        module,
        step=wanted,
        contract=recipe.model.input,
        family=recipe.family,
        batches=batches,
        seed=recipe.seed,
        goal=goal,
        progress=context.progress,
    )
    save_module_state(folder / "state.safetensors", result.module)
    (folder / "history.json").write_text(json.dumps([*history, *result.history]), encoding="utf-8")
    effect: dict[str, Any] = {
        "macs_before": result.macs_before,
        "macs_after": result.macs_after,
        "parameters_before": result.params_before,
        "parameters_after": result.params_after,
    }
    if params.get("note"):
        effect["note"] = params["note"]
        context.progress.line(f"prune: {params['note']}")
    if result.latency is not None:
        found = result.latency
        effect |= {
            "float_ms_before": round(found.before_ms, 4),
            "float_ms_after": round(found.after_ms, 4),
            "float_ms_wanted": round(found.wanted_ms, 4),
            "float_ms_predicted": round(found.predicted_ms, 4),
            "timed_on": found.target,
        }
    return effect


def _sparse(context: Context, step: Prune, *, module: Any, history: list[Any], folder: Path) -> Mapping[str, Any]:
    from edgecv.optimize.prune import save_module_state
    from edgecv.optimize.sparsity import sparsify

    assert step.pattern is not None  # checked by the caller
    result = sparsify(module, step=step, family=context.plan.recipe.family)
    save_module_state(folder / "state.safetensors", result.module)
    (folder / "history.json").write_text(json.dumps(history), encoding="utf-8")
    (folder / "sparse.json").write_text(json.dumps(list(result.layers)), encoding="utf-8")
    notes = [no_gain(plan.target, pattern=step.pattern) for plan in context.plan.targets]
    effect: dict[str, Any] = {
        "zeros": round(result.zeros, 4),
        "sparse_layers": len(result.layers),
        "dense_layers": len(result.left_out),
    }
    if any(notes):
        effect["no_gain"] = json.dumps([note for note in notes if note])
        for note in filter(None, notes):
            context.progress.line(f"prune: {note}")
    return effect
