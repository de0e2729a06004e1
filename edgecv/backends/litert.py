"""LiteRT (TensorFlow Lite): a .tflite file, with XNNPACK or another delegate."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgecv.backends.common import (
    check_arrays,
    check_options,
    distribution_version,
    installed,
    layout_of,
    missing_modules,
    positive_threads,
    quiet,
    require,
    static_shape,
)
from edgecv.backends.litert_floats import hold_floats
from edgecv.core.figures import Delegation
from edgecv.core.protocols import Compiled, CompileSource
from edgecv.core.target import Target
from edgecv.core.tensor import Array, Quantization, TensorSpec
from edgecv.errors import ArtifactError, EdgecvError, ToolchainError, UsageError

NAME = "litert"
SUFFIXES = (".tflite",)
MODEL = "model.tflite"

_OPTIONS: dict[str, type | tuple[type, ...]] = {"delegate": str, "delegate_options": dict, "output_layout": str}
_RUNTIMES = ("ai_edge_litert", "tflite_runtime", "tensorflow")
_IDENTIFIER = b"TFL3"  # flatbuffer file identifier, at byte 4
_PICTURE_CHANNELS = (1, 3, 4)


def missing(*, to: Literal["compile", "run"]) -> str | None:
    """See `edgecv.core.protocols.Backend.missing`. To run, `tflite_runtime` and `tensorflow` will do as well."""
    if to == "run":
        if any(installed(name) for name in _RUNTIMES):
            return None
        return missing_modules(["ai_edge_litert"], extra="litert")
    return missing_modules(["torch", "litert_torch", "ai_edge_quantizer", "ai_edge_litert"], extra="host")


def version() -> str:
    """Version of the LiteRT runtime, whichever distribution brings it; "" where none is installed."""
    return distribution_version("ai-edge-litert", "tflite-runtime", "tensorflow")


def compile(source: CompileSource, *, target: Target, out: Path, log: Path) -> Compiled:
    """Convert the exported program to ``model.tflite``.

    Pictures go in as NHWC, which saves a transpose; rank-4 outputs keep the network's NCHW (engine
    option ``output_layout``); a state is NHWC on both sides. int8 files take and give int8; what is float in
    the graph stays float. fp16 stores the weights of convolutions and linear layers as float16; the runtime
    widens them when it loads the file.

    Raises:
        ToolchainError: a converter is missing, there is no exported program, or it is refused.
    """
    require(missing(to="compile"))
    if source.program is None:
        raise ToolchainError("LiteRT needs the torch program; a model that comes as ONNX cannot be converted for it")
    check_options(target.engine_options, _OPTIONS, backend=NAME)
    options = {**target.engine_options, "output_layout": "NCHW"}
    path = out / MODEL
    with quiet(log):
        try:
            content = _convert(source.program, int8=source.precision == "int8")
            if source.precision == "fp16":
                content = _to_float16(content)
        except EdgecvError:
            raise
        except Exception as error:  # the converter raises whatever its compiler passes raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise ToolchainError(f"litert-torch refuses the graph ({reason}); see {log}") from error
    path.write_bytes(content)
    try:
        engine = load(path, options={**options, "delegate": "none"}, threads=target.threads)
    except ArtifactError as error:
        raise ToolchainError(f"LiteRT {version()} does not take what litert-torch made: {error}") from error
    inputs, outputs = engine.inputs, engine.outputs
    engine.close()
    states = len(inputs) - 1
    answers = len(outputs) - states
    # The file does not say which of its tensors are pictures; a state has the layout of pictures, in and out.
    inputs = (*inputs[:1], *(_channels_last(spec) for spec in inputs[1:]))
    outputs = (*outputs[:answers], *(_channels_last(spec) for spec in outputs[answers:]))
    return Compiled(MODEL, (MODEL,), "ready", True, inputs, outputs, options)


def _channels_last(spec: TensorSpec) -> TensorSpec:
    return replace(spec, layout=layout_of(spec.shape, channels_last=True))


def _convert(program: Path, *, int8: bool) -> bytes:
    """Flatbuffer bytes of the exported program (the converter wants a module, and exports it again)."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    from edgecv.backends.program import load_program

    exported = load_program(program)
    samples = list(exported.example_inputs[0])
    module = exported.module()
    if int8:
        hold_floats(module)
    pictures = [index for index, sample in enumerate(samples) if sample.ndim == 4]
    for index in pictures:
        samples[index] = samples[index].permute(0, 2, 3, 1).contiguous()
    # A state that went out as NCHW would have to be turned before it goes in again.
    answers = len(exported.graph_signature.user_outputs) - len(samples) + 1
    states = [answers + index - 1 for index in pictures if index > 0]
    wrapped = litert_torch.to_channel_last_io(module, args=pictures, outputs=states) if pictures else module
    for part in wrapped.modules():
        part.training = False  # an exported module cannot be switched by eval(), and the converter looks at this
    # The quantizer is not used: the graph is quantised already. It only tells the converter to read Q/DQ as static.
    static = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_dynamic=False))
    edge = litert_torch.convert(wrapped, tuple(samples), quant_config=QuantConfig(static) if int8 else None)
    return bytes(edge.model_content())


