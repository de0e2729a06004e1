"""A deferred artifact is finished on the device that will run it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgecv import backends
from edgecv.core.artifact import Manifest, check_files, file_entries, files_hash, read_manifest, write_manifest
from edgecv.core.state import state_of
from edgecv.errors import UsageError

LOG = "build.log"


def complete(folder: Path) -> Manifest:
    """Build the engine of the deferred artifact in ``folder`` and make the artifact ready; returns its new manifest.

    The files that were checked on the host stay; the chain's file hash becomes that of the new model.

    Raises:
        UsageError: the artifact is ready already, or its engine is not one that is built on the device.
        ToolchainError: the engine's library is missing here or refuses the graph.
        ArtifactError: the artifact is corrupt.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    backend = backends.get(manifest.backend)
    build = getattr(backend, "build", None)
    if manifest.status == "ready" or build is None:
        raise UsageError(f"artifact {folder} is {manifest.status} for {manifest.backend}: there is nothing to build")
    made = build(folder, log=folder / LOG)
    kept = [entry.path for entry in manifest.files if entry.path not in made.files]
    model = file_entries(folder, made.files)
    done = replace(
        manifest,
        status=made.status,
        model=made.model,
        inputs=made.inputs,
        outputs=made.outputs,
        state=state_of(made.inputs, made.outputs),
        files=(*model, *file_entries(folder, kept)),
        chain=replace(manifest.chain, file=files_hash(model)),
        engine_version=backend.version(),
        notes=(*manifest.notes, *made.notes),
    )
    write_manifest(folder, done)
    return done
