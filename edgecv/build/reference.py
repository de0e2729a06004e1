"""Reference outputs: what each form of the model before compilation says about the same pictures.

Collected once, then every target's compiled file is held against them, here and on the device.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.stream import StreamEngine
from edgecv.build.blame import SOURCE, blame_form, blame_labels, first_cause, write_source_print
from edgecv.build.plan import metric_name
from edgecv.core.contract import InputContract
from edgecv.core.figures import FLOAT_ONNX, FLOAT_TORCH, ORIGINAL_TORCH, QDQ_TORCH, Diagnosis, Ladder, Rung
from edgecv.core.plain import to_plain
from edgecv.core.protocols import Reader
from edgecv.core.recipe import Recipe
from edgecv.core.tensor import FloatArray
from edgecv.measure.golden import Golden, decoded, save_golden
from edgecv.measure.ladder import (
    GRAPH_MIN_DB,
    MIN_AGREEMENT,
    QUANTISATION_MIN_AGREEMENT,
    QUANTISATION_MIN_DB,
    Judge,
    Outputs,
    ladder,
    save_outputs,
)
from edgecv.vision.clips import picture_size
from edgecv.vision.image import preprocess

OUTPUTS = "outputs.npz"
LADDER = "ladder.json"
GOLDEN = "golden.npz"


def collect(
    recipe: Recipe,
    reader: Reader,
    picked: Sequence[int],
    *,
    module: Any,
    exported: Path,
    golden: int,
    out: Path,
    original: Any = None,
) -> Ladder:
    """Run every form of the model on the ``picked`` samples and write outputs, rungs and golden pictures to ``out``.

    ``module`` is the tuned float torch module (None where the model came as ONNX); ``exported`` holds
    the graph that is compiled (``model.onnx``, and ``program.pt2`` from torch); the first ``golden``
    pictures are kept for the device. Of the ``original`` module, given where ``module`` was made from it by pruning or
    training, only the task metric is taken: what was lost before quantisation.

    Raises:
        ToolchainError: ONNX Runtime, which runs the float ONNX rung, is missing.
    """
    samples = [reader[index] for index in picked]
    inputs = np.stack([preprocess(sample.image, recipe.model.input) for sample in samples])
    forms: list[Outputs] = []
    quantised = recipe_is_int8(recipe)
    contract = recipe.model.input
    if module is not None:
        forms.append(Outputs(FLOAT_TORCH, _torch_outputs(module, inputs)))
        forms.append(
            Outputs(
                FLOAT_ONNX, _onnx_of(module, inputs, contract) if quantised else _run_onnx(exported, inputs, contract)
            )
        )
        if quantised:
            forms.append(Outputs(QDQ_TORCH, _torch_outputs(_program(exported, contract), inputs)))
    else:
        forms.append(Outputs(FLOAT_ONNX, _run_onnx(exported, inputs, contract)))
    truths = [sample.truth for sample in samples]
    sizes = [picture_size(sample.image) for sample in samples]
    save_outputs(out / OUTPUTS, forms, picked=np.asarray(picked, dtype=np.int64), inputs=inputs)
    first_form = None if original is None else Outputs(ORIGINAL_TORCH, _torch_outputs(original, inputs))
    found = ladder(*_rungs(recipe, forms, truths, sizes, first_form))
    (out / LADDER).write_text(json.dumps(to_plain(found)), encoding="utf-8")
    first = [sample.image for sample in samples[:golden]]
    last = Outputs(forms[-1].name, tuple(array[:golden] for array in forms[-1].arrays))
    results = decoded(last, first, recipe.family, recipe.model.input)
    save_golden(out / GOLDEN, Golden(tuple(first), inputs[:golden], last, results))
    write_source_print(exported, inputs[:1], out / SOURCE, int8=quantised)
    return found


def recipe_is_int8(recipe: Recipe) -> bool:
    """Whether the recipe's artifacts compute in int8."""
    return any(getattr(step, "method", "") in ("ptq", "qat") for step in recipe.steps)


def _rungs(
    recipe: Recipe,
    forms: Sequence[Outputs],
    truths: Sequence[Any],
    pictures: Sequence[tuple[int, int]],
    original: Outputs | None,
) -> tuple[list[Rung], tuple[Diagnosis, ...]]:
    """The rungs of the forms before compilation, and why the first that broke did."""
    judge = Judge(recipe.family, recipe.model.input, truths, metric_name(recipe), pictures=pictures)
    by_name = {form.name: form for form in forms}
    base, wrong_labels = blame_labels(judge.base(forms[0]), judge, forms[0], truths)
    rungs = [base]
    if FLOAT_TORCH in by_name:
        reference = by_name[FLOAT_TORCH]
        rungs.append(
            judge.rung(reference, by_name[FLOAT_ONNX], min_db=GRAPH_MIN_DB, min_agreement=MIN_AGREEMENT, blame="graph")
        )
        if QDQ_TORCH in by_name:
            budget = recipe.budgets.accuracy
            trained = any(getattr(step, "method", "") == "qat" for step in recipe.steps)
            rungs.append(
                judge.rung(
                    reference,
                    by_name[QDQ_TORCH],
                    min_db=None if trained else QUANTISATION_MIN_DB,
                    min_agreement=QUANTISATION_MIN_AGREEMENT,
                    blame="quantisation",
                    max_drop=None if budget is None else budget.max_drop,
                )
            )
    causes = first_cause(
        rungs,
        lambda rung: wrong_labels if rung is base else blame_form(forms[0], by_name[rung.name], rung.blame),
    )
    return ([] if original is None else [judge.base(original)]) + rungs, causes


def _torch_outputs(module: Any, inputs: FloatArray) -> tuple[FloatArray, ...]:
    """Outputs of a torch module for `(N, C, H, W)` inputs, picture by picture as on the device."""
    import torch

    rows: list[list[FloatArray]] = []
    with torch.no_grad():
        for row in inputs:
            found = module(torch.from_numpy(row[None]))
            tensors = found if isinstance(found, (tuple, list)) else (found,)
            rows.append([tensor.numpy() for tensor in tensors])
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))


def _program(exported: Path, contract: InputContract) -> Any:
    """The exported program as a network that takes pictures or whole clips."""
    from edgecv.backends.program import load_program
    from edgecv.models.streaming import whole_form

    program = load_program(exported / "program.pt2")
    return whole_form(program.module(), tuple(program.example_inputs[0]), contract)


def _onnx_of(module: Any, inputs: FloatArray, contract: InputContract) -> tuple[FloatArray, ...]:
    from edgecv.models.streaming import deploy_form
    from edgecv.optimize.export import export_program, write_onnx

    with tempfile.TemporaryDirectory() as folder:
        write_onnx(export_program(*deploy_form(module, contract)), Path(folder) / "model.onnx")
        return _run_onnx(Path(folder), inputs, contract)


def _run_onnx(folder: Path, inputs: FloatArray, contract: InputContract) -> tuple[FloatArray, ...]:
    from edgecv import backends

    engine = backends.get("onnxruntime").load(folder / "model.onnx", options={}, threads=None)
    stream = StreamEngine(engine, engine.inputs, engine.outputs)  # without a state, the engine itself
    rows = []
    try:
        for row in inputs:
            stream.reset()
            rows.append([stream.run([one[None]]) for one in np.split(row, len(row) // contract.once.planes)][-1])
    finally:
        engine.close()
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))