def _to_float16(content: bytes) -> bytes:
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    caster = quantizer.Quantizer(bytearray(content))
    caster.update_quantization_recipe(
        ".*", qtyping.TFLOperationName.ALL_SUPPORTED, config, algorithm_manager.AlgorithmName.FLOAT_CASTING
    )
    return bytes(caster.quantize().quantized_model)


def load(path: Path, *, options: Mapping[str, Any], threads: int | None) -> LiteRtEngine:
    """Load a .tflite file.

    Options: ``delegate`` (xnnpack, none, or the path of a delegate library), ``delegate_options``
    (text to text), ``output_layout`` (of rank-4 outputs, NCHW or NHWC; default NHWC). Without
    ``threads`` LiteRT uses one.

    Raises:
        UsageError: an unknown option, or a model with open shapes.
        ToolchainError: no runtime is installed, or the delegate cannot be loaded.
        ArtifactError: the file is not a .tflite model.
    """
    require(missing(to="run"))
    check_options(options, _OPTIONS, backend=NAME)
    if options.get("output_layout", "NHWC") not in ("NCHW", "NHWC"):
        raise UsageError(f"engine option output_layout of litert is {options['output_layout']!r}; allowed: NCHW, NHWC")
    _check_file(path)
    with quiet(None):
        runtime = _runtime()
        settings = _settings(runtime, options)
        try:
            interpreter = runtime.Interpreter(str(path), num_threads=positive_threads(threads), **settings)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            if "Flatbuffer" in reason or "mmap" in reason:
                raise ArtifactError(f"{path} is not a model that LiteRT reads ({reason}); build it again") from error
            raise ToolchainError(f"LiteRT {version()} cannot run {path} ({reason})") from error
    return LiteRtEngine(path, interpreter, nchw_outputs=options.get("output_layout") == "NCHW")


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); copy the artifact again") from error
    if head[4:] != _IDENTIFIER:
        raise ArtifactError(f"{path} is not a .tflite file: bytes 4 to 7 are {head[4:]!r}, not {_IDENTIFIER!r}")


def _runtime() -> Any:
    """The module with Interpreter, from whichever distribution is installed."""
    if installed("ai_edge_litert"):
        from ai_edge_litert import interpreter
    elif installed("tflite_runtime"):
        from tflite_runtime import interpreter
    else:
        from tensorflow.lite.python import interpreter  # type: ignore[import-untyped]
    return interpreter


