"""Core ML: an .mlpackage for iPhone, iPad and Mac. Converts anywhere; runs on macOS only."""

from __future__ import annotations

import json
import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

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
from edgecv.errors import ArtifactError, EdgecvError, ToolchainError, UsageError

NAME = "coreml"
SUFFIXES = (".mlpackage",)
MODEL = "model.mlpackage"

_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "minimum_deployment_target": str,
    "compute_units": str,
    "compute_precision": str,
}
_COMPUTE_UNITS = ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")
_COMPUTE_PRECISION = {"fp16": "FLOAT16", "fp32": "FLOAT32"}
_DEFAULT_COMPUTE: dict[Precision, str] = {"fp32": "fp32", "fp16": "fp16", "int8": "fp16"}
_MIN_MACOS = 14
_MANIFEST = "Manifest.json"
_SPEC = "Data/com.apple.CoreML/model.mlmodel"
_NAMESPACE = uuid.UUID("6f1f1f0e-3b52-5d6b-9c55-0d6f4b9b8a11")  # any fixed value: names become the same in every build
_DATE_KEY = "com.github.apple.coremltools.conversion_date"


def missing(*, to: Literal["compile", "run"]) -> str | None:
    """See `edgecv.core.protocols.Backend.missing`."""
    if to == "run":
        return _not_here() or missing_modules(["coremltools"], extra="coreml")
    return missing_modules(["torch", "coremltools"], extra="host")


def _not_here() -> str | None:
    """Why Core ML cannot run on this machine; None on a Mac that is new enough."""
    release = platform.mac_ver()[0]
    if platform.system() == "Darwin" and release and int(release.split(".")[0]) >= _MIN_MACOS:
        return None
    found = f"macOS {release}" if release else platform.system()
    return (
        f"Core ML runs on macOS {_MIN_MACOS} or newer and this is {found}; copy the artifact to a Mac and run it there"
    )


def version() -> str:
    """Version of coremltools; "" where it is not installed."""
    return distribution_version("coremltools")


def compile(source: CompileSource, *, target: Target, out: Path, log: Path) -> Compiled:
    """Convert the exported program to an ``.mlpackage`` (ML program); the same input gives the same bytes.

    Weights of an int8 model are stored as int8; what is not quantised computes in float16, as the neural engine
    does (option ``compute_precision``: fp16 or fp32). Inputs and outputs are float32.

    Raises:
        ToolchainError: coremltools is missing, there is no exported program, or it is refused.
    """
    require(missing(to="compile"))
    if source.program is None:
        raise ToolchainError("Core ML needs the torch program; a model that comes as ONNX cannot be converted for it")
    options = dict(target.engine_options)
    _check_options(options)
    package = out / MODEL
    compute = options.get("compute_precision", _DEFAULT_COMPUTE[source.precision])
    with quiet(log):
        try:
            _convert(source.program, package, int8=source.precision == "int8", compute=compute, options=options)
        except EdgecvError:
            raise
        except Exception as error:  # the converter raises any type, down to bare asserts
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise ToolchainError(f"coremltools refuses the graph ({reason}); see {log}") from error
        _make_repeatable(package)
        inputs, outputs = _specs(package)
    notes = () if _not_here() is None else ("Not run on this machine: Core ML runs on macOS only.",)
    return Compiled(MODEL, (MODEL,), "ready", not notes, inputs, outputs, options, notes)


def _check_options(options: Mapping[str, Any]) -> None:
    check_options(options, _OPTIONS, backend=NAME)
    for name, allowed in (("compute_units", _COMPUTE_UNITS), ("compute_precision", tuple(_COMPUTE_PRECISION))):
        if options.get(name, allowed[0]) not in allowed:
            raise UsageError(f"engine option {name} of coreml is {options[name]!r}; allowed: {', '.join(allowed)}")


def _convert(program: Path, package: Path, *, int8: bool, compute: str, options: Mapping[str, Any]) -> None:
    import coremltools

    from edgecv.backends.coreml_recurrent import teach_recurrent_layers
    from edgecv.backends.program import drop_quantised_above, fold_weights, load_program

    teach_recurrent_layers()
    name = options.get("minimum_deployment_target", "iOS17")
    oldest = getattr(coremltools.target, name, None)
    if oldest is None:
        raise UsageError(
            f"minimum_deployment_target is {name!r}; use one of coremltools' names, such as iOS17, macOS14"
        )
    exported = load_program(program)
    if int8:
        exported = fold_weights(exported)  # coremltools knows quantised constants, not how to make them
        # More axes are only allowed between a reshape and a transpose that coremltools can join.
        exported = drop_quantised_above(exported, _MAX_RANK)
    count = len(exported.graph_signature.user_outputs)
    shutil.rmtree(package, ignore_errors=True)
    coremltools.convert(
        exported.run_decompositions({}),
        minimum_deployment_target=oldest,
        compute_precision=getattr(coremltools.precision, _COMPUTE_PRECISION[compute]),
        outputs=[coremltools.TensorType(dtype=np.float32) for _ in range(count)],
        skip_model_load=True,
        package_dir=str(package),  # without it a copy stays in the folder for temporary files until the process ends
    )


