"""What a model source and its weights are, as hashes; found without building (or importing) anything heavy."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgecv.core.artifact import sha256_file
from edgecv.core.recipe import ModelSpec, Weights
from edgecv.errors import ModelError

__all__ = ["source_fingerprint", "weights_fingerprint"]


def source_fingerprint(spec: ModelSpec, *, base: Path) -> str:
    """64 hex digits that change when the network's source does: the library's version, the file of a Python
    function (not what it imports), the ONNX file, and the constructor's options.

    Relative paths are below ``base``, the folder of the recipe. No code of the source is run.

    Raises:
        ModelError: the file or module is not there.
    """
    kind, _, name = spec.source.partition(":")
    if kind == "python":
        what = _python_file_hash(name.partition(":")[0], base)
    elif kind == "onnx":
        what = _file_hash(base / name, f"model.source {spec.source!r}")
    else:
        what = _library_version(kind)
        config = base / name / "config.json"
        if kind == "transformers" and config.is_file():
            what += " " + sha256_file(config)
    text = json.dumps([spec.source, what, spec.options, spec.input.channels], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_fingerprint(weights: Weights | None, *, base: Path) -> str:
    """64 hex digits of the weights file (for a URL the declared hash) and how it is read; "" without weights.

    Raises:
        ModelError: the file is not there.
    """
    if weights is None:
        return ""
    if weights.url is not None:
        content = weights.sha256 or ""
    else:
        content = _file_hash(base / (weights.path or ""), "model.weights.path")
    if (weights.key, weights.strip_prefix, weights.strict) == (None, "", True):
        return content
    text = json.dumps([content, weights.key, weights.strip_prefix, weights.strict])
    return hashlib.sha256(text.encode()).hexdigest()


def _library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        # Building says what is missing; a fingerprint is also asked for where nothing will be built.
        return "not installed"


def _file_hash(path: Path, where: str) -> str:
    if not path.is_file():
        raise ModelError(f"{where}: there is no file {path}; paths are relative to the recipe")
    return sha256_file(path)


def _python_file_hash(module_name: str, base: Path) -> str:
    spec = _find_without_running(module_name, base)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ModelError(f"there is no Python module {module_name!r}; install it, or put it beside the recipe")
    return sha256_file(Path(spec.origin))


def _find_without_running(module_name: str, base: Path) -> ModuleSpec | None:
    """Find a module part by part; `importlib.util.find_spec` would import its parent packages."""
    top, *rest = module_name.split(".")
    importlib.invalidate_caches()
    spec = PathFinder.find_spec(top, [str(base.resolve()), *sys.path])
    if spec is None:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return None
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec
