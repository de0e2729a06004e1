"""OpenVINO: IR files (model.xml, model.bin) for Intel CPUs, GPUs and NPUs, and Arm CPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgecv.backends import onnx_files, onnx_qdq, openvino_qdq
from edgecv.backends.common import (
    check_arrays,
    check_options,
    distribution_version,
    layout_of,
    missing_modules,
    positive_threads,
    quiet,
    require,
    static_shape,
)
from edgecv.core.figures import Delegation
from edgecv.core.protocols import Compiled, CompileSource
from edgecv.core.target import Target
from edgecv.core.tensor import Array, TensorSpec
from edgecv.errors import ArtifactError, ToolchainError, UsageError

NAME = "openvino"
SUFFIXES = (".xml",)
MODEL, WEIGHTS = "model.xml", "model.bin"

_OPTIONS: dict[str, type | tuple[type, ...]] = {"device": str, "hint": str, "properties": dict}
_HINTS = ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")
_PRECISION_HINT = "INFERENCE_PRECISION_HINT"
_NOT_EXECUTED = ("Const", "Input", "Output")
_INT8 = ("i8", "u8")
_AUTO_NAME = re.compile(r'(<layer id=")(\d+)(" name=")([A-Z][A-Za-z]*)_\d+([^"]*")')
_INDENTATION = re.compile(r">\s+<")
_MODEL_NOTES = re.compile(r"\n\t<rt_info>.*?\n\t</rt_info>", re.DOTALL)


def missing(*, to: Literal["compile", "run"]) -> str | None:
    """See `edgecv.core.protocols.Backend.missing`."""
    if to == "run":
        return missing_modules(["openvino"], extra="openvino")
    return missing_modules(["openvino", "onnx"], extra="host")


def version() -> str:
    """Version of OpenVINO; "" where it is not installed."""
    return distribution_version("openvino")


def compile(source: CompileSource, *, target: Target, out: Path, log: Path) -> Compiled:
    """Convert the exported ONNX file to OpenVINO IR; the same input gives the same bytes.

    int8: constant weights are quantised first, without which convolutions would run in float.
    fp16: weights are stored as float16; computation is float16 where the device has it.

    Raises:
        ToolchainError: OpenVINO or onnx is missing, or OpenVINO refuses the graph.
    """
    require(missing(to="compile"))
    if source.onnx is None:
        raise ToolchainError("OpenVINO needs an ONNX file and the export step wrote none; export the model to ONNX")
    options = dict(target.engine_options)
    check_options(options, _OPTIONS, backend=NAME)
    model = onnx_files.read(source.onnx)
    if source.precision == "int8":
        onnx_qdq.fold_weights(model)
        openvino_qdq.join_quantised(model)  # reads zero points, so before they are dropped
        openvino_qdq.pad_quantised(model)
        openvino_qdq.spell_rounding(model)
        onnx_qdq.drop_zero_points(model)
        openvino_qdq.keep_reduced_axes(model)
    if source.precision == "fp16" and target.arch in ("aarch64", "arm64-apple"):
        options["properties"] = {_PRECISION_HINT: "f16", **options.get("properties", {})}
    with quiet(log):
        import openvino

        try:
            graph = openvino.Core().read_model(model.SerializeToString(deterministic=True), b"")
            openvino.save_model(graph, str(out / MODEL), compress_to_fp16=source.precision == "fp16")
        except RuntimeError as error:
            raise ToolchainError(f"OpenVINO {version()} refuses the graph ({_brief(error)}); see {log}") from error
    _make_repeatable(out / MODEL)
    runs_here, notes = True, []
    try:
        engine = load(out / MODEL, options=options, threads=target.threads)
        inputs, outputs = engine.inputs, engine.outputs
        engine.close()
    except ToolchainError as error:
        if _device(options) == "CPU":
            raise
        runs_here, notes = False, [f"Not run on this machine: {error}"]
        inputs, outputs = tuple(map(_spec, graph.inputs)), tuple(map(_spec, graph.outputs))
    return Compiled(MODEL, (MODEL, WEIGHTS), "ready", runs_here, inputs, outputs, options, tuple(notes))


def _make_repeatable(path: Path) -> None:
    """Take out what differs from one conversion to the next (running numbers in names, the tool's notes), and
    the indentation, a third of the file."""
    text = _AUTO_NAME.sub(r"\1\2\3\4_\2\5", path.read_text(encoding="utf-8"))
    text = _INDENTATION.sub("><", _MODEL_NOTES.sub("", text))
    path.write_text(text, encoding="utf-8", newline="\n")


def _device(options: Mapping[str, Any]) -> str:
    return str(options.get("device", "CPU"))


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Exception from" not in line]
    return "; ".join(lines[:2])[:300] or type(error).__name__


def _properties(options: Mapping[str, Any], threads: int | None) -> dict[str, Any]:
    """Properties for compile_model.

    A CPU with bfloat16 units would compute float layers in bfloat16 on its own accord, and the file that
    was verified on one machine would give other results on the next: float32 unless asked otherwise.
    """
    hint = str(options.get("hint", "LATENCY")).upper()
    if hint not in _HINTS:
        raise UsageError(f"engine option hint of openvino is {hint!r}; allowed: {', '.join(_HINTS)}")
    chosen: dict[str, Any] = {"PERFORMANCE_HINT": hint}
    if _device(options) == "CPU":
        chosen[_PRECISION_HINT] = "f32"
        if threads is not None:
            chosen["INFERENCE_NUM_THREADS"] = threads
    return {**chosen, **options.get("properties", {})}


def load(path: Path, *, options: Mapping[str, Any], threads: int | None) -> OpenVinoEngine:
    """Load OpenVINO IR.

    Options: ``device`` (default CPU), ``hint`` (LATENCY, THROUGHPUT), ``properties`` (OpenVINO's own,
    by name).

    Raises:
        UsageError: an unknown option, or a model with open shapes.
        ToolchainError: OpenVINO or the device is missing, or cannot run the model.
        ArtifactError: the file is not OpenVINO IR, or its weights are missing or cut short.
    """
    require(missing(to="run"))
    check_options(options, _OPTIONS, backend=NAME)
    properties = _properties(options, positive_threads(threads))
    _check_ir(path)
    with quiet(None):
        import openvino

        core = openvino.Core()
        try:
            graph = core.read_model(str(path))
        except RuntimeError as error:
            raise ArtifactError(f"{path} is not a model that OpenVINO reads ({_brief(error)})") from error
        inputs, outputs = tuple(map(_spec, graph.inputs)), tuple(map(_spec, graph.outputs))
        device = _device(options)
        try:
            compiled = core.compile_model(graph, device, properties)
            request = compiled.create_infer_request()
        except RuntimeError as error:
            here = ", ".join(core.available_devices)
            raise ToolchainError(
                f"OpenVINO {version()} cannot run {path} on {device} ({_brief(error)}); devices here: {here}"
            ) from error
    quantized = any(op.get_type_name() == "FakeQuantize" for op in graph.get_ops())
    return OpenVinoEngine(path, compiled, request, (inputs, outputs), quantized=quantized)


def _check_ir(path: Path) -> None:
    """OpenVINO hands files that it does not know to every front end it has; look first."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); copy the artifact again") from error
    if b"<net " not in head:
        raise ArtifactError(f"{path} is not OpenVINO IR: it does not begin with <net>; build it again")
    if not path.with_suffix(".bin").is_file():
        raise ArtifactError(f"{path.with_suffix('.bin')} is missing; it holds the weights of {path.name}")


