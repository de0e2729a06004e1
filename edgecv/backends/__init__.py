"""One module per inference engine: `compile` on the host and `load` on the device, side by side."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from pathlib import Path
from typing import cast

from edgecv.core.protocols import Backend
from edgecv.errors import UsageError

__all__ = ["BACKENDS", "SUFFIXES", "backend_for_file", "get"]

BACKENDS: dict[str, str] = {
    "onnxruntime": "edgecv.backends.onnxruntime",
    "openvino": "edgecv.backends.openvino",
    "litert": "edgecv.backends.litert",
    "coreml": "edgecv.backends.coreml",
    "tensorrt": "edgecv.backends.tensorrt",
    "null": "edgecv.backends.null",
}

SUFFIXES: dict[str, str] = {
    ".onnx": "onnxruntime",
    ".xml": "openvino",
    ".tflite": "litert",
    ".mlpackage": "coreml",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
    ".null": "null",
}


def get(name: str) -> Backend:
    """The backend called ``name``. Its engine is imported only when the backend is used.

    Raises:
        UsageError: no backend has this name.
    """
    if name not in BACKENDS:
        near = get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(BACKENDS)}"
        raise UsageError(f"there is no backend {name!r}; {hint}")
    return cast(Backend, importlib.import_module(BACKENDS[name]))


def backend_for_file(path: str | Path) -> str:
    """Name of the backend whose engine loads a file (or folder) with this suffix.

    Raises:
        UsageError: no backend takes this suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path} has the suffix {suffix!r}; engines load {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]
