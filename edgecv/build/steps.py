"""The actions of the shared steps: load, prune, finetune, fit, quantize, export, reference.

Each takes the planned step and an empty folder, leaves its files there, and returns its effect.
The model travels between steps as ``state.safetensors`` (weights) and ``history.json`` (what pruning
cut), so that nothing is ever pickled; a quantised graph travels as ``program.pt2``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv import backends
from edgecv.build.context import NOTES, Context, data_notes, loss_effect
from edgecv.build.plan import GOLDEN_SAMPLES, REFERENCE_SAMPLES, PlannedStep
from edgecv.build.reference import collect
from edgecv.core.artifact import sha256_file
from edgecv.core.recipe import Finetune, Fit, Quantize, Recipe
from edgecv.errors import ModelError
from edgecv.measure.accuracy import even_indices
from edgecv.measure.subject import subject

if TYPE_CHECKING:
    from edgecv.data.readers import LabelledReader
    from edgecv.optimize.finetune import TrainSet

STATE = "state.safetensors"
HISTORY = "history.json"
SPARSE = "sparse.json"
PROGRAM = "program.pt2"
ONNX = "model.onnx"
CHECKPOINT = "checkpoint.pt"


Action = Callable[[Context, PlannedStep, Recipe, Path], Mapping[str, Any]]


def shared_actions() -> dict[str, Action]:
    """The action of each shared step kind."""
    return {
        "load": _load,
        "prune": _prune,
        "finetune": _finetune,
        "fit": _fit,
        "quantize": _quantize,
        "export": _export,
        "reference": _reference,
    }


def _load(context: Context, step: PlannedStep, recipe: Recipe, folder: Path) -> Mapping[str, Any]:
    from edgecv.models.load import load_model
    from edgecv.optimize.prune import save_module_state

    if step.params["straight"]:
        return _load_onnx(context, recipe, folder)
    module = load_model(
        recipe.model,
        family=recipe.family,
        base=context.plan.base,
        cache=context.store.root / "downloads",
        seed=recipe.seed,
        progress=context.progress,
    )
    save_module_state(folder / STATE, module)
    (folder / HISTORY).write_text("[]", encoding="utf-8")
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return {"parameters": parameters}


def _load_onnx(context: Context, recipe: Recipe, folder: Path) -> Mapping[str, Any]:
    from edgecv.models.onnx_file import fix_onnx

    source = context.plan.base / recipe.model.source.removeprefix("onnx:")
    fix_onnx(source, recipe.model.input, folder / ONNX)
    engine = backends.get("onnxruntime").load(folder / ONNX, options={}, threads=None)
    try:
        subject(engine, spec=recipe.family, contract=recipe.model.input)
    finally:
        engine.close()
    return {"bytes": (folder / ONNX).stat().st_size}


def _prune(context: Context, step: PlannedStep, recipe: Recipe, folder: Path) -> Mapping[str, Any]:
    from edgecv.build.pruning import prune_step
    from edgecv.models.two_stage_loss import is_two_stage
    from edgecv.optimize.prune import taylor_batches

    module, history = _rebuild(context, step.inputs[0], recipe)
    batches = None
    if "train" in step.params:
        train = _train_set(recipe, _train_reader(context, recipe))
        size = 1 if is_two_stage(module) else 32
        batches = taylor_batches(train, samples=step.params["step"]["samples"], seed=recipe.seed, batch_size=size)
    return prune_step(context, step.params, module=module, history=history, batches=batches, folder=folder)


def _finetune(context: Context, step: PlannedStep, recipe: Recipe, folder: Path) -> Mapping[str, Any]:
    from edgecv.optimize.finetune import finetune
    from edgecv.optimize.prune import save_module_state
    from edgecv.optimize.sparsity import kept_sparse

    wanted = next(item for item in recipe.steps if isinstance(item, Finetune) and _same(item, step))
    if wanted.epochs == 0:
        for name in (STATE, HISTORY, SPARSE):
            if (context.store.folder(step.inputs[0]) / name).is_file():
                shutil.copyfile(context.store.folder(step.inputs[0]) / name, folder / name)
        return {"epochs": 0}
    module, history = _rebuild(context, step.inputs[0], recipe)
    teacher = _rebuild(context, step.inputs[1], recipe)[0] if wanted.distill else None
    checkpoint = context.store.work(step.key) / CHECKPOINT
    sparse = context.store.folder(step.inputs[0]) / SPARSE
    layers = json.loads(sparse.read_text(encoding="utf-8")) if sparse.is_file() else []
    reader = _train_reader(context, recipe)
    data = _train_set(recipe, reader, context)
    with kept_sparse(module, layers):
        result = finetune(
            module,
            step=wanted,
            data=data,
            teacher=teacher,
            seed=recipe.seed,
            devices=_devices(context),
            progress=context.progress,
            checkpoint=checkpoint,
        )
    if layers:
        shutil.copyfile(sparse, folder / SPARSE)
    save_module_state(folder / STATE, result.module)
    (folder / HISTORY).write_text(json.dumps(history), encoding="utf-8")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    effect: dict[str, Any] = {"epochs": result.epochs_run, "best_epoch": result.best_epoch + 1}
    effect |= {} if teacher is None else _taught(data)
    if result.best_score is not None:
        effect[f"held_out_{result.score_name}"] = round(result.best_score, 6)
    effect |= loss_effect(result.losses)
    return effect | {NOTES: data_notes(reader, "training data")}


def _fit(context: Context, step: PlannedStep, recipe: Recipe, folder: Path) -> Mapping[str, Any]:
    from edgecv.optimize.fit_normal import fit_normal
    from edgecv.optimize.prune import save_module_state

    wanted = next(item for item in recipe.steps if isinstance(item, Fit) and _same(item, step))
    module, history = _rebuild(context, step.inputs[0], recipe)
    data = _train_set(recipe, _train_reader(context, recipe))
    found = fit_normal(module, step=wanted, data=data, seed=recipe.seed, progress=context.progress)
    sparse = context.store.folder(step.inputs[0]) / SPARSE
    if sparse.is_file():
        shutil.copyfile(sparse, folder / SPARSE)
    save_module_state(folder / STATE, module)
    (folder / HISTORY).write_text(json.dumps(history), encoding="utf-8")
    return {"pictures": found.pictures, "held_out": found.held_out, "limit": round(found.limit, 6)}


def _quantize(context: Context, step: PlannedStep, recipe: Recipe, folder: Path) -> Mapping[str, Any]:
    from edgecv.build.quantize import Training, quantize

    stated = next(item for item in recipe.steps if isinstance(item, Quantize))
    wanted = replace(stated, scheme=step.params["step"]["scheme"])  # portable is what the plan made of it
    module, _ = _rebuild(context, step.inputs[0], recipe)
    training = None
    original = _rebuild(context, step.inputs[1], recipe)[0] if wanted.repair != "off" else None
    trains = wanted.method == "qat" or (wanted.repair == "full" and recipe.data.train is not None)
    if trains:
        training = Training(
            _train_set(recipe, _train_reader(context, recipe), context),
            _rebuild(context, step.inputs[1], recipe)[0] if wanted.distill else None,
            _devices(context),
            context.store.work(step.key) / CHECKPOINT,
        )
    effect = quantize(context, recipe, wanted, module=module, training=training, folder=folder, original=original)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    if wanted.method == "qat" and training is not None and training.teacher is not None:
        effect = {**effect, **_taught(training.data)}
    return effect


def _export(context: Context, step: PlannedStep, recipe: Recipe, folder: Path) -> Mapping[str, Any]:
    from edgecv.backends.program import load_program
    from edgecv.models.streaming import deploy_form
    from edgecv.optimize.export import export_program, save_program, write_onnx

    source = context.store.folder(step.inputs[0])
    if (source / ONNX).is_file():
        shutil.copyfile(source / ONNX, folder / ONNX)
    else:
        if (source / PROGRAM).is_file():
            program = load_program(source / PROGRAM)
        else:
            program = export_program(*deploy_form(_rebuild(context, step.inputs[0], recipe)[0], recipe.model.input))
        save_program(program, folder / PROGRAM)
        write_onnx(program, folder / ONNX)
    return {"onnx_bytes": (folder / ONNX).stat().st_size, "graph_sha256": sha256_file(folder / ONNX)}


def _reference(context: Context, step: PlannedStep, recipe: Recipe, folder: Path) -> Mapping[str, Any]:
    exported = context.store.folder(step.inputs[0])
    straight = (context.store.folder(step.inputs[1]) / ONNX).is_file()
    module = None if straight else _rebuild(context, step.inputs[1], recipe)[0]
    same = straight or step.inputs[2] == step.inputs[1]
    original = None if same else _rebuild(context, step.inputs[2], recipe)[0]
    reader = context.reader(recipe.data.eval)
    picked = even_indices(len(reader), REFERENCE_SAMPLES)
    ladder = collect(
        recipe,
        reader,
        picked,
        module=module,
        exported=exported,
        golden=GOLDEN_SAMPLES,
        out=folder,
        original=original,
    )
    return {"samples": len(picked), "forms": ", ".join(rung.name for rung in ladder.rungs)}


def rebuild(context: Context, key: str, recipe: Recipe) -> Any:
    """The float network of a finished load, prune, finetune or fit step."""
    return _rebuild(context, key, recipe)[0]


def _rebuild(context: Context, key: str, recipe: Recipe) -> tuple[Any, list[Any]]:
    """The module of a finished step, and its pruning history."""
    from edgecv.models.load import build_model
    from edgecv.optimize.prune import example_input, load_module_state, replay

    folder = context.store.folder(key)
    history = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    module = build_model(recipe.model, family=recipe.family, base=context.plan.base, seed=recipe.seed)
    if history:
        module = replay(module, example_input(recipe.model.input), history)
    load_module_state(folder / STATE, module)
    return module.eval(), history


def _train_reader(context: Context, recipe: Recipe) -> LabelledReader:
    if recipe.data.train is None:
        raise ModelError("this step trains and the recipe has no data.train; name a training set")
    return context.reader(recipe.data.train)


def _train_set(recipe: Recipe, reader: LabelledReader, context: Context | None = None) -> TrainSet:
    """What to train on; with a ``context`` also the recipe's sets beside its training set."""
    from edgecv.optimize.finetune import TrainSet

    validation, unlabelled = (None, None) if context is None else (context.validation(), context.unlabelled())
    return TrainSet(reader, recipe.model.input, recipe.family, validation, unlabelled)


def _taught(data: TrainSet) -> dict[str, int]:
    """What the report says of the pictures for which a teacher answered."""
    return {} if data.unlabelled is None else {"unlabelled_pictures": len(data.unlabelled)}


def _same(item: Any, step: PlannedStep) -> bool:
    return bool(json.dumps(asdict(item), sort_keys=True) == json.dumps(step.params["step"], sort_keys=True))


def _devices(context: Context) -> Any:
    from edgecv.optimize.fabric import Devices

    hardware = context.hardware
    if hardware.devices == "auto":
        return Devices(hardware.accelerator, "auto", hardware.nodes, hardware.strategy)
    return Devices(hardware.accelerator, int(hardware.devices), hardware.nodes, hardware.strategy)
