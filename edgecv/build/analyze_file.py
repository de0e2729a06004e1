"""What int8 costs by layer, read out of a compiled Q/DQ ONNX file: for artifacts whose recipe is not at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends import onnx_files
from edgecv.backends.onnx_qdq import DQ, Links, Q, links
from edgecv.core.artifact import Manifest, read_manifest
from edgecv.core.progress import Progress
from edgecv.core.sensitivity import Sensitivity, SensitivityRow
from edgecv.core.tensor import Array
from edgecv.errors import ArtifactError, UsageError
from edgecv.measure.golden import engine_inputs, first_inputs, load_golden
from edgecv.runtime.prove import GOLDEN

__all__ = ["NOTE", "analyze_file", "readable_artifact"]

NOTE = (
    "read from the compiled file: the rounding of each activation, on the artifact's golden pictures. Weights are "
    "rounded for good there, and what a range cuts off stays cut; with --recipe the table has these too"
)
SWITCHES = "edgecv_switches"


def readable_artifact(folder: Path) -> Path:
    """``folder``, or an artifact beside it that was compiled from the same int8 graph to an ONNX file.

    Raises:
        ArtifactError: the artifact is broken.
        UsageError: nothing there can be analysed; says what to do.
    """
    manifest = read_manifest(folder)
    what = f"{folder} is a {manifest.precision} artifact for {manifest.backend}"
    ask = "Name the recipe that it was built from: edgecv analyze ARTIFACT --recipe FILE"
    if manifest.precision != "int8":
        raise UsageError(f"{what}; there is no int8 in it to analyze. {ask}, with a quantize step")
    for path in (folder, *sorted(folder.parent.iterdir())):
        try:
            other = read_manifest(path)
        except ArtifactError:
            continue
        same = path == folder or (other.chain.graph and other.chain.graph == manifest.chain.graph)
        if same and other.backend == "onnxruntime" and any(entry.path == GOLDEN for entry in other.files):
            return path
    raise UsageError(
        f"{what}, and only int8 files for onnxruntime with golden pictures can be taken apart; none of the same graph "
        f"is beside it. {ask}"
    )


def analyze_file(folder: Path, *, progress: Progress) -> Sensitivity:
    """The table of an int8 artifact for ONNX Runtime: signal to noise where only one activation is rounded.

    Layers that the file joins in int8 (a concat of int8 values, for one) have no row and stay as they are.

    Raises:
        ArtifactError: the file or its golden pictures cannot be read.
        UsageError: there is no activation whose rounding could be switched off.
    """
    import onnxruntime

    manifest = read_manifest(folder)
    model = onnx_files.read(folder / manifest.model)
    subjects = _add_switches(model)
    if not subjects:
        raise UsageError(
            f"{folder / manifest.model} has no int8 activations that can be told apart; analyze its recipe"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    count = len(subjects)
    pictures = _pictures(folder, manifest, session, count)
    settings = [*np.eye(count, dtype=bool), np.ones(count, dtype=bool)]
    signal: Array | None = None
    noise = np.zeros((len(settings), len(session.get_outputs())))
    with progress.task("sensitivity", len(settings) * len(pictures)) as task:
        for picture in pictures:
            wanted = _run(session, manifest, picture, np.zeros(count, dtype=bool))
            power = np.array([np.square(array).sum() for array in wanted])
            signal = power if signal is None else signal + power
            for row, setting in enumerate(settings):
                found = _run(session, manifest, picture, setting)
                noise[row] += [np.square(one - other).sum() for one, other in zip(wanted, found, strict=True)]
                task.advance()
    assert signal is not None
    decibels = [_decibels(signal, row) for row in noise]
    rows = [
        SensitivityRow(item.layer, item.kind, (item.tensor,), value)
        for item, value in zip(subjects, decibels[:-1], strict=True)
    ]
    rows.sort(key=lambda row: (row.sqnr_db, row.layer))
    return Sensitivity(tuple(rows), len(pictures), decibels[-1])


@dataclass(frozen=True)
class _Subject:
    layer: str
    kind: str
    tensor: str


def _pictures(folder: Path, manifest: Manifest, session: Any, count: int) -> list[list[Array]]:
    """The engine's inputs for each golden picture; where it streams, for the last frame of each golden clip."""
    golden, width = load_golden(folder / GOLDEN).inputs, manifest.contract.once.planes
    pictures = []
    for row in range(len(golden)):
        inputs = first_inputs(manifest.inputs, golden[row : row + 1])
        for first in range(width, golden.shape[1], width):
            state = _run(session, manifest, inputs, np.zeros(count, dtype=bool))[1 - len(inputs) :]
            frame = engine_inputs(manifest.inputs[0], golden[row : row + 1, first : first + width])
            inputs = [frame, *(array.astype(np.float32) for array in state)]
        pictures.append(inputs)
    return pictures


