"""The actions of each model file: compile, verify, evaluate, measure. None of them uses torch itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import backends
from edgecv.backends.common import quiet
from edgecv.build.blame import CONTENTS, SOURCE, blame_compiled, first_cause, print_compiled
from edgecv.build.context import NOTES, Context, data_notes
from edgecv.build.plan import PlannedStep, metric_name
from edgecv.build.reference import LADDER, OUTPUTS
from edgecv.core.artifact import FileEntry, file_entries, files_hash
from edgecv.core.figures import FLOAT_ONNX, FLOAT_TORCH, QDQ_TORCH, Ladder
from edgecv.core.plain import from_plain, to_plain
from edgecv.core.protocols import Compiled, CompileSource
from edgecv.core.recipe import Recipe
from edgecv.core.target import Precision, Target
from edgecv.errors import ToolchainError
from edgecv.measure.accuracy import evaluate_parts, even_indices, save_parts
from edgecv.measure.fingerprint import read_fingerprint, write_fingerprint
from edgecv.measure.host import Sampler
from edgecv.measure.ladder import Judge, Outputs, compiler_limits, ladder, load_outputs, preprocess_rung
from edgecv.measure.latency import PLANS, measure_latency
from edgecv.measure.subject import Subject, subject
from edgecv.vision.clips import picture_size, stacked

ACCURACY = "accuracy.json"
PARTS = "parts.npz"
LATENCY = "latency.json"
MODEL_FOLDER = "model"
COMPILED = "compiled.json"
LATENCY_PICTURES = 32


@dataclass(frozen=True)
class CompiledFile:
    """A finished compile step: what the backend made, and the entries of its files."""

    compiled: Compiled
    entries: tuple[FileEntry, ...]
    folder: Path

    @property
    def sha256(self) -> str:
        """One hash over all files: what every figure names."""
        return files_hash(self.entries)


def read_compiled(context: Context, key: str) -> CompiledFile:
    """The finished compile step ``key``."""
    folder = context.store.folder(key)
    raw = json.loads((folder / COMPILED).read_text(encoding="utf-8"))
    entries = tuple(from_plain(FileEntry, item) for item in raw["entries"])
    return CompiledFile(from_plain(Compiled, raw["compiled"]), entries, folder / MODEL_FOLDER)


def compile_file(exported: Path, precision: Precision, target: Target, log: Path, folder: Path) -> Mapping[str, Any]:
    """Compile the graph that an export step left in ``exported`` with the target's backend.

    Raises:
        ToolchainError: the compiler is not installed, or refused the graph.
    """
    backend = backends.get(target.backend)
    lacking = backend.missing(to="compile")
    if lacking is not None:
        raise ToolchainError(lacking)
    program = exported / "program.pt2"
    source = CompileSource(precision, exported / "model.onnx", program if program.is_file() else None)
    out = folder / MODEL_FOLDER
    shutil.rmtree(out, ignore_errors=True)  # of a run that was killed
    out.mkdir()
    made = backend.compile(source, target=target, out=out, log=log)
    entries = file_entries(out, made.files)
    plain = {"compiled": to_plain(made), "entries": to_plain(entries)}
    (folder / COMPILED).write_text(json.dumps(plain, indent=1), encoding="utf-8")
    return {"bytes": sum(entry.bytes for entry in entries), "status": made.status, "file": files_hash(entries)}


def verify_file(context: Context, step: PlannedStep, recipe: Recipe, target: Target, folder: Path) -> Mapping[str, Any]:
    """Climb the rungs from the last graph to the compiled file."""
    made, reference = read_compiled(context, step.inputs[0]), context.store.folder(step.inputs[1])
    forms, extra = load_outputs(reference / OUTPUTS)
    below = from_plain(Ladder, json.loads((reference / LADDER).read_text(encoding="utf-8")))
    last = next(forms[name] for name in (QDQ_TORCH, FLOAT_TORCH, FLOAT_ONNX) if name in forms)
    reader = context.reader(recipe.data.eval)
    samples = [reader[int(index)] for index in extra["picked"]]
    model = open_subject(context, made, recipe, target)
    try:
        buffer, fed, rows = model.input_buffer(), [], []
        for sample in samples:
            rows.append(model.run(sample.image, buffer))
            fed.append(_fed(model, sample.image, buffer))
    finally:
        model.engine.close()
    found = Outputs(f"compiled {target.backend}", tuple(np.concatenate(column) for column in zip(*rows, strict=True)))
    judge = Judge(
        recipe.family,
        recipe.model.input,
        [sample.truth for sample in samples],
        metric_name(recipe),
        pictures=[picture_size(sample.image) for sample in samples],
    )
    min_db, min_agreement = compiler_limits(step_precision(recipe))
    rungs = [
        *below.rungs,
        preprocess_rung(extra["inputs"], np.concatenate(fed), made.compiled.inputs[0]),
        judge.rung(last, found, min_db=min_db, min_agreement=min_agreement, blame="compiler"),
    ]
    first = extra["inputs"][:1]
    proven = print_compiled(target.backend, made.folder / made.compiled.model, first, made.compiled.inputs)
    if proven is not None:
        write_fingerprint(folder / CONTENTS, proven)
    climbed = ladder(
        rungs,
        below.diagnosis
        or first_cause(
            rungs,
            lambda rung: blame_compiled(
                rung,
                expected=(extra["inputs"], last),
                given=(np.concatenate(fed), found),
                pictures=[sample.image for sample in samples],
                contract=recipe.model.input,
                made=(made.folder, made.compiled),
                backend=target.backend,
                source=read_fingerprint(reference / SOURCE),
            ),
        ),
    )
    (folder / LADDER).write_text(json.dumps(to_plain(climbed)), encoding="utf-8")
    return {"first_broken": climbed.first_broken or "", "sqnr_db": to_plain(rungs[-1].sqnr_db)}


def evaluate_file(
    context: Context, step: PlannedStep, recipe: Recipe, target: Target, folder: Path
) -> Mapping[str, Any]:
    """The task metric on the whole evaluation set, through the engine and the manifest's pre-processing."""
    made = read_compiled(context, step.inputs[0])
    model = open_subject(context, made, recipe, target)
    reader = context.pictures(recipe.data.eval)
    try:
        figures, parts = evaluate_parts(model, reader, metric=metric_name(recipe), progress=context.progress)
        share = model.engine.delegation()
    finally:
        model.engine.close()
    figures = replace(figures, file_sha256=made.sha256)
    plain = {"accuracy": to_plain(figures), "delegation": to_plain(share)}
    (folder / ACCURACY).write_text(json.dumps(plain), encoding="utf-8")
    if parts is not None:
        save_parts(folder / PARTS, parts)
    notes = data_notes(reader, "evaluation data")
    return {figures.metric: round(figures.value, 6), "samples": figures.samples, NOTES: notes}


