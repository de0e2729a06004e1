"""TensorRT: off the board a checked ONNX file and build options; on the board an engine.

An engine can only be built by the GPU that will run it. `compile` therefore gives an artifact with
status ``deferred``, and `build` (the command `edgecv build`, on the board) completes it. `build` and
`load` run on the device only; which calls each TensorRT version needs is in `VERSIONS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgecv.backends import cudart, onnx_files, onnx_qdq, tensorrt_rules
from edgecv.backends.common import (
    check_arrays,
    check_options,
    distribution_version,
    layout_of,
    missing_modules,
    quiet,
    require,
    static_shape,
)
from edgecv.core.figures import Delegation
from edgecv.core.protocols import Compiled, CompileSource
from edgecv.core.target import Precision, Target
from edgecv.core.tensor import Array, TensorSpec
from edgecv.errors import ArtifactError, ToolchainError, UsageError

NAME = "tensorrt"
SUFFIXES = (".engine", ".plan")
MODEL, ENGINE, BUILD = "model.onnx", "model.engine", "build.json"

_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "tensorrt": int,
    "workspace_mb": int,
    "timing_cache": str,
    "dla": (bool, int),
    "hardware_compatible": bool,
    "version_compatible": bool,
    "optimization_level": int,
}
_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11", "tensorrt-lean", "tensorrt-dispatch")
_MB = 1 << 20


@dataclass(frozen=True)
class ApiVersion:
    """What differs between the major versions of TensorRT.

    ``opset`` is the newest that its ONNX parser reads; ``network_flags`` and ``precision_flags`` name
    members of NetworkDefinitionCreationFlag and BuilderFlag (8 chooses precisions by flag; from 10 on
    the network's own types hold); ``dla`` says whether deep learning accelerators are supported.
    """

    opset: int
    network_flags: tuple[str, ...]
    precision_flags: Mapping[Precision, tuple[str, ...]]
    dla: bool


VERSIONS: dict[int, ApiVersion] = {
    8: ApiVersion(17, ("EXPLICIT_BATCH",), {"fp32": (), "fp16": ("FP16",), "int8": ("INT8",)}, dla=True),
    10: ApiVersion(20, ("STRONGLY_TYPED",), {"fp32": (), "fp16": (), "int8": ()}, dla=True),
    11: ApiVersion(25, (), {"fp32": (), "fp16": (), "int8": ()}, dla=False),
}
_DEFAULT_MAJOR = 10


@dataclass(frozen=True)
class BuildOptions:
    """What ``build.json`` holds: everything that the board needs to know to build the engine."""

    precision: Precision
    workspace_mb: int | None = None
    timing_cache: str | None = None
    dla: int | None = None
    hardware_compatible: bool = False
    version_compatible: bool = False
    optimization_level: int | None = None


def missing(*, to: Literal["compile", "run"]) -> str | None:
    """See `edgecv.core.protocols.Backend.missing`."""
    if to == "run":
        return missing_modules(["tensorrt"], extra="tensorrt")
    return missing_modules(["onnx", "onnxruntime"], extra="host")


def version() -> str:
    """Version of TensorRT; "" where it is not installed."""
    return distribution_version(*_DISTRIBUTIONS)


def compile(source: CompileSource, *, target: Target, out: Path, log: Path) -> Compiled:
    """Check the exported graph against TensorRT's rules and write ``model.onnx`` and ``build.json``.

    The engine option ``tensorrt`` names the board's major version (8, 10 or 11; default 10), which
    decides the ONNX opset. fp16: the ONNX file itself becomes float16, inputs and outputs stay float32.

    Raises:
        UsageError: an unknown option or version.
        ToolchainError: onnx is missing, or the graph breaks a rule; every broken rule names its node.
    """
    require(missing(to="compile"))
    if source.onnx is None:
        raise ToolchainError("TensorRT needs an ONNX file and the export step wrote none; export the model to ONNX")
    options = _build_options(target.engine_options, source.precision)
    api = _api(target.engine_options.get("tensorrt", _DEFAULT_MAJOR))
    if options.dla is not None and not api.dla:
        raise UsageError("engine option dla: TensorRT 11 has no support for DLA; use false")
    model = onnx_files.lower_opset(onnx_files.read(source.onnx), api.opset, log)
    if source.precision == "int8":
        onnx_qdq.fold_weights(model)
        broken = tensorrt_rules.problems(model)
        if broken:
            raise ToolchainError("the graph breaks TensorRT's rules for int8:\n  " + "\n  ".join(broken))
    elif source.precision == "fp16":
        model = onnx_files.to_float16(model, log)
    (out / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    (out / BUILD).write_text(json.dumps(asdict(options), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    inputs, outputs = onnx_files.specs(model)
    note = "The engine is built on the board: run `edgecv build` there."
    return Compiled(MODEL, (MODEL, BUILD), "deferred", False, inputs, outputs, dict(target.engine_options), (note,))


def _build_options(options: Mapping[str, Any], precision: Precision) -> BuildOptions:
    check_options(options, _OPTIONS, backend=NAME)
    dla = options.get("dla", False)
    core = None if dla is False else int(dla) if dla is not True else 0
    cache = options.get("timing_cache")
    if cache is not None and Path(cache).name != cache:
        raise UsageError(f"engine option timing_cache is {cache!r}; it must be a file name without a folder")
    kept = {name: value for name, value in options.items() if name not in ("tensorrt", "dla")}
    return BuildOptions(precision=precision, dla=core, **kept)


def _api(major: int) -> ApiVersion:
    if major not in VERSIONS:
        raise UsageError(f"TensorRT {major} is not supported; edgecv builds for {', '.join(map(str, VERSIONS))}")
    return VERSIONS[major]


def build(folder: Path, *, log: Path) -> Compiled:
    """Complete a deferred artifact on the board: build ``model.engine`` from ``model.onnx`` and ``build.json``.

    A timing cache named in the options is kept in ``folder`` and makes the next build fast.

    Raises:
        ToolchainError: TensorRT is missing or too old, or it refuses the graph.
        ArtifactError: one of the two files is missing or damaged.
    """
    require(missing(to="run"))
    options = _read_options(folder / BUILD)
    with quiet(log):
        import tensorrt as trt

        content = _serialized(trt, (folder / MODEL).read_bytes(), options, folder)
    (folder / ENGINE).write_bytes(content)
    engine = load(folder / ENGINE, options={}, threads=None)
    inputs, outputs = engine.inputs, engine.outputs
    engine.close()
    note = f"Built on this machine by TensorRT {trt.__version__}."
    return Compiled(ENGINE, (ENGINE, MODEL, BUILD), "ready", True, inputs, outputs, {}, (note,))


def _read_options(path: Path) -> BuildOptions:
    try:
        options = BuildOptions(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is not a file of build options ({error}); get the artifact again") from error
    if not (path.parent / MODEL).is_file():
        raise ArtifactError(f"{path.parent / MODEL} is missing; get the artifact again")
    return options


def api_of(trt: Any) -> ApiVersion:
    """The row of `VERSIONS` for an imported tensorrt module.

    Raises:
        ToolchainError: a version that edgecv does not know.
    """
    major, minor = (int(part) for part in trt.__version__.split(".")[:2])
    if major not in VERSIONS or (major, minor) < (8, 6):
        raise ToolchainError(f"TensorRT {trt.__version__} is installed; edgecv builds with 8.6, 10.x and 11.x")
    return VERSIONS[major]


def configure(trt: Any, builder: Any, options: BuildOptions, folder: Path) -> tuple[Any, Any]:
    """Network and builder configuration as the installed version wants them.

    Raises:
        ToolchainError: unknown version, or an option that it cannot fulfil.
    """
    api = api_of(trt)
    flags = 0
    for name in api.network_flags:
        flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))
    network, config = builder.create_network(flags), builder.create_builder_config()
    wanted = list(api.precision_flags[options.precision])
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * _MB)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.dla is not None:
        if not api.dla:
            raise ToolchainError(
                f"TensorRT {trt.__version__} has no support for DLA; set the target's option dla: false"
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla
        wanted.append("GPU_FALLBACK")
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        wanted.append("VERSION_COMPATIBLE")
    if hasattr(trt.BuilderFlag, "SPARSE_WEIGHTS"):  # 2:4 weights then skip their zeros; dense ones are as before
        wanted.append("SPARSE_WEIGHTS")
    for name in wanted:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if options.timing_cache is not None:
        path = folder / options.timing_cache
        config.set_timing_cache(config.create_timing_cache(path.read_bytes() if path.is_file() else b""), False)
    return network, config


def _serialized(trt: Any, model: bytes, options: BuildOptions, folder: Path) -> bytes:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network, config = configure(trt, builder, options, folder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise ToolchainError(f"TensorRT {trt.__version__} cannot read {MODEL}: {errors}")
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # lets the engine tell its layers' types
    content = builder.build_serialized_network(network, config)
    if content is None:
        raise ToolchainError(f"TensorRT {trt.__version__} could not build the engine; the log holds its reasons")
    if options.timing_cache is not None:
        (folder / options.timing_cache).write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(content)


def load(path: Path, *, options: Mapping[str, Any], threads: int | None) -> TensorRtEngine:
    """Load an engine that was built on this machine. ``threads`` has no effect on a GPU.

    Raises:
        ToolchainError: TensorRT or the GPU is missing, or the artifact is still deferred.
        ArtifactError: the file is missing, or not an engine of this TensorRT version and GPU.
    """
    check_options(options, _OPTIONS, backend=NAME)
    if path.suffix == ".onnx":
        raise ToolchainError(f"{path} is not built yet: run `edgecv build {path.parent}` on the board")
    require(missing(to="run"))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); build it again") from error
    with quiet(None):
        import tensorrt as trt

        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        runtime.engine_host_code_allowed = bool(options.get("version_compatible", False))
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise ArtifactError(
            f"{path} is not an engine of TensorRT {trt.__version__} for this GPU; run `edgecv build` on this machine"
        )
    return TensorRtEngine(path, trt, (runtime, engine))


class TensorRtEngine:
    """An engine with one execution context, its own stream and GPU buffers. Runs on the device only."""

    def __init__(self, path: Path, trt: Any, loaded: tuple[Any, Any]) -> None:
        self._path, self._trt = path, trt
        self._runtime, self._engine = loaded  # the engine needs its runtime as long as it lives
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        mode = {name: self._engine.get_tensor_mode(name) for name in names}
        self.inputs = tuple(self._spec(name) for name in names if mode[name] == trt.TensorIOMode.INPUT)
        self.outputs = tuple(self._spec(name) for name in names if mode[name] == trt.TensorIOMode.OUTPUT)
        self._stream = cudart.Stream()
        self._buffers: dict[str, cudart.Buffer] = {}
        for spec in (*self.inputs, *self.outputs):
            size = int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
            self._buffers[spec.name] = cudart.Buffer(size)
            self._context.set_tensor_address(spec.name, self._buffers[spec.name].address)

    def _spec(self, name: str) -> TensorSpec:
        shape = static_shape(name, list(self._engine.get_tensor_shape(name)))
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))).name
        return TensorSpec(name, shape, dtype, layout_of(shape))

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `edgecv.core.protocols.Engine.run`."""
        check_arrays(arrays, self.inputs)
        if self._context is None:
            raise UsageError("this engine was closed; load the model again")
        held = [np.ascontiguousarray(array) for array in arrays]
        for spec, array in zip(self.inputs, held, strict=True):
            self._buffers[spec.name].copy(array, cudart.TO_DEVICE, self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise ToolchainError(f"TensorRT failed to start {self._path}")
        results = [np.empty(spec.shape, spec.dtype) for spec in self.outputs]
        for spec, array in zip(self.outputs, results, strict=True):
            self._buffers[spec.name].copy(array, cudart.TO_HOST, self._stream)
        self._stream.wait()
        return results

    def delegation(self) -> Delegation | None:
        """Share of layers with an int8 output, as the engine's inspector tells; None where it does not."""
        if self._engine is None:
            return None
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        layers = json.loads(text).get("Layers", [])
        if not layers or not all(isinstance(layer, dict) for layer in layers):
            return None
        fast = sum("int8" in json.dumps(layer.get("Outputs", [])).lower() for layer in layers)
        return Delegation(fast / len(layers), fast, len(layers), "layers with int8 outputs")

    def close(self) -> None:
        """Release GPU memory and the engine."""
        for buffer in self._buffers.values():
            buffer.close()
        self._stream.close()
        self._context = self._engine = self._runtime = None
