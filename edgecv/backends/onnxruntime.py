"""ONNX Runtime: the Q/DQ ONNX file, on CPU or any execution provider that is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgecv.backends import onnx_files, onnx_nodes, onnx_qdq
from edgecv.backends.common import (
    check_arrays,
    check_options,
    distribution_version,
    layout_of,
    missing_modules,
    positive_threads,
    require,
    static_shape,
)
from edgecv.core.figures import Delegation
from edgecv.core.protocols import Compiled, CompileSource
from edgecv.core.target import Target
from edgecv.core.tensor import Array, TensorSpec
from edgecv.errors import ArtifactError, EdgecvError, ToolchainError, UsageError

NAME = "onnxruntime"
SUFFIXES = (".onnx",)
MODEL = "model.onnx"

_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "providers": (list, tuple),
    "session_options": dict,
    "config": dict,
    "inter_threads": int,
    "graph_optimization": str,
}
_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_CPU = ["CPUExecutionProvider"]
_SIGNED = {"session.qdqisint8allowed": "1"}
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn")
_INT8_OPS = ("QLinear", "QGemm", "QAttention", "MatMulInteger", "ConvInteger", "DynamicQuantize", "NhwcMaxPool")
_PASSING_OPS = (
    "Clip",
    "MaxPool",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Concat",
    "Split",
    "Slice",
)
_EDGE_OPS = ("QuantizeLinear", "DequantizeLinear")
_SILENT = 4  # ONNX Runtime's severity "fatal"


def missing(*, to: Literal["compile", "run"]) -> str | None:
    """See `edgecv.core.protocols.Backend.missing`."""
    if to == "run":
        return missing_modules(["onnxruntime"], extra="onnxruntime")
    return missing_modules(["onnxruntime", "onnx"], extra="host")


def version() -> str:
    """Version of ONNX Runtime, whichever of its distributions is installed; "" where none is."""
    return distribution_version(*_DISTRIBUTIONS)


def compile(source: CompileSource, *, target: Target, out: Path, log: Path) -> Compiled:
    """Check the exported ONNX file, bring it into the form that runs fast, and prove that it loads.

    int8: constant weights are quantised now, activations become uint8, ReLU works on quantised
    values and SiLU is one node, none of which changes a number. fp16: weights and computation become
    float16, inputs and outputs stay float32.

    Raises:
        ToolchainError: ONNX Runtime or onnx is missing, or refuses the graph.
    """
    require(missing(to="compile"))
    if source.onnx is None:
        raise ToolchainError("ONNX Runtime needs an ONNX file and the export step wrote none; export the model to ONNX")
    check_options(target.engine_options, _OPTIONS, backend=NAME)
    options, notes = dict(target.engine_options), []
    model = onnx_files.read(source.onnx)
    if source.precision == "int8":
        onnx_qdq.fold_weights(model)
        left = onnx_qdq.to_uint8(model)
        onnx_qdq.clip_behind(model)
        if options.get("providers", _CPU) in (_CPU, tuple(_CPU)):
            onnx_qdq.join_silu(model)
        if left:
            # Only then: the engine's own pass would break such a file, and signed kernels are slow on x86.
            options["config"] = {**_SIGNED, **options.get("config", {})}
            notes.append("Some activations stay int8 (an operator works on the quantised values): slower on x86.")
    elif source.precision == "fp16":
        model = onnx_files.to_float16(model, log)
        notes.append("ONNX Runtime's CPU provider computes many fp16 operators in fp32; fp16 halves the file.")
    (out / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    try:
        engine = load(out / MODEL, options=options, threads=target.threads)
    except EdgecvError as error:
        raise ToolchainError(f"ONNX Runtime {version()} does not take the exported graph: {error}") from error
    inputs, outputs = engine.inputs, engine.outputs
    engine.close()
    return Compiled(MODEL, (MODEL,), "ready", True, inputs, outputs, options, tuple(notes))


def load(path: Path, *, options: Mapping[str, Any], threads: int | None) -> OnnxRuntimeEngine:
    """Load an ONNX file.

    Options: ``providers`` (names, or [name, {option: value}]; default CPU), ``session_options``
    (attributes of SessionOptions), ``config`` (session config entries, text to text; threads do not spin between runs
    unless it says so),
    ``inter_threads``, ``graph_optimization`` (none, basic, extended, all).

    Raises:
        UsageError: an unknown option or provider, or a model with open shapes.
        ToolchainError: ONNX Runtime is not installed, or has no kernel for the model.
        ArtifactError: the file is not an ONNX model.
    """
    require(missing(to="run"))
    check_options(options, _OPTIONS, backend=NAME)
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; build or copy the artifact again")
    session = _session(path, options, positive_threads(threads), optimized=None)
    return OnnxRuntimeEngine(path, session, dict(options), threads)


def _session(path: Path, options: Mapping[str, Any], threads: int | None, *, optimized: Path | None) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _SILENT
    if threads is not None:
        settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = options.get("inter_threads", 1)
    level = options.get("graph_optimization", "all")
    if level not in _LEVELS:
        raise UsageError(f"graph_optimization is {level!r}; allowed: {', '.join(_LEVELS)}")
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[level])
    for name, value in options.get("session_options", {}).items():
        if not hasattr(settings, name):
            raise UsageError(f"session_options.{name} is not an attribute of ONNX Runtime's SessionOptions")
        setattr(settings, name, value)
    # Threads that spin on after a run take the processor from what is between two runs: pre-processing and decoding.
    for name, value in {"session.force_spinning_stop": "1", **options.get("config", {})}.items():
        settings.add_session_config_entry(str(name), str(value))
    if optimized is not None:
        settings.optimized_model_filepath = str(optimized)
    providers = _providers(options.get("providers", ["CPUExecutionProvider"]), onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except (state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NoSuchFile, state.NoModel) as error:
        raise ArtifactError(f"{path} is not a model that ONNX Runtime reads ({_brief(error)})") from error
    except (state.Fail, state.NotImplemented, state.RuntimeException, state.EPFail, RuntimeError) as error:
        raise ToolchainError(f"ONNX Runtime {version()} cannot run {path} ({_brief(error)})") from error


def _brief(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def _providers(wanted: Sequence[Any], available: Sequence[str]) -> list[Any]:
    """Providers as ONNX Runtime takes them; it would silently fall back to the CPU for unknown ones."""
    chosen: list[Any] = []
    for item in wanted:
        name, settings = (item, None) if isinstance(item, str) else (item[0], dict(item[1]))
        if name not in available:
            raise ToolchainError(
                f"ONNX Runtime {version()} has no provider {name!r} here; it has {', '.join(available)}. "
                "Install the build of ONNX Runtime for it, or change engine_options.providers."
            )
        chosen.append(name if settings is None else (name, settings))
    return chosen


def _spec(value: Any) -> TensorSpec:
    text = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(text, text)
    shape = static_shape(value.name, value.shape)
    try:
        return TensorSpec(value.name, shape, np.dtype(dtype).name, layout_of(shape))
    except TypeError:
        raise UsageError(f"tensor {value.name!r} has the type {value.type}; edgecv takes arrays of numbers") from None


class OnnxRuntimeEngine:
    """A session of ONNX Runtime."""

    def __init__(self, path: Path, session: Any, options: dict[str, Any], threads: int | None) -> None:
        self._path, self._session, self._options, self._threads = path, session, options, threads
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `edgecv.core.protocols.Engine.run`."""
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        check_arrays(arrays, self.inputs)
        if self._session is None:
            raise UsageError("this engine was closed; load the model again")
        feed = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        try:
            results: list[Array] = self._session.run(self._names, feed)
        except (state.Fail, state.InvalidArgument, state.RuntimeException, RuntimeError) as error:
            raise ToolchainError(f"ONNX Runtime failed on {self._path} ({_brief(error)})") from error
        return results

    def delegation(self) -> Delegation | None:
        """Share of int8 kernels in the graph as ONNX Runtime optimised it.

        Quantise and dequantise nodes count as nodes that are not accelerated. None for a float model.
        """
        if not any(name in onnx_nodes.op_types(self._path) for name in _EDGE_OPS):
            return None
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / MODEL
            _session(self._path, self._options, self._threads, optimized=optimized)
            nodes = onnx_nodes.read_nodes(optimized)
        fast = int8_nodes(nodes)
        return Delegation(fast / max(len(nodes), 1), fast, len(nodes), "nodes in int8 kernels")

    def close(self) -> None:
        """Release the session."""
        self._session = None


def int8_nodes(nodes: Sequence[onnx_nodes.Node]) -> int:
    """How many nodes compute on quantised values: int8 kernels, and what passes their values on.

    ``nodes`` are in the order in which they run.
    """
    quantised: set[str] = set()
    count = 0
    for node in nodes:
        kernel = node.op_type.startswith(_INT8_OPS)
        passing = node.op_type in _PASSING_OPS and node.inputs[:1] and node.inputs[0] in quantised
        count += bool(kernel or passing)
        if kernel or passing or node.op_type == "QuantizeLinear":
            quantised.update(node.outputs)
    return count
