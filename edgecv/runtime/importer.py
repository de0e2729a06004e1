"""A bare model file (.onnx, .tflite, .xml) becomes an artifact, so that all of edgecv can use it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgecv import backends
from edgecv.core.artifact import Chain, Manifest, file_entries, files_hash, write_manifest
from edgecv.core.contract import InputContract
from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.protocols import Backend
from edgecv.core.recipe import FamilySpec
from edgecv.core.state import state_of
from edgecv.core.target import Precision
from edgecv.core.tensor import Layout, TensorSpec
from edgecv.errors import ModelError, ToolchainError, UsageError
from edgecv.measure.subject import tensor_problems
from edgecv.vision.image import input_shape

_PICTURE_LAYOUTS: tuple[Layout, ...] = ("NHWC", "NCHW")  # where both fit, the later one counts
_VECTOR_LAYOUTS: tuple[Layout, ...] = ("NC",)
_CLIP_LAYOUTS: tuple[Layout, ...] = ("NTHWC", "NCTHW", "NTCHW", *_PICTURE_LAYOUTS)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def import_model(
    file: str | Path,
    *,
    out: str | Path,
    name: str,
    family: FamilySpec,
    contract: InputContract,
    target_backend: str | None = None,
    precision: Precision | None = None,
) -> Path:
    """Copy a model file into a new artifact folder ``out`` with the manifest that describes it; returns ``out``.

    The engine is loaded once to learn the tensors. ``target_backend`` is by default the one that takes the
    file's suffix; an OpenVINO .xml brings its .bin, an ONNX file its external data. ``precision`` is only
    recorded; by default it is int8 where an input or output is quantised, else fp32. ``out`` appears
    whole or not at all.

    Raises:
        UsageError: ``file`` is missing, ``out`` exists, or ``name`` or the backend cannot be used.
        ModelError: the model does not fit the contract or the family; every problem is listed.
        ToolchainError: the engine is not installed.
        ArtifactError: the engine cannot read the file.
    """
    source, place = Path(file), Path(out)
    _check_arguments(source, place, name, contract)
    backend = _engine_for(source, target_backend)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
    try:
        copied = _copy(source, partial)
        # What is loaded is the copy: had a part been left behind, it fails here and not on the board.
        engine = backend.load(partial / copied[0], options={}, threads=None)
        inputs, outputs = _with_layout(engine.inputs, contract), engine.outputs
        engine.close()
        found = tensor_problems(family, contract, inputs, outputs)
        found += _clip_problems(family, contract)
        if found:
            raise ModelError(f"{source} does not fit:\n" + "\n".join(found))
        entries = file_entries(partial, copied)
        manifest = Manifest(
            name=name,
            target=f"imported-{backend.NAME}",
            backend=backend.NAME,
            precision=precision or _precision((*inputs, *outputs)),
            status="ready",
            family=family,
            contract=contract,
            inputs=inputs,
            outputs=outputs,
            state=state_of(inputs, outputs),
            model=copied[0],
            files=entries,
            chain=Chain(file=files_hash(entries)),
            engine_version=backend.version(),
            notes=(f"imported from {source.name}; the input contract and the labels are as the user gave them",),
        )
        write_manifest(partial, manifest)
        partial.chmod(0o755)  # mkdtemp gives 0700; the artifact is to be copied and read by others
        _publish(partial, place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return place


def _engine_for(source: Path, wanted: str | None) -> Backend:
    """The backend ``wanted``, or the one that takes the file's suffix; its engine is installed."""
    name = wanted or backends.backend_for_file(source)
    backend = backends.get(name)
    lacking = backend.missing(to="run")
    if lacking is not None:
        raise ToolchainError(f"importing {source} needs the engine {name}: {lacking}")
    return backend


def _check_arguments(source: Path, place: Path, name: str, contract: InputContract) -> None:
    if not source.exists():
        raise UsageError(f"there is no model file {source}; allowed suffixes: {', '.join(backends.SUFFIXES)}")
    if place.exists() or place.is_symlink():
        raise UsageError(f"{place} exists; name a folder that does not, or remove it first")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"the name {name!r} cannot be used; allowed are up to 64 of a-z 0-9 . _ - starting with a letter or digit"
        )
    wrong = contract.problems()
    if wrong:
        raise UsageError("the input contract is wrong: " + "; ".join(wrong))


def _clip_problems(family: FamilySpec, contract: InputContract) -> list[str]:
    if FAMILY_KINDS[family.kind].clips and contract.clip is None:
        return [
            f"family {family.kind} needs a clip: how many frames the network sees, and how many of them in a second"
        ]
    if contract.clip is not None and not FAMILY_KINDS[family.kind].clips:
        return [f"family {family.kind} looks at one picture and takes no clip"]
    return []


def _copy(source: Path, folder: Path) -> list[str]:
    """Copy the model file and what belongs to it; the names in ``folder``, the model first."""
    if source.is_dir():
        shutil.copytree(source, folder / source.name)
        return [source.name]
    beside = {".xml": (source.with_suffix(".bin"),), ".onnx": (source.with_name(source.name + ".data"),)}
    parts = [source, *(path for path in beside.get(source.suffix.lower(), ()) if path.is_file())]
    for path in parts:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in parts]


def _with_layout(inputs: Sequence[TensorSpec], contract: InputContract) -> tuple[TensorSpec, ...]:
    """An engine guesses the layout of a picture input; the contract's size and channels tell which one fits."""
    contract = contract.once
    likely = _VECTOR_LAYOUTS if contract.vector else _PICTURE_LAYOUTS if contract.clip is None else _CLIP_LAYOUTS
    fitting = {input_shape(contract, layout): layout for layout in likely}
    return tuple(replace(spec, layout=fitting.get(spec.shape, spec.layout)) for spec in inputs)


def _precision(tensors: Sequence[TensorSpec]) -> Precision:
    return "int8" if any(spec.quantization is not None for spec in tensors) else "fp32"


def _publish(partial: Path, place: Path) -> None:
    """Rename into place; a folder that came into being meanwhile is not replaced."""
    try:
        os.rename(partial, place)
    except OSError as error:
        raise UsageError(f"{place} cannot be written ({error.strerror}); choose another folder") from error
