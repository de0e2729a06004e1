"""The quantize step of the build: calibration pictures in; the Q/DQ graph, its plan and warnings out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.build.calibration import open_checked
from edgecv.build.context import Context, loss_effect
from edgecv.build.judge import make_gate, make_judge, measure_words, sure_objects
from edgecv.build.judge_pictures import JudgePictures, open_for_repair
from edgecv.core.plain import to_plain
from edgecv.core.progress import Progress
from edgecv.core.protocols import Batches
from edgecv.core.recipe import Quantize, Recipe
from edgecv.data.lint import LintFinding, objects_finding, refuse, saturation_finding
from edgecv.data.readers import LabelledReader
from edgecv.data.selection import truths_of
from edgecv.models.streaming import deploy_form, whole_form
from edgecv.optimize.batches import make_batches
from edgecv.optimize.examples import steps_of
from edgecv.optimize.export import save_program
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import TrainSet, held_out
from edgecv.optimize.objectives import train_objective
from edgecv.optimize.pixel_grid import pixel_range
from edgecv.optimize.ptq import quantize_ptq
from edgecv.optimize.qat import Fit, quantize_qat
from edgecv.optimize.quantized import QuantizedGraph
from edgecv.optimize.repair import Repair, Workshop, acceptable, repair
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
    checkpoint: Path | None


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
    pictures: JudgePictures | None = None
    if climbs(recipe, step):
        reader, findings, pictures = open_for_repair(context, recipe)
    else:
        reader, findings = open_checked(context, recipe)
    batches = make_batches(reader, recipe.model.input, batch_size=8, cache_mb=CALIBRATION_CACHE_MB).fixed()
    form, example = deploy_form(module, recipe.model.input)
    calibration, count = steps_of(batches, form, example), len(reader)
    judged = module if original is None else original
    result: FitResult | None = None
    climbed: Repair | None = None
    if step.method == "qat" and training is not None:
        made, result = quantize_qat(
            form,
            example,
            step=step,
            calibration=calibration,
            fit=make_fit(context.progress, recipe, step, training),
            samples=count,
            progress=context.progress,
            log=context.log,
        )
    else:
        modules = (form, judged)
        made, climbed = _post_training(
            context, recipe, step, modules, (example, calibration), training, samples=count, pictures=pictures
        )
    saturation = saturation_finding({item.node: item.share for item in made.saturated}, ranges=step.ranges)
    few = _few_objects(context, recipe, judged, reader, ranges=step.ranges)
    found = [*findings, *(item for item in (saturation, few) if item)]
    refuse(found)
    save_program(made.program, folder / "program.pt2")
    _write_record(folder, recipe, step, made, climbed, pictures)
    warnings = [f"{finding.code}: {finding.message}" for finding in found]
    counts = _counts(made, result)
    if climbed is not None and pictures is not None:
        warnings += repair_lines(climbed, f"judged on {pictures.words}, {measure_words(recipe, pictures)}")
        counts |= _repair_effect(climbed) | {"judged_on": len(pictures.reader)}
    return {**counts, "calibration": reader.fingerprint(), "pictures": count, "warnings": warnings}


def _few_objects(
    context: Context, recipe: Recipe, module: Any, reader: LabelledReader, *, ranges: str
) -> LintFinding | None:
    """What the lint says of the objects that the float ``module`` finds in the calibration pictures of ``reader``."""
    other = sure_objects(recipe, module, context.reader(recipe.data.eval))
    mine = None if not other else sure_objects(recipe, module, reader)
    return None if mine is None or other is None else objects_finding(mine, other, ranges=ranges)


def _write_record(
    folder: Path,
    recipe: Recipe,
    step: Quantize,
    made: QuantizedGraph,
    climbed: Repair | None,
    pictures: JudgePictures | None,
) -> None:
    """What became int8 and why, and how the ladder was climbed, as ``quantization.json``."""
    plain = {
        "scheme": step.scheme,
        "ranges": made.ranges or step.ranges,
        "tensors": to_plain(made.plan),
        "saturated": to_plain(made.saturated),
        "repair": to_plain(climbed),
        "judge": None if pictures is None else judge_record(recipe, pictures),
    }
    (folder / QUANTIZATION).write_text(json.dumps(plain, indent=1), encoding="utf-8")


def _post_training(
    context: Context,
    recipe: Recipe,
    step: Quantize,
    modules: tuple[Any, Any],
    calibration: tuple[tuple[Any, ...], Batches],
    training: Training | None,
    *,
    samples: int,
    pictures: JudgePictures | None,
) -> tuple[QuantizedGraph, Repair | None]:
    """Post-training quantisation, and the repair ladder where there are ``pictures`` to judge its rungs on.

    ``modules`` are the network to quantise and the one that it is compared with, ``calibration`` an example of its
    inputs and all of them.
    """
    module, original = modules
    example, batches = calibration
    if pictures is None:
        made = quantize_ptq(
            module,
            example,
            step=step,
            calibration=batches,
            samples=samples,
            pixels=pixel_range(recipe.model.input),
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
            calibration=batches,
            fit=make_fit(context.progress, recipe, wanted, training),
            samples=samples,
            progress=context.progress,
            log=context.log,
        )
        return trained, trained.program.module()

    judge = make_judge(recipe, pictures, original)
    gate = make_gate(recipe, pictures, context.reader(recipe.data.eval), original)
    workshop = Workshop(
        module,
        example,
        batches,
        lambda candidate: judge(whole_form(candidate, example, recipe.model.input)),
        gate=gate and (lambda candidate: gate(whole_form(candidate, example, recipe.model.input))),
        samples=samples,
        pixels=pixel_range(recipe.model.input),
        train=train if training is not None else None,
        progress=context.progress,
        log=context.log,
    )
    return repair(workshop, step)


def _repair_effect(climbed: Repair) -> dict[str, Any]:
    effect: dict[str, Any] = {"repair": climbed.outcome, "repair_rungs": len(climbed.rungs)}
    return effect | ({"mended_by": climbed.mended_by} if climbed.mended_by else {})


def climbs(recipe: Recipe, step: Quantize) -> bool:
    """Whether the repair ladder stands ready: the step asks for it, and there is a limit that it can climb by."""
    budget = recipe.budgets.accuracy
    return step.method == "ptq" and step.repair != "off" and budget is not None and budget.max_drop is not None


def judge_record(recipe: Recipe, pictures: JudgePictures) -> dict[str, Any]:
    """Which pictures judged the ladder's rungs, and how, for ``quantization.json`` and the build information."""
    return {
        "origin": pictures.origin,
        "labelled": pictures.labelled,
        "measure": measure_words(recipe, pictures),
        "pictures": len(pictures.reader),
        "fingerprint": pictures.reader.fingerprint(),
        "ids": list(pictures.reader.ids),
    }


