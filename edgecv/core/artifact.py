"""The artifact: a folder with a model file and the manifest that says everything about it.

The only thing that crosses from the host half to the device half. Reading it trusts nothing:
sizes and hashes are checked, and no path may leave the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from edgecv.core.contract import InputContract
from edgecv.core.plain import from_plain, to_plain
from edgecv.core.recipe import FamilySpec
from edgecv.core.state import StateTensor
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ArtifactError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class FileEntry:
    """A file of the artifact: path relative to the folder ('/' between parts), bytes and hash."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Chain:
    """Where the model file comes from: the hash of each link, "" where there is none."""

    recipe: str = ""
    weights: str = ""
    calibration: str = ""
    graph: str = ""
    file: str = ""


@dataclass(frozen=True)
class Manifest:
    """Everything the device half needs to know about a compiled model.

    ``model`` is what the engine loads, relative to the artifact: one of ``files``, or the folder that
    holds them (an .mlpackage). ``status`` is ``deferred`` where the engine is still to be built
    on the device (`edgecv build`). ``state`` is what a network that streams keeps between two frames: which of its
    outputs goes into which of its inputs.
    """

    name: str
    target: str
    backend: str
    precision: str
    status: Literal["ready", "deferred"]
    family: FamilySpec
    contract: InputContract
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model: str
    files: tuple[FileEntry, ...]
    chain: Chain = field(default_factory=Chain)
    engine_options: dict[str, Any] = field(default_factory=dict)
    engine_version: str = ""
    threads: int | None = None
    thermal: tuple[dict[str, Any], ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    state: tuple[StateTensor, ...] = ()
    schema: int = SCHEMA_VERSION

    @property
    def model_bytes(self) -> int:
        """Size of the model: its file with what engines keep beside it (.bin, .data), or all files of its folder."""
        inside = self.model.rstrip("/") + "/"
        beside = self.model.rpartition(".")[0] + "."
        return sum(
            entry.bytes
            for entry in self.files
            if entry.path == self.model or entry.path.startswith((inside, beside) if len(beside) > 1 else inside)
        )


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def files_hash(files: tuple[FileEntry, ...]) -> str:
    """One hash over all files of an artifact (their paths and contents)."""
    lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in sorted(files, key=lambda entry: entry.path))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_entries(folder: Path, names: tuple[str, ...] | list[str]) -> tuple[FileEntry, ...]:
    """Entries of the named files; a folder (such as an .mlpackage) stands for all files below it, sorted."""
    entries = []
    for name in names:
        path = folder / name
        paths = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        for item in paths:
            relative = item.relative_to(folder).as_posix()
            entries.append(FileEntry(relative, item.stat().st_size, sha256_file(item)))
    return tuple(entries)


def safe_path(folder: Path, relative: str) -> Path:
    """``relative`` inside ``folder``.

    Raises:
        ArtifactError: the path is absolute, holds '..', or leaves the folder through a link.
    """
    pure = PurePosixPath(relative)
    if not relative or pure.is_absolute() or ".." in pure.parts or "\\" in relative or ":" in relative:
        raise ArtifactError(
            f"{folder / MANIFEST} names the file {relative!r}; allowed are paths inside the artifact. "
            "Do not use this artifact; get it again from where it was built."
        )
    path = folder / pure
    try:
        if len(relative) > 1024 or max(len(part.encode()) for part in pure.parts) > 255:
            raise ValueError("the name is too long")
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, or a name that no file can have
        raise ArtifactError(f"{folder / MANIFEST} names {relative!r} ({error}); get the artifact again") from error
    if not inside:
        raise ArtifactError(f"{path} is a link that leaves the artifact {folder}; get the artifact again")
    return path


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` in one step: a reader sees the old file or the whole new one."""
    text = json.dumps(to_plain(manifest, "manifest"), indent=2, sort_keys=True, allow_nan=False) + "\n"
    partial = folder / (MANIFEST + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json`` of the artifact in ``folder``; the files are not read.

    Raises:
        ArtifactError: not an artifact, cut short, of another schema, or naming files outside.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ArtifactError(f"{path} has {path.stat().st_size} bytes; allowed are {MAX_MANIFEST_BYTES}")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{folder} is not an artifact: it has no {MANIFEST}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); get the artifact again") from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA_VERSION:
        found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise ArtifactError(f"{path} has schema {found!r}; this edgecv reads {SCHEMA_VERSION}")
    try:
        manifest = from_plain(Manifest, raw, "manifest")
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not a valid manifest: {error}; get the artifact again") from error
    if not manifest.files:
        raise ArtifactError(f"{path} lists no files; get the artifact again")
    if manifest.status == "ready" and not _lists_model(manifest):
        raise ArtifactError(f"{path} names the model {manifest.model!r}, which is not among its files")
    safe_path(folder, manifest.model)
    for entry in manifest.files:
        safe_path(folder, entry.path)
    return manifest


def _lists_model(manifest: Manifest) -> bool:
    inside = manifest.model.rstrip("/") + "/"
    return any(entry.path == manifest.model or entry.path.startswith(inside) for entry in manifest.files)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Hold every file against its recorded size and hash.

    Raises:
        ArtifactError: one or more files are missing, cut short or changed; all are listed.
    """
    wrong = []
    for entry in manifest.files:
        path = safe_path(folder, entry.path)
        if not path.is_file():
            wrong.append(f"{entry.path} is missing")
        elif path.stat().st_size != entry.bytes:
            wrong.append(f"{entry.path} has {path.stat().st_size} bytes, the manifest says {entry.bytes}")
        elif sha256_file(path) != entry.sha256:
            wrong.append(f"{entry.path} was changed: its sha256 is not {entry.sha256}")
    if wrong:
        raise ArtifactError(f"artifact {folder}: " + "; ".join(wrong) + ". Build it or copy it again.")