def _spec(port: Any) -> TensorSpec:
    name = port.any_name if port.names else port.node.friendly_name
    partial = port.partial_shape
    if not partial.is_static:
        raise UsageError(f"tensor {name!r} has the open shape {partial}; edgecv runs fixed shapes at batch 1")
    shape = static_shape(name, list(partial.to_shape()))
    return TensorSpec(name, shape, np.dtype(port.element_type.to_dtype()).name, layout_of(shape))


class OpenVinoEngine:
    """A compiled model of OpenVINO with one infer request."""

    def __init__(
        self,
        path: Path,
        compiled: Any,
        request: Any,
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        *,
        quantized: bool,
    ) -> None:
        self._path, self._compiled, self._request, self._quantized = path, compiled, request, quantized
        self.inputs, self.outputs = specs

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `edgecv.core.protocols.Engine.run`."""
        check_arrays(arrays, self.inputs)
        if self._request is None:
            raise UsageError("this engine was closed; load the model again")
        # The engine reads the caller's memory while it runs; results are copies.
        feed = [np.ascontiguousarray(array) for array in arrays]
        try:
            results = self._request.infer(feed, share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise ToolchainError(f"OpenVINO failed on {self._path} ({_brief(error)})") from error
        return [results[index] for index in range(len(self.outputs))]

    def delegation(self) -> Delegation | None:
        """Share of executed layers whose precision is int8; None for a float model."""
        if not self._quantized or self._compiled is None:
            return None
        layers = [_layer(op) for op in self._compiled.get_runtime_model().get_ops()]
        executed = [precision for kind, precision in layers if kind not in _NOT_EXECUTED]
        fast = sum(precision in _INT8 for precision in executed)
        return Delegation(fast / max(len(executed), 1), fast, len(executed), "layers in int8 kernels")

    def close(self) -> None:
        """Release the model."""
        self._request = self._compiled = None


def _layer(op: Any) -> tuple[str, str]:
    facts = op.get_rt_info()
    return facts["layerType"].astype(str), facts["runtimePrecision"].astype(str)