def _settings(runtime: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    delegate = options.get("delegate", "xnnpack")
    if delegate == "xnnpack":
        return {}  # on by default
    bare = {"experimental_op_resolver_type": runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    if delegate == "none":
        return bare
    try:
        ctypes.CDLL(delegate)  # the runtime's own loader leaves a broken object behind where this fails
        loaded = runtime.load_delegate(delegate, options.get("delegate_options") or None)
    except (OSError, ValueError) as error:
        raise ToolchainError(
            f"the delegate {delegate!r} cannot be loaded ({error}); allowed are xnnpack, none, or the path of a library"
        ) from error
    return {"experimental_delegates": [loaded]}


def _spec(detail: Mapping[str, Any], *, channels_last: bool) -> TensorSpec:
    name, shape = detail["name"], tuple(int(length) for length in detail["shape"])
    open_lengths = [length for length in list(detail.get("shape_signature", shape))[1:] if length < 1]
    shape = static_shape(name, detail["shape_signature"].tolist() if open_lengths else shape)
    scales = detail["quantization_parameters"]
    quantization = None
    if len(scales["scales"]) == 1 and np.dtype(detail["dtype"]).kind in "iu":
        quantization = Quantization(float(scales["scales"][0]), int(scales["zero_points"][0]))
    layout = layout_of(shape, channels_last=channels_last)
    return TensorSpec(name, shape, np.dtype(detail["dtype"]).name, layout, quantization)


def _is_nhwc(detail: Mapping[str, Any]) -> bool:
    """Whether a picture input has its channels last: so in LiteRT unless only axis 1 looks like channels."""
    shape = detail["shape"]
    return not (len(shape) == 4 and shape[1] in _PICTURE_CHANNELS and shape[3] not in _PICTURE_CHANNELS)


class LiteRtEngine:
    """An interpreter of LiteRT."""

    def __init__(self, path: Path, interpreter: Any, *, nchw_outputs: bool) -> None:
        self._path, self._interpreter = path, interpreter
        ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = tuple(_spec(detail, channels_last=_is_nhwc(detail)) for detail in ins)
        self.outputs = tuple(_spec(detail, channels_last=not nchw_outputs) for detail in outs)
        self._in = [detail["index"] for detail in ins]
        self._out = [detail["index"] for detail in outs]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `edgecv.core.protocols.Engine.run`."""
        check_arrays(arrays, self.inputs)
        if self._interpreter is None:
            raise UsageError("this engine was closed; load the model again")
        try:
            for index, array in zip(self._in, arrays, strict=True):
                self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ToolchainError(f"LiteRT failed on {self._path} ({error})") from error
        return [self._interpreter.get_tensor(index) for index in self._out]

    def delegation(self) -> Delegation | None:
        """Share of operators that a delegate took over; None where the runtime does not tell."""
        details = getattr(self._interpreter, "_get_ops_details", None)
        if details is None:
            return None
        nodes = details()
        delegates = [node for node in nodes if "delegate" in node["op_name"].lower()]
        original = [node for node in nodes if node not in delegates]
        taken = _covered(delegates, original)
        return Delegation(taken / max(len(original), 1), taken, len(original), "operators taken by a delegate")

    def close(self) -> None:
        """Release the interpreter."""
        self._interpreter = None


def _covered(delegates: Sequence[Mapping[str, Any]], original: Sequence[Mapping[str, Any]]) -> int:
    """How many of the ``original`` operators lie between the inputs and the outputs of a delegate.

    The runtime lists delegate nodes beside the operators that they replaced, without saying which.
    """
    maker = {int(tensor): index for index, node in enumerate(original) for tensor in node["outputs"]}
    covered: set[int] = set()
    for delegate in delegates:
        known = {int(tensor) for tensor in delegate["inputs"]}
        waiting = [int(tensor) for tensor in delegate["outputs"]]
        while waiting:
            tensor = waiting.pop()
            index = maker.get(tensor)
            if tensor in known or index is None or index in covered:
                continue
            covered.add(index)
            waiting.extend(int(item) for item in original[index]["inputs"])
    return len(covered)
