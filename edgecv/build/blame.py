"""Why a rung of the ladder broke while an artifact was being made: what `edgecv verify` names later, named here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecv.backends.contents import Contents, layer_values, read_contents
from edgecv.core.contract import InputContract
from edgecv.core.figures import Diagnosis, Rung
from edgecv.core.protocols import Compiled
from edgecv.core.state import split_state
from edgecv.core.tensor import Array, FloatArray, TensorSpec
from edgecv.measure.diagnose_decode import diagnose_truths
from edgecv.measure.diagnose_graph import diagnose_graph, diagnose_outputs
from edgecv.measure.diagnose_input import diagnose_input
from edgecv.measure.fingerprint import Fingerprint, fingerprint, write_fingerprint
from edgecv.measure.golden import first_inputs
from edgecv.measure.ladder import Judge, Outputs

SOURCE = "source.json"
"""Weights and layers of the graph that is compiled, written beside the reference outputs."""
CONTENTS = "contents.json"
"""The same of a compiled file, which goes into the artifact."""
ENGINE_INPUT = "engine input"


def write_source_print(exported: Path, inputs: FloatArray, path: Path, *, int8: bool) -> None:
    """Write the fingerprint of the exported graph, its weights quantised, and of what its layers give for one input.

    ``inputs`` is `(1, C, H, W)`, of the first golden picture.
    """
    from edgecv.backends import onnx_files, onnx_qdq

    with tempfile.TemporaryDirectory() as folder:
        model = onnx_files.read(exported / "model.onnx")
        if int8:
            onnx_qdq.fold_weights(model)
        folded = Path(folder) / "model.onnx"
        folded.write_bytes(model.SerializeToString(deterministic=True))
        contents = read_contents("onnxruntime", folded)
        layers = layer_values("onnxruntime", folded, first_inputs(_onnx_inputs(model), inputs))
    # Backends rewrite operators, and with them scales and zero points; weights and values of layers stay.
    found = Contents({} if contents is None else contents.weights, {})
    write_fingerprint(path, fingerprint(found, layers))


def _onnx_inputs(model: Any) -> list[TensorSpec]:
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    return [
        TensorSpec(name, tuple(item.dim_value for item in dims), "float32", "NCHW") for name, dims in shapes.items()
    ]


def print_compiled(backend: str, model: Path, inputs: FloatArray, specs: Sequence[TensorSpec]) -> Fingerprint | None:
    """The fingerprint of a compiled file; None for engines that do not tell.

    ``inputs`` `(1, C, H, W)` are of the first golden picture.
    """
    contents = read_contents(backend, model)
    if contents is None:
        return None
    return fingerprint(contents, layer_values(backend, model, first_inputs(specs, inputs), 1))


def blame_labels(base: Rung, judge: Judge, form: Outputs, truths: Sequence[Any]) -> tuple[Rung, tuple[Diagnosis, ...]]:
    """The rung that the ladder stands on: it breaks where the truths are right but for the order of the labels."""
    causes = diagnose_truths(judge.results(form) or [], truths)
    return (replace(base, outcome="fail", blame="metric"), causes) if causes else (base, ())


def blame_form(reference: Outputs, other: Outputs, blame: str) -> tuple[Diagnosis, ...]:
    """Why a form of the model before compilation gives other outputs than the one that it was made from."""
    specs = [TensorSpec(f"output {i}", (1, *array.shape[1:]), "float32") for i, array in enumerate(reference.arrays)]
    return tuple(replace(cause, rung=blame) for cause in diagnose_outputs(reference.arrays, other.arrays, specs))


def blame_compiled(
    rung: Rung,
    *,
    expected: tuple[FloatArray, Outputs],
    given: tuple[FloatArray, Outputs],
    pictures: Sequence[Array],
    contract: InputContract,
    made: tuple[Path, Compiled],
    backend: str,
    source: Fingerprint | None,
) -> tuple[Diagnosis, ...]:
    """Why the engine's input or its outputs differ; ``expected`` and ``given`` are network inputs and outputs."""
    if rung.name == ENGINE_INPUT:
        return diagnose_input(expected[0], given[0], pictures, contract)
    folder, compiled = made
    model = folder / compiled.model
    contents = read_contents(backend, model)
    causes: tuple[Diagnosis, ...] = ()
    if source is not None and contents is not None:
        causes = diagnose_graph(source, contents)
    if causes:
        return causes
    first = first_inputs(compiled.inputs, expected[0][:1])
    layers: Mapping[str, Array] = layer_values(backend, model, first, 1)
    answers = split_state(compiled.inputs, compiled.outputs)[0]
    return diagnose_outputs(expected[1].arrays, given[1].arrays, answers, recorded=source, layers=layers)


def first_cause(rungs: Sequence[Rung], why: Callable[[Rung], tuple[Diagnosis, ...]]) -> tuple[Diagnosis, ...]:
    """What ``why`` says of the first rung that broke; () where none did."""
    broken = next((rung for rung in rungs if rung.outcome == "fail"), None)
    return () if broken is None else why(broken)