def measure_file(
    context: Context, step: PlannedStep, recipe: Recipe, target: Target, folder: Path
) -> Mapping[str, Any]:
    """Latency by the protocol, on real frames, of the very file that was evaluated."""
    made = read_compiled(context, step.inputs[0])
    reader = context.reader(recipe.data.eval)
    images = [reader[index].image for index in even_indices(len(reader), LATENCY_PICTURES)]
    model = open_subject(context, made, recipe, target)
    watch = Sampler(zones=target.thermal_zones)
    try:
        figures = measure_latency(
            model,
            images,
            fps=recipe.measure.fps,
            plan=PLANS[recipe.measure.protocol],
            watch=watch,
            progress=context.progress,
        )
    finally:
        model.engine.close()
    figures = replace(figures, events=watch.events)
    (folder / LATENCY).write_text(json.dumps(to_plain(figures)), encoding="utf-8")
    return {"p50_ms": round(figures.end_to_end.p50_ms, 4), "invalid": figures.invalid, "warnings": list(watch.notes)}


def step_precision(recipe: Recipe) -> str:
    """What the recipe's artifacts compute in: fp32, fp16 or int8."""
    methods = {getattr(step, "method", "none") for step in recipe.steps}
    return "int8" if methods & {"ptq", "qat"} else ("fp16" if "fp16" in methods else "fp32")


def open_subject(context: Context, made: CompiledFile, recipe: Recipe, target: Target) -> Subject:
    """The compiled file, loaded, with the recipe's contract and family.

    Raises:
        ModelError: its tensors do not fit the contract or the family.
    """
    with quiet(context.log):
        engine = backends.get(target.backend).load(
            made.folder / made.compiled.model, options=made.compiled.options, threads=target.threads
        )
    return subject(
        engine,
        spec=recipe.family,
        contract=recipe.model.input,
        inputs=made.compiled.inputs,
        outputs=made.compiled.outputs,
        file_sha256=made.sha256,
        threads=target.threads or 0,
    )


def _fed(model: Subject, image: Any, buffer: Any) -> Any:
    """A copy of what the engine was fed for ``image``, as real values `(1, C, H, W)`; ``buffer`` holds the last of it.

    Where the network streams, the channels of all frames follow each other, as in training.
    """
    buffers = model.fill(image, []) if model.contract.streams else [buffer]
    return np.concatenate([np.array(stacked(model.input.dequantize(one), model.input.layout)) for one in buffers], 1)