def repair_lines(climbed: Repair, judged: str) -> list[str]:
    """The climb in words, for the report: a line for every rung, and before them what ``judged`` them."""
    mended = {"not-needed": "not needed", "mended": f"mended by {climbed.mended_by}", "not-mended": "not mended"}
    ends = f"{climbed.first.value:.4f} -> {climbed.last.value:.4f}" if climbed.rungs else f"{climbed.first.value:.4f}"
    lines = [f"repair: {mended[climbed.outcome]} ({ends}); {judged}"]
    if climbed.gate is not None:
        allowed = "allowed" if acceptable(climbed.gate) else "too much"
        lines.append(f"repair: by the labels of the evaluation set {climbed.gate.drop.drop:+.4f} is lost, {allowed}")
    for rung in climbed.rungs:
        after = "" if rung.after is None else f"{rung.before:.4f} -> {rung.after:.4f}, "
        kept = "kept" if rung.kept else f"rolled back ({rung.note})"
        lines.append(f"repair, {rung.rung}: {rung.what}; {after}{rung.seconds:.0f} s, {kept}")
    if climbed.outcome == "not-mended":
        lines.append(f"repair: no rung met the limit; {climbed.last.drop.drop:+.4f} is still lost")
    return lines


def make_fit(progress: Progress, recipe: Recipe, step: Quantize, training: Training) -> Fit:
    """The training loop of method qat with everything filled in but the graph and the quantiser's hooks."""
    data = training.data
    objective = train_objective(
        data.family, data.contract, truths_of(data.reader), teacher=training.teacher, distill=step.distill
    )
    train, validation = held_out(
        data,
        share=HELD_OUT,
        seed=recipe.seed,
        batch_size=step.batch_size,
        augment=step.augment,
        teaching=objective.distill.weight,
    )
    plan = TrainPlan(epochs=step.epochs, lr=step.lr, seed=recipe.seed, devices=training.devices, ema=step.ema)

    def run(module: Any, hooks: Hooks) -> FitResult:
        return fit(
            module,
            train=train,
            validation=None if validation is None else validation.fixed(),
            objective=objective,
            plan=plan,
            hooks=hooks,
            progress=progress,
            checkpoint=training.checkpoint,
        )

    return run


def _counts(made: QuantizedGraph, result: FitResult | None) -> dict[str, Any]:
    kinds = [record.kind for record in made.plan]
    effect: dict[str, Any] = {"int8_tensors": len(kinds) - kinds.count("float"), "float_tensors": kinds.count("float")}
    if result is not None:
        effect |= {"epochs": result.epochs_run, "best_epoch": result.best_epoch + 1}
        effect |= {} if result.best_score is None else {f"held_out_{result.score_name}": round(result.best_score, 6)}
        effect |= loss_effect(result.losses)
    return effect