def _make_repeatable(package: Path) -> None:
    """Take out the date, give the entries fixed identifiers, and drop what is not part of the package."""
    from coremltools.proto import Model_pb2

    path = package / _SPEC
    spec = Model_pb2.Model()
    spec.ParseFromString(path.read_bytes())
    spec.description.metadata.userDefined.pop(_DATE_KEY, None)
    path.write_bytes(spec.SerializeToString(deterministic=True))
    manifest = json.loads((package / _MANIFEST).read_text(encoding="utf-8"))
    entries, root = manifest["itemInfoEntries"], manifest["rootModelIdentifier"]
    names = {key: str(uuid.uuid5(_NAMESPACE, entry["path"])) for key, entry in entries.items()}
    manifest["itemInfoEntries"] = {names[key]: entry for key, entry in entries.items()}
    manifest["rootModelIdentifier"] = names[root]
    (package / _MANIFEST).write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")
    for item in package.iterdir():
        if item.name not in (_MANIFEST, "Data"):
            shutil.rmtree(item) if item.is_dir() else item.unlink()


_MAX_RANK = 5
_TYPES = {65568: "float32", 65552: "float16", 65600: "float64", 131104: "int32"}  # ArrayFeatureType.ArrayDataType


def _specs(package: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs as the package's own description gives them."""
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    spec = Model_pb2.Model()
    try:
        manifest = json.loads((package / _MANIFEST).read_text(encoding="utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        spec.ParseFromString((package / "Data" / root).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, DecodeError) as error:
        raise ArtifactError(f"{package} is not a Core ML package ({error}); build or copy it again") from error

    def tensor(feature: Any) -> TensorSpec:
        array = feature.type.multiArrayType
        if array.dataType not in _TYPES:
            raise ArtifactError(f"{package}: {feature.name!r} is not an array of numbers; edgecv takes arrays only")
        shape = static_shape(feature.name, list(array.shape))
        return TensorSpec(feature.name, shape, _TYPES[array.dataType], layout_of(shape))

    description = spec.description
    if not description.input or not description.output:
        raise ArtifactError(f"{package} describes no inputs or no outputs; build or copy it again")
    return tuple(map(tensor, description.input)), tuple(map(tensor, description.output))


def load(path: Path, *, options: Mapping[str, Any], threads: int | None) -> CoreMlEngine:
    """Load an ``.mlpackage``. Option ``compute_units``: ALL, CPU_AND_NE, CPU_AND_GPU or CPU_ONLY.

    Core ML decides itself how many threads it uses; ``threads`` has no effect.

    Raises:
        UsageError: an unknown option.
        ToolchainError: this is not a Mac with macOS 14 or newer, or coremltools is not installed.
        ArtifactError: the folder is not a Core ML package.
    """
    require(missing(to="run"))
    _check_options(options)
    with quiet(None):
        import coremltools

        specs = _specs(path)
        units = getattr(coremltools.ComputeUnit, options.get("compute_units", "ALL"))
        try:
            model = coremltools.models.MLModel(str(path), compute_units=units)
        except (RuntimeError, ValueError, OSError) as error:
            raise ArtifactError(f"{path} is not a model that Core ML loads ({error}); build it again") from error
    return CoreMlEngine(path, model, specs)


class CoreMlEngine:
    """A Core ML model. Runs on the device only: everything here is `deferred` on other machines."""

    def __init__(self, path: Path, model: Any, specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]) -> None:
        self._path, self._model = path, model
        self.inputs, self.outputs = specs

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `edgecv.core.protocols.Engine.run`."""
        check_arrays(arrays, self.inputs)
        if self._model is None:
            raise UsageError("this engine was closed; load the model again")
        try:
            results = self._model.predict({spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)})
        except RuntimeError as error:
            raise ToolchainError(f"Core ML failed on {self._path} ({error})") from error
        return [np.array(results[spec.name], dtype=spec.dtype).reshape(spec.shape) for spec in self.outputs]

    def delegation(self) -> Delegation | None:
        """Share of operations that Core ML plans for the neural engine or the GPU; None where it does not tell."""
        from coremltools.models.compute_plan import MLComputePlan

        if self._model is None:
            return None
        plan = MLComputePlan.load_from_path(self._model.get_compiled_model_path(), self._model.compute_unit)
        program = plan.model_structure.program
        if program is None:
            return None
        devices = []
        for operation in program.functions["main"].block.operations:
            usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
            if usage is not None:
                devices.append(type(usage.preferred_compute_device).__name__)
        fast = sum("CPU" not in name for name in devices)
        return Delegation(fast / max(len(devices), 1), fast, len(devices), "operations on neural engine or GPU")

    def close(self) -> None:
        """Release the model."""
        self._model = None
