"""The null engine: a fixed, cheap function of the input, on numpy alone.

It stands where the cost of everything but inference is to be measured (camera, pre-processing,
tracking, sinks), and where a loop is tried on a machine without an engine. It knows nothing about
the network but its inputs and outputs:

    m[j]   = mean of channel j, over all inputs one after the other (m has M values)
    out[k] = m[k mod M] / (1 + k // M)

where k counts the elements of each output, row by row. Real values are quantised to the output's
type where it has a scale.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgecv.backends import onnx_files
from edgecv.backends.common import check_arrays, check_options, missing_modules, require
from edgecv.core.figures import Delegation
from edgecv.core.protocols import Compiled, CompileSource
from edgecv.core.target import Target
from edgecv.core.tensor import Array, FloatArray, Quantization, TensorSpec
from edgecv.errors import ArtifactError, ToolchainError

NAME = "null"
SUFFIXES = (".null",)
MODEL = "model.null"
_FORMAT = "edgecv-null-1"
_MAX_BYTES = 1 << 20
_OPTIONS: dict[str, type | tuple[type, ...]] = {"delay_ms": (int, float)}
_CHANNEL_AXIS = {"NCHW": 1, "NHWC": 3, "NC": 1}


def missing(*, to: Literal["compile", "run"]) -> str | None:
    """Nothing is ever missing to run; compiling reads the ONNX file with onnx."""
    return missing_modules(["onnx"], extra="host") if to == "compile" else None


def version() -> str:
    """Version of the engine's function."""
    return "1"


def compile(source: CompileSource, *, target: Target, out: Path, log: Path) -> Compiled:
    """Write the network's inputs and outputs as ``model.null`` (JSON).

    Raises:
        ToolchainError: there is no ONNX file, or onnx is not installed.
    """
    require(missing(to="compile"))
    check_options(target.engine_options, _OPTIONS, backend=NAME)
    if source.onnx is None:
        raise ToolchainError("the null backend needs the exported ONNX file and got none; keep the export step")
    inputs, outputs = onnx_files.specs(onnx_files.read(source.onnx))
    description = {
        "format": _FORMAT,
        "inputs": [asdict(spec) for spec in inputs],
        "outputs": [asdict(spec) for spec in outputs],
    }
    (out / MODEL).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    notes = ("The null engine does not compute the network; its accuracy means nothing.",)
    return Compiled(MODEL, (MODEL,), "ready", True, inputs, outputs, dict(target.engine_options), notes)


def load(path: Path, *, options: Mapping[str, Any], threads: int | None) -> NullEngine:
    """Load ``model.null``. Option ``delay_ms``: how long each inference takes at least.

    Raises:
        UsageError: an unknown option.
        ArtifactError: the file is not a null model.
    """
    check_options(options, _OPTIONS, backend=NAME)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ArtifactError(f"{path} has {path.stat().st_size} bytes; a null model has at most {_MAX_BYTES}")
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != _FORMAT:
            raise ArtifactError(f"{path} has the format {raw['format']!r}; this edgecv reads {_FORMAT!r}")
        inputs = tuple(_spec(item) for item in raw["inputs"])
        outputs = tuple(_spec(item) for item in raw["outputs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a null model ({error!r}); build it again") from error
    return NullEngine(inputs, outputs, delay_s=float(options.get("delay_ms", 0.0)) / 1000.0)


def _spec(raw: Mapping[str, Any]) -> TensorSpec:
    scales = raw["quantization"]
    quantization = None if scales is None else Quantization(**scales)
    return TensorSpec(raw["name"], tuple(raw["shape"]), raw["dtype"], raw["layout"], quantization)


class NullEngine:
    """Computes the function in this module's description."""

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], *, delay_s: float) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._delay_s = delay_s

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """One inference; see the module's description for what it computes.

        Raises:
            UsageError: an array does not fit.
        """
        started_s = time.perf_counter()
        check_arrays(arrays, self.inputs)
        parts = [_means(spec.dequantize(array), spec) for array, spec in zip(arrays, self.inputs, strict=True)]
        means = np.concatenate(parts)
        results = []
        for spec in self.outputs:
            k = np.arange(int(np.prod(spec.shape, dtype=np.int64)))
            values = means[k % means.size] / (1 + k // means.size)
            results.append(spec.quantize(values.reshape(spec.shape).astype(np.float32)))
        left_s = self._delay_s - (time.perf_counter() - started_s)
        if left_s > 0:
            time.sleep(left_s)
        return results

    def delegation(self) -> Delegation | None:
        """None: there is no graph."""
        return None

    def close(self) -> None:
        """Nothing to give back."""


def _means(values: FloatArray, spec: TensorSpec) -> FloatArray:
    axis = _CHANNEL_AXIS.get(spec.layout)
    if axis is None:
        return np.asarray([values.mean(dtype=np.float32)], dtype=np.float32)
    means: FloatArray = values.mean(axis=tuple(i for i in range(values.ndim) if i != axis), dtype=np.float32)
    return means
