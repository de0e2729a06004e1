"""What is inside a compiled model file: weights, scales and operators by name; and the values between its layers.

With them a file can be held against what it was when it was proven, and a difference can be named. Engines that do
not tell (Core ML, TensorRT, null) have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.backends.common import quiet
from edgecv.backends.onnx_contents import read_graph
from edgecv.core.tensor import Array
from edgecv.errors import ArtifactError, ToolchainError

_QUANTISING = ("QuantizeLinear", "DequantizeLinear")
_NAME_LENGTH = 80


@dataclass(frozen=True)
class Contents:
    """``weights`` by name; ``scales``: scale and zero point (one value, or one a channel) by the name of the tensor
    that they quantise; ``operators``: a hash of each operator and its settings by the name of what it makes."""

    weights: Mapping[str, Array]
    scales: Mapping[str, tuple[Array, Array]]
    operators: Mapping[str, str] = field(default_factory=dict)


def read_contents(backend: str, path: Path) -> Contents | None:
    """The contents of the model file ``path`` of the engine ``backend``; None where that engine does not tell.

    Raises:
        ArtifactError: the file is not one of this engine's.
    """
    reader = _READERS.get(backend)
    return None if reader is None else reader(path)


def layer_values(backend: str, path: Path, arrays: Sequence[Array], threads: int | None = None) -> dict[str, Array]:
    """What each layer of a model gives for the inputs ``arrays``, by name, in the order of the graph.

    {} where the engine does not tell, or refuses to. Needs the memory of all values at once.
    """
    runner = _RUNNERS.get(backend)
    if runner is None:
        return {}
    try:
        return runner(path, arrays, threads)
    except (RuntimeError, ValueError, ToolchainError):  # an engine may refuse to show what it fuses
        return {}


def _hash(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _onnx(path: Path) -> Contents:
    constants, nodes = read_graph(path)
    scales: dict[str, tuple[Array, Array]] = {}
    used: set[str] = set()
    made_by = {name: kind for kind, _, outputs, _ in nodes for name in outputs}
    for kind, inputs, _, _ in nodes:
        if kind not in _QUANTISING or len(inputs) < 2 or inputs[1] not in constants:
            continue
        zero = constants.get(inputs[2]) if len(inputs) > 2 else None
        used.update(inputs[1:3])
        if kind == "QuantizeLinear" or made_by.get(inputs[0]) != "QuantizeLinear":
            scale = constants[inputs[1]]
            scales.setdefault(inputs[0], (scale, np.zeros_like(scale, dtype=np.int64) if zero is None else zero))
    operators = {
        # Scales and zero points are compared by their values, whatever constant holds them.
        outputs[0]: _hash(kind, inputs[:1] if kind in _QUANTISING else inputs, attributes)
        for kind, inputs, outputs, attributes in nodes
        if outputs
    }
    weights = {name: value for name, value in constants.items() if name not in used}
    return Contents(weights, scales, operators)


def _openvino(path: Path) -> Contents:
    weights: dict[str, Array] = {}
    scales: dict[str, tuple[Array, Array]] = {}
    operators: dict[str, str] = {}
    for op in _openvino_graph(path).get_ordered_ops():
        kind, name = op.get_type_name(), _unique(op.get_friendly_name(), operators)
        if kind == "Constant":
            weights[name] = np.array(op.get_data())
            operators[name] = _hash(kind)
            continue
        sources = [value.get_source_output().get_node() for value in op.inputs()]
        operators[name] = _hash(kind, sorted((key, str(value)) for key, value in op.get_attributes().items()))
        if kind == "FakeQuantize" and all(source.get_type_name() == "Constant" for source in sources[1:5]):
            low, high = (np.array(source.get_data(), dtype=np.float64) for source in sources[1:3])
            steps = int(op.get_attributes()["levels"]) - 1
            scale = (high - low) / steps
            zero = np.rint(-low / np.where(scale == 0, 1, scale))
            scales[sources[0].get_friendly_name()] = (scale, zero)
            for source in sources[1:5]:
                weights.pop(source.get_friendly_name(), None)
        elif kind in ("Multiply", "Subtract") and len(sources) == 2:
            _openvino_weight_scale(kind, sources, scales, weights)
    return Contents(weights, scales, operators)


def _openvino_weight_scale(
    kind: str, sources: list[Any], scales: dict[str, tuple[Array, Array]], weights: dict[str, Array]
) -> None:
    """A stored int8 weight is Convert(Constant), less its zero point, times its scale."""
    stored = sources[0]
    while stored.get_type_name() in ("Subtract", "Convert"):
        stored = stored.input(0).get_source_output().get_node()
    constant = sources[1]
    while constant.get_type_name() in ("Convert", "Reshape", "Unsqueeze"):
        constant = constant.input(0).get_source_output().get_node()
    if stored.get_type_name() != "Constant" or constant.get_type_name() != "Constant":
        return
    if stored.get_output_element_type(0).to_dtype() not in (np.dtype(np.int8), np.dtype(np.uint8)):
        return
    name, values = stored.get_friendly_name(), np.array(constant.get_data())
    scale, zero = scales.get(name, (np.ones(1), np.zeros(1)))
    scales[name] = (values, zero) if kind == "Multiply" else (scale, values)
    weights.pop(constant.get_friendly_name(), None)


def _openvino_graph(path: Path) -> Any:
    with quiet(None):
        import openvino

        try:
            return openvino.Core().read_model(str(path))
        except RuntimeError as error:
            raise ArtifactError(f"{path} is not a model that OpenVINO reads ({error}); build it again") from error


def _litert(path: Path) -> Contents:
    interpreter = _litert_interpreter(path, None)
    nodes = _litert_nodes(interpreter)
    # Read by an operator and made by none: neither a layer's values nor the scratch memory of a kernel.
    constant = {int(index) for node in nodes for index in node["inputs"]}
    constant -= {int(index) for node in nodes for index in node["outputs"]}
    constant -= {int(detail["index"]) for detail in interpreter.get_input_details()}
    weights: dict[str, Array] = {}
    scales: dict[str, tuple[Array, Array]] = {}
    names: dict[str, Any] = {}
    by_index: dict[int, str] = {}
    for detail in interpreter.get_tensor_details():
        name = _unique(detail["name"], names)
        names[name], by_index[int(detail["index"])] = True, name
        given = detail["quantization_parameters"]
        if len(given["scales"]):
            scales[name] = (np.array(given["scales"]), np.array(given["zero_points"]))
        if int(detail["index"]) in constant:
            try:
                weights[name] = np.array(interpreter.get_tensor(detail["index"]))
            except ValueError:
                continue  # no data: an optional input that is not there
    operators = {
        by_index[int(node["outputs"][0])]: _hash(
            node["op_name"], [by_index.get(int(index)) for index in node["inputs"]]
        )
        for node in nodes
        if len(node["outputs"])
    }
    return Contents(weights, scales, operators)


def _litert_nodes(interpreter: Any) -> list[Any]:
    """Operators with their tensors; [] where this version of the runtime does not tell."""
    details = getattr(interpreter, "_get_ops_details", None)
    return [] if details is None else list(details())


def _litert_interpreter(path: Path, threads: int | None, **more: Any) -> Any:
    from edgecv.backends import litert

    lacking = litert.missing(to="run")
    if lacking is not None:
        raise ToolchainError(lacking)
    with quiet(None):
        runtime = litert._runtime()
        resolver = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            interpreter = runtime.Interpreter(
                str(path), num_threads=threads, experimental_op_resolver_type=resolver, **more
            )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{path} is not a model that LiteRT reads ({error}); build it again") from error
    return interpreter


def _unique(name: str, taken: Mapping[str, Any]) -> str:
    """A name that is not taken, at most `_NAME_LENGTH` characters, told apart by a number."""
    short = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH // 2] + "…" + name[-_NAME_LENGTH // 2 :]
    found, number = short, 1
    while found in taken:
        number += 1
        found = f"{short}#{number}"
    return found


def _onnx_values(path: Path, arrays: Sequence[Array], threads: int | None) -> dict[str, Array]:
    """The graph with every value as an output. Protobuf joins a message that is given twice, so the outputs are
    appended as a second GraphProto of the file, and no package but the runtime is needed."""
    import onnxruntime

    _, nodes = read_graph(path)
    content = path.read_bytes()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    if threads is not None:
        settings.intra_op_num_threads = threads
    here = {value.name for value in _session(content, settings).get_outputs()}
    wanted = [outputs[0] for _, _, outputs, _ in nodes if outputs and outputs[0] not in here]
    more = b"".join(_message(12, _message(1, name.encode())) for name in wanted)
    session = _session(content + _message(7, more), settings)
    names = [value.name for value in session.get_outputs()]
    given = session.get_inputs()
    values = dict(
        zip(
            names,
            _results(session, names, {item.name: array for item, array in zip(given, arrays, strict=True)}),
            strict=True,
        )
    )
    kept = [outputs[0] for _, _, outputs, _ in nodes if outputs and outputs[0] in values]
    # Stored values of a quantised tensor say nothing by themselves: their dequantised form is a layer of its own.
    return {name: values[name] for name in kept if np.issubdtype(values[name].dtype, np.floating)}


def _results(session: Any, names: list[str], feed: Mapping[str, Array]) -> list[Array]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        results: list[Array] = session.run(names, feed)
    except (state.Fail, state.InvalidArgument, state.RuntimeException) as error:
        raise ToolchainError(f"ONNX Runtime does not show the values of this graph ({error})") from error
    return results


def _session(content: bytes, settings: Any) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    except (
        state.Fail,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.InvalidArgument,
    ) as error:
        raise ToolchainError(f"ONNX Runtime does not show the values of this graph ({error})") from error


def _message(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found + bytes([value]))


def _openvino_values(path: Path, arrays: Sequence[Array], threads: int | None) -> dict[str, Array]:
    graph = _openvino_graph(path)
    with quiet(None):
        import openvino

        kept: list[Any] = []
        names: list[str] = []
        for op in graph.get_ordered_ops():
            if op.get_type_name() in ("Constant", "Parameter", "Result") or not op.outputs():
                continue
            readers = {reader.get_node().get_type_name() for reader in op.output(0).get_target_inputs()}
            static = op.get_output_partial_shape(0).is_static
            if (
                static
                and "Result" not in readers
                and np.issubdtype(op.get_output_element_type(0).to_dtype(), np.floating)
            ):
                kept.append(op.output(0))
                given = op.output(0).get_names()  # those of the ONNX graph that it was made from
                names.append(_unique(min(given) if given else op.get_friendly_name(), dict.fromkeys(names)))
        first = len(graph.outputs)
        graph.add_outputs(kept)
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        request = openvino.Core().compile_model(graph, "CPU", options).create_infer_request()
        results = request.infer(
            [np.ascontiguousarray(array) for array in arrays], share_inputs=True, share_outputs=False
        )
    return {name: np.array(results[first + index]) for index, name in enumerate(names)}


def _litert_values(path: Path, arrays: Sequence[Array], threads: int | None) -> dict[str, Array]:
    interpreter = _litert_interpreter(path, threads, experimental_preserve_all_tensors=True)
    nodes = _litert_nodes(interpreter)
    for detail, array in zip(interpreter.get_input_details(), arrays, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    details = {int(detail["index"]): detail for detail in interpreter.get_tensor_details()}
    names: dict[str, Any] = {}
    labels = {}
    for index, detail in details.items():
        labels[index] = _unique(detail["name"], names)
        names[labels[index]] = True
    found: dict[str, Array] = {}
    for node in nodes:
        index = int(node["outputs"][0])
        given = details[index]["quantization_parameters"]
        value = np.array(interpreter.get_tensor(index))
        if len(given["scales"]) == 1:
            value = (value.astype(np.float32) - given["zero_points"][0]) * given["scales"][0]
        found[labels[index]] = value
    return found


_READERS: dict[str, Callable[[Path], Contents]] = {"onnxruntime": _onnx, "openvino": _openvino, "litert": _litert}
_RUNNERS: dict[str, Callable[[Path, Sequence[Array], int | None], dict[str, Array]]] = {
    "onnxruntime": _onnx_values,
    "openvino": _openvino_values,
    "litert": _litert_values,
}
