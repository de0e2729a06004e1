"""The quantize step of the build: calibration pictures in; the Q/DQ graph, its plan and warnings out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.build.calibration import open_checked
from edgecv.build.context import Context
from edgecv.build.judge import make_judge
from edgecv.core.plain import to_plain
from edgecv.core.protocols import Batches
from edgecv.core.recipe import Quantize, Recipe
from edgecv.data.lint import refuse, saturation_finding
from edgecv.optimize.batches import make_batches
from edgecv.optimize.export import save_program
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import TrainSet, family_objective, held_out
from edgecv.optimize.prune import example_input
from edgecv.optimize.ptq import quantize_ptq
from edgecv.optimize.qat import Fit, quantize_qat
from edgecv.optimize.quantized import QuantizedGraph
from edgecv.optimize.repair import Repair, Workshop, repair
from edgecv.optimize.training import FitResult, Hooks, TrainPlan, fit

QUANTIZATION = "quantization.json"
CALIBRATION_CACHE_MB = 64.0
"""Prepared pictures that are kept between passes; more are prepared again, so that memory does not follow the set."""
HELD_OUT = 0.1
"""Share of the training set that picks the best epoch of quantisation-aware training."""


@dataclass(frozen=True)
class Training:
    """What method qat needs: data, the original network as teacher (or None), devices, and where to go on from."""

    data: TrainSet
    teacher: Any
    devices: Devices
    checkpoint: Path


def quantize(
    context: Context,
    recipe: Recipe,
    step: Quantize,
    *,
    module: Any,
    training: Training | None,
    folder: Path,
    original: Any = None,
) -> Mapping[str, Any]:
    """Quantise ``module`` as ``step`` says; leaves ``program.pt2`` and ``quantization.json`` in ``folder``.

    ``training`` is for method qat, and for the last rung of ``repair: full``;
    ``original`` is the float network that the repair ladder's gate compares with (None: ``module``).

    Raises:
        DataError: the calibration set is not fit, or a tensor saturates on it.
        ToolchainError: NNCF or torchao refuses the graph.
    """
    reader, findings = open_checked(context, recipe)
    calibration = make_batches(reader, recipe.model.input, batch_size=8, cache_mb=CALIBRATION_CACHE_MB).fixed()
    example, count = example_input(recipe.model.input), len(reader)
    result: FitResult | None = None
    climbed: Repair | None = None
    if step.method == "qat" and training is not None:
        made, result = quantize_qat(
            module,
            example,
            step=step,
            calibration=calibration,
            fit=_fit(context, recipe, step, training),
            samples=count,
            progress=context.progress,
            log=context.log,
        )
    else:
        judged = module if original is None else original
        made, climbed = _post_training(context, recipe, step, (module, judged), calibration, training, samples=count)
    saturation = saturation_finding({item.node: item.share for item in made.saturated})
    found = [*findings, *([saturation] if saturation is not None else [])]
    refuse(found)
    save_program(made.program, folder / "program.pt2")
    plain = {
        "scheme": step.scheme,
        "ranges": step.ranges,
        "tensors": to_plain(made.plan),
        "saturated": to_plain(made.saturated),
        "repair": to_plain(climbed),
    }
    (folder / QUANTIZATION).write_text(json.dumps(plain, indent=1), encoding="utf-8")
    warnings = [f"{finding.code}: {finding.message}" for finding in found]
    warnings += [] if climbed is None else repair_lines(climbed)
    counts = _counts(made, result) | ({} if climbed is None else _repair_effect(climbed))
    return {**counts, "calibration": reader.fingerprint(), "pictures": count, "warnings": warnings}


def _post_training(
    context: Context,
    recipe: Recipe,
    step: Quantize,
    modules: tuple[Any, Any],
    calibration: Batches,
    training: Training | None,
    *,
    samples: int,
) -> tuple[QuantizedGraph, Repair | None]:
    """Post-training quantisation, and the repair ladder where the recipe asks for it and has a limit.

    ``modules`` are the network to quantise and the one that it is compared with.
    """
    module, original = modules
    example = example_input(recipe.model.input)
    budget = recipe.budgets.accuracy
    if step.repair == "off" or budget is None or budget.max_drop is None:
        made = quantize_ptq(
            module,
            example,
            step=step,
            calibration=calibration,
            samples=samples,
            progress=context.progress,
            log=context.log,
        )
        return made, None

    def train(wanted: Quantize) -> tuple[QuantizedGraph, Any]:
        assert training is not None
        trained, _ = quantize_qat(
            module,
            example,
            step=wanted,
            calibration=calibration,
            fit=_fit(context, recipe, wanted, training),
            samples=samples,
            progress=context.progress,
            log=context.log,
        )
        return trained, trained.program.module()

    judge = make_judge(recipe, context.reader(recipe.data.eval), original)
    workshop = Workshop(
        module,
        example,
        calibration,
        judge,
        samples=samples,
        train=train if training is not None else None,
        progress=context.progress,
        log=context.log,
    )
    return repair(workshop, step)


def _repair_effect(climbed: Repair) -> dict[str, Any]:
    effect: dict[str, Any] = {"repair": climbed.outcome, "repair_rungs": len(climbed.rungs)}
    return effect | ({"mended_by": climbed.mended_by} if climbed.mended_by else {})


def repair_lines(climbed: Repair) -> list[str]:
    """The climb in words, a line for every rung, for the report."""
    lines = []
    for rung in climbed.rungs:
        after = "" if rung.after is None else f"{rung.before:.4f} -> {rung.after:.4f}, "
        kept = "kept" if rung.kept else f"rolled back ({rung.note})"
        lines.append(f"repair, {rung.rung}: {rung.what}; {after}{rung.seconds:.0f} s, {kept}")
    if climbed.outcome == "not-mended":
        lines.append(f"repair: no rung met the limit; {climbed.last.drop.drop:+.4f} is still lost")
    return lines


def _fit(context: Context, recipe: Recipe, step: Quantize, training: Training) -> Fit:
    """The training loop with everything filled in but the graph and the quantiser's hooks."""
    objective = family_objective(recipe.family, teacher=training.teacher, distill=step.distill)
    train, validation = held_out(training.data, share=HELD_OUT, seed=recipe.seed, batch_size=step.batch_size)
    plan = TrainPlan(epochs=step.epochs, lr=step.lr, seed=recipe.seed, devices=training.devices)

    def run(module: Any, hooks: Hooks) -> FitResult:
        return fit(
            module,
            train=train,
            validation=validation.fixed(),
            objective=objective,
            plan=plan,
            hooks=hooks,
            progress=context.progress,
            checkpoint=training.checkpoint,
        )

    return run


def _counts(made: QuantizedGraph, result: FitResult | None) -> dict[str, Any]:
    kinds = [record.kind for record in made.plan]
    effect: dict[str, Any] = {"int8_tensors": len(kinds) - kinds.count("float"), "float_tensors": kinds.count("float")}
    if result is not None:
        effect |= {"epochs": result.epochs_run, "best_epoch": result.best_epoch + 1}
        effect |= {} if result.best_score is None else {"held_out_top1": round(result.best_score, 6)}
    return effect