def _run(session: Any, manifest: Manifest, inputs: list[Array], setting: Array) -> list[Array]:
    feed = {spec.name: array for spec, array in zip(manifest.inputs, inputs, strict=True)}
    return [np.asarray(array, dtype=np.float64) for array in session.run(None, {**feed, SWITCHES: setting})]


def _decibels(signal: Array, noise: Array) -> float:
    worst = min(float(one / other) if other > 0 else math.inf for one, other in zip(signal, noise, strict=True))
    return 10 * math.log10(worst) if 0 < worst < math.inf else math.inf if worst > 0 else -math.inf


def _add_switches(model: Any) -> list[_Subject]:
    """Put a choice behind every Q/DQ pair of an activation: rounded, or only held within the range of its int8."""
    from onnx import TensorProto, helper, numpy_helper

    found, subjects = links(model), list[_Subject]()
    behind: dict[str, list[Any]] = {}
    for node in list(model.graph.node):
        pair = _pair(node, found) if node.op_type == Q else None
        if pair is None:
            continue
        number, (readers, low, high) = len(subjects), pair
        maker = found.maker.get(node.input[0])
        layer, kind = (node.input[0], "input") if maker is None else (maker.name or maker.output[0], maker.op_type)
        subjects.append(_Subject(layer, kind, node.input[0]))
        names = [f"edgecv_{what}_{number}" for what in ("low", "high", "index", "held", "on")]
        values = (np.float32(low), np.float32(high), np.int64(number))
        model.graph.initializer.extend(
            numpy_helper.from_array(np.array(v), n) for v, n in zip(values, names[:3], strict=True)
        )
        extra = [
            helper.make_node("Clip", [node.input[0], *names[:2]], [names[3]]),
            helper.make_node("Gather", [SWITCHES, names[2]], [names[4]]),
        ]
        for reader in readers:
            name = reader.output[0]
            reader.output[0] = f"{name}_rounded"
            behind[f"{name}_rounded"] = [
                *extra,
                helper.make_node("Where", [names[4], f"{name}_rounded", names[3]], [name]),
            ]
            extra = []
    nodes = [item for node in model.graph.node for item in (node, *behind.get(node.output[0], ()))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input.append(helper.make_tensor_value_info(SWITCHES, TensorProto.BOOL, [len(subjects)]))
    return subjects


def _pair(node: Any, found: Links) -> tuple[list[Any], float, float] | None:
    """The DequantizeLinear nodes of an activation's QuantizeLinear, and the range of its int8 values in float.

    None where something else reads the int8 values.
    """
    if node.input[0] in found.constants or len(node.input) < 3:
        return None
    scale, zero = (np.asarray(found.constants[name]) for name in node.input[1:3])
    limits = np.iinfo(zero.dtype)
    low, high, name = int(limits.min), int(limits.max), node.output[0]
    readers = found.readers.get(name, [])
    if (
        len(readers) == 1
        and readers[0].op_type == "Clip"
        and all(item in found.constants for item in readers[0].input[1:])
    ):
        low, high = (int(found.constants[item]) for item in readers[0].input[1:3])
        name = readers[0].output[0]
        readers = found.readers.get(name, [])
    if scale.size != 1 or not readers or name in found.outputs or any(item.op_type != DQ for item in readers):
        return None
    return readers, (low - int(zero)) * float(scale), (high - int(zero)) * float(scale)
