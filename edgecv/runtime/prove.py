"""An artifact proves itself where it is: its files, its chain, and its answers on the golden pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecv import families
from edgecv.core.artifact import check_files, files_hash, read_manifest
from edgecv.core.figures import Ladder, Rung
from edgecv.core.tensor import Array
from edgecv.errors import ArtifactError, ToolchainError
from edgecv.measure.ladder import Golden, Outputs, compiler_limits, ladder, load_golden, max_abs_error, sqnr_db
from edgecv.measure.ladder import preprocess_rung as input_rung
from edgecv.runtime.load import Model, load_artifact

GOLDEN = "golden.npz"


@dataclass(frozen=True)
class Proof:
    """What `prove` found. ``ladder`` is None where the answers could not be checked, for the reason ``skipped``."""

    files: int
    chain_file: str
    ladder: Ladder | None
    skipped: str

    @property
    def holds(self) -> bool:
        """Whether nothing that could be checked is wrong."""
        return self.ladder is None or self.ladder.first_broken is None


def prove(folder: Path, *, threads: int | None = None) -> Proof:
    """Check an artifact offline: every file's hash, the last link of the chain, and the answers on this machine.

    Raises:
        ArtifactError: a file is missing or changed, or the chain's file hash is not that of the model files.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    inside = manifest.model.rstrip("/") + "/"
    aside = (GOLDEN, "buildinfo.json", "report.json")
    model = tuple(entry for entry in manifest.files if entry.path not in aside or entry.path.startswith(inside))
    found = files_hash(model)
    if manifest.chain.file and found != manifest.chain.file:
        raise ArtifactError(
            f"artifact {folder}: the chain names the model {manifest.chain.file[:16]}…, its files have {found[:16]}…; "
            "the manifest and the files are not of one build. Build the artifact again."
        )
    if not any(entry.path == GOLDEN for entry in manifest.files):
        return Proof(len(manifest.files), found, None, "it carries no golden pictures (imported, not built)")
    golden = load_golden(folder / GOLDEN)
    try:
        with load_artifact(folder, threads=threads, verify=False) as loaded:
            return Proof(len(manifest.files), found, _climb(loaded, golden), "")
    except ToolchainError as error:
        return Proof(len(manifest.files), found, None, str(error))


def _climb(model: Model, golden: Golden) -> Ladder:
    subject, buffer = model.subject, model.subject.input_buffer()
    fed: list[Array] = []
    rows = []
    for picture in golden.pictures:
        rows.append(subject.run(picture, buffer))
        real = subject.input.dequantize(buffer)
        fed.append(np.array(real.transpose(0, 3, 1, 2) if subject.input.layout == "NHWC" else real))
    found = Outputs("this machine", tuple(np.concatenate(column) for column in zip(*rows, strict=True)))
    return ladder([input_rung(golden.inputs, np.concatenate(fed)), _answers(model, golden, found)])


def _answers(model: Model, golden: Golden, found: Outputs) -> Rung:
    """The engine's answers against those of the graph before it was compiled."""
    manifest = model.manifest
    family = families.get(manifest.family.kind)
    min_db, min_agreement = compiler_limits(manifest.precision)
    decibel = sqnr_db(golden.outputs.arrays, found.arrays)
    agreement = 0.0
    if all(np.isfinite(array).all() for array in found.arrays):
        results = [
            [
                family.decode([array[i : i + 1] for array in form.arrays], manifest.family, manifest.contract)
                for i in range(found.samples)
            ]
            for form in (golden.outputs, found)
        ]
        agreement = float(np.mean([family.agree(one, two) for one, two in zip(*results, strict=True)]))
    broken = decibel < min_db or agreement < min_agreement - 1.0 / found.samples
    return Rung(
        name=found.name,
        against=golden.outputs.name,
        samples=found.samples,
        sqnr_db=decibel,
        max_abs_error=max_abs_error(golden.outputs.arrays, found.arrays),
        agreement=agreement,
        metric=None,
        min_sqnr_db=min_db,
        outcome="fail" if broken else "pass",
        blame="compiler" if broken else "",
    )
