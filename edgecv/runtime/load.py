"""An artifact folder becomes a model that takes pictures and gives answers."""

from __future__ import annotations

import glob
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edgecv import backends
from edgecv.core.artifact import Manifest, check_files, read_manifest
from edgecv.core.protocols import Engine
from edgecv.core.state import state_of, state_problems
from edgecv.core.tensor import Array, TensorSpec
from edgecv.core.trace import Trace
from edgecv.errors import ArtifactError, ModelError, ToolchainError, UsageError
from edgecv.measure.subject import Subject, subject
from edgecv.vision.clips import picture_size
from edgecv.vision.image import Image


@dataclass(frozen=True)
class Model:
    """A loaded artifact. Not safe to call from two threads at once; usable in a ``with`` statement."""

    folder: Path
    manifest: Manifest
    subject: Subject
    _buffer: Array

    @property
    def engine(self) -> Engine:
        """The engine that runs the model file."""
        return self.subject.engine

    def predict(self, image: Image, *, trace: Trace | None = None) -> Any:
        """The family's result for one picture, uint8 `(H, W, 3)` BGR or `(H, W)` gray, or one clip `(T, H, W, 3)`.

        A network that streams also takes the frames of a video one by one, at the rate that it was trained on
        (``contract.clip.fps``); a clip makes it begin anew.

        ``trace`` gets the times of preprocess, infer and decode (with dequantising).

        Raises:
            DataError: the picture is of another type or shape, or empty.
            ModelError: the model's output cannot be decoded (NaN).
            EdgecvError: the engine failed.
        """
        picture = picture_size(image)
        if trace is None:
            return self.subject.decode(self.subject.run(image, self._buffer), picture=picture)
        answers = self.subject.collector(picture)
        self.subject.begin(image)
        for piece in self.subject.pieces(image):
            with trace.stage("preprocess"):
                self.subject.preprocessor.into(piece, self._buffer)
            with trace.stage("infer"):
                stored = self.engine.run([self._buffer])
            with trace.stage("decode"):
                answers.add(self.subject.dequantize(stored))
        with trace.stage("decode"):
            return self.subject.decode(answers.outputs(), picture=picture)

    def close(self) -> None:
        """Give the engine's memory back; calling it twice does no harm."""
        self.engine.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_artifact(folder: str | Path, *, threads: int | None = None, verify: bool = True) -> Model:
    """Load the artifact in ``folder`` with its engine.

    ``threads`` replaces the manifest's number of CPU threads. ``verify`` holds every file against its
    recorded hash first; without it only sizes and names are trusted to be right.

    Raises:
        ArtifactError: no artifact, a file is missing or changed, or the engine finds other tensors in it than
            the manifest says.
        ToolchainError: the engine is not installed, or the artifact is deferred.
        UsageError: ``threads`` is below 1.
    """
    place = Path(folder)
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; it must be 1 or more")
    manifest = read_manifest(place)
    if verify:
        check_files(place, manifest)
        _check_unlisted(place, manifest)
    if manifest.status == "deferred":
        raise ToolchainError(
            f"the engine of artifact {place} ({manifest.backend}) is not built yet: it can only be built on the "
            f"device that will run it. Run there: edgecv build {place}"
        )
    chosen = threads if threads is not None else manifest.threads
    engine = _engine(place, manifest, chosen)
    try:
        found = tensor_differences("input", manifest.inputs, engine.inputs)
        found += tensor_differences("output", manifest.outputs, engine.outputs)
        found += _state_differences(manifest)
        if found:
            raise ArtifactError(
                f"the model file of artifact {place} does not fit its manifest: {'; '.join(found)}. Build it again."
            )
        loaded = _subject(place, manifest, engine, chosen)
    except BaseException:
        engine.close()
        raise
    return Model(place, manifest, loaded, loaded.input_buffer())


def tensor_differences(kind: str, recorded: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> list[str]:
    """What an engine's tensors have otherwise than the manifest, in words; ``kind`` is "input" or "output".

    Names and layouts are not compared: engines rename tensors, and not every file knows its layout.
    """
    if len(recorded) != len(found):
        return [f"the manifest has {len(recorded)} {kind}s, the engine {len(found)}"]
    differences = []
    for one, other in zip(recorded, found, strict=True):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            differences.append(
                f"{kind} {one.name!r} is {one.dtype} {one.shape} in the manifest and {other.dtype} {other.shape} "
                "in the engine"
            )
        elif not _same_scales(one, other):
            differences.append(
                f"{kind} {one.name!r} has {one.quantization} in the manifest and {other.quantization} in the engine"
            )
    return differences


def _state_differences(manifest: Manifest) -> list[str]:
    """What the manifest says of a state otherwise than of the inputs and outputs, in words."""
    if not manifest.contract.streams:
        return (
            [f"it has a state ({len(manifest.state)} tensors), and its contract has no stream"]
            if manifest.state
            else []
        )
    found = state_problems(manifest.inputs, manifest.outputs)
    if not found and manifest.state != state_of(manifest.inputs, manifest.outputs):
        found.append("the manifest's state is not what its inputs and outputs say")
    return found


def _check_unlisted(place: Path, manifest: Manifest) -> None:
    """Engines read files that lie beside the model (weights) or below its folder: each must have a known hash."""
    model = place / manifest.model
    near = model.rglob("*") if model.is_dir() else model.parent.glob(f"{glob.escape(model.stem)}.*")
    listed = {entry.path for entry in manifest.files}
    found = sorted(path.relative_to(place).as_posix() for path in near if not path.is_dir())
    unknown = [name for name in found if name not in listed]
    if unknown:
        raise ArtifactError(
            f"artifact {place} holds {', '.join(unknown)}, which the engine might read but the manifest does not list. "
            "Remove what you put there, or copy the artifact again."
        )


def _same_scales(one: TensorSpec, other: TensorSpec) -> bool:
    if one.quantization is None or other.quantization is None:
        return one.quantization is other.quantization
    same_zero = one.quantization.zero_point == other.quantization.zero_point
    return same_zero and math.isclose(one.quantization.scale, other.quantization.scale, rel_tol=1e-6)


def _engine(place: Path, manifest: Manifest, threads: int | None) -> Engine:
    try:
        backend = backends.get(manifest.backend)
    except UsageError as error:
        raise ArtifactError(f"artifact {place}: {error}; a newer edgecv may know it") from error
    lacking = backend.missing(to="run")
    if lacking is not None:
        raise ToolchainError(f"artifact {place} needs the engine {manifest.backend}: {lacking}")
    return backend.load(place / manifest.model, options=manifest.engine_options, threads=threads)


def _subject(place: Path, manifest: Manifest, engine: Engine, threads: int | None) -> Subject:
    wrong = manifest.contract.problems()
    if wrong:
        raise ArtifactError(f"the input contract of artifact {place} is wrong: {'; '.join(wrong)}")
    try:
        return subject(
            engine,
            spec=manifest.family,
            contract=manifest.contract,
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            file_sha256=manifest.chain.file,
            threads=threads or 0,
        )
    except ModelError as error:
        raise ArtifactError(f"artifact {place} does not fit together: {error}") from error
