"""Calibration sets: pick the pictures, write them down with their hashes, and find the same ones again."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgecv.core.calibration import CalibrationFile, CalibrationManifest
from edgecv.core.contract import Clip, InputContract
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Reader
from edgecv.core.recipe import DataSpec
from edgecv.data.files import SHOWN
from edgecv.data.lint import LintFinding, lint_calibration, refuse
from edgecv.data.readers import LabelledReader, open_reader, open_subset
from edgecv.data.selection import Rule, classes_of, pick, truths_of
from edgecv.data.subset import SubsetReader
from edgecv.errors import ArtifactError, DataError, UsageError

__all__ = ["calibrate", "make_manifest", "open_calibration", "pick"]

_SILENT = SilentProgress()


def make_manifest(
    reader: Reader,
    picked: Sequence[int],
    *,
    name: str,
    source: DataSpec,
    licence: str,
    labels: Sequence[str],
    select: Rule,
    seed: int,
) -> CalibrationManifest:
    """The manifest of the samples ``picked`` from ``reader``; ``source`` is what it records as their origin.

    Its coverage is how many pictures show each class; empty without labels.

    Raises:
        DataError: nothing is picked, no licence is named, or ``name`` cannot be a manifest's name.
    """
    pattern = next(item for item in dataclasses.fields(CalibrationManifest) if item.name == "name").metadata["pattern"]
    if not re.fullmatch(pattern, name):
        raise DataError(f"name is {name!r}; allowed are up to 64 of a-z, 0-9, dot, dash and underscore")
    if not licence.strip():
        raise DataError("no licence is named; say under which licence the pictures are, such as 'CC BY 4.0'")
    if not picked:
        raise DataError("no picture is picked; a calibration set needs at least one")
    truths = truths_of(reader)
    counts = [0] * len(labels)
    for index in picked:
        for shown in classes_of(truths[index]) or ():
            counts[shown] += 1
    return CalibrationManifest(
        calibration=1,
        name=name,
        source=source,
        licence=licence.strip(),
        select=select,
        seed=seed,
        coverage={label: count for label, count in zip(labels, counts, strict=True) if count},
        files=tuple(CalibrationFile(reader.ids[index], reader.sha256(index)) for index in picked),
    )


def open_calibration(
    manifest: CalibrationManifest,
    *,
    base: Path,
    labels: Sequence[str],
    progress: Progress = _SILENT,
    clip: Clip | None = None,
) -> LabelledReader:
    """The pictures of a manifest, in its order, each held against its hash. No other file is read.

    ``base``: the folder that a relative ``manifest.source.path`` is relative to. ``clip`` is the network's.

    Raises:
        DataError: the data set is missing, or its classes do not fit ``labels``.
        ArtifactError: pictures are missing or were changed; the first five are named.
    """
    wanted = {file.id: file.sha256 for file in manifest.files}
    reader = open_subset(manifest.source, wanted, base=base, labels=labels, progress=progress, clip=clip)
    place = {name: index for index, name in enumerate(reader.ids)}
    wrong = []
    for name, sha256 in wanted.items():
        if name in reader.skipped:
            wrong.append(f"{name}: {reader.skipped[name]}")
        elif name not in place:
            wrong.append(f"{name} is missing")
        elif reader.sha256(place[name]) != sha256:
            wrong.append(f"{name} was changed: its sha256 is not {sha256[:12]}...")
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ArtifactError(
            f"calibration set {manifest.name}: {len(wrong)} of {len(wanted)} pictures are not those of the manifest: "
            + "; ".join(wrong[:SHOWN])
            + f"{more}. Bring the pictures back, or make the set anew with `edgecv calibrate`."
        )
    return SubsetReader(reader, [place[name] for name in wanted])


def calibrate(  # noqa: PLR0913 - one argument for each option of the command
    spec: DataSpec,
    *,
    base: Path,
    labels: Sequence[str],
    contract: InputContract,
    samples: int,
    select: Rule,
    seed: int,
    name: str,
    licence: str,
    out: Path,
    evaluation: DataSpec | None = None,
    force: bool = False,
    progress: Progress = _SILENT,
) -> tuple[CalibrationManifest, list[LintFinding]]:
    """Pick a calibration set from ``spec``, check it, and write its manifest to ``out`` in one step.

    ``out`` is the file ``<name>.yaml``, or an existing folder to write it to. Returns the manifest
    and the warnings. ``force`` replaces a manifest that exists already.

    Raises:
        UsageError: ``out`` exists and ``force`` is not set, or is not named after ``name``.
        DataError: the data set cannot be used, or the picked set is not fit to calibrate with.
    """
    path = out / f"{name}.yaml" if out.is_dir() else out
    if path.name != f"{name}.yaml":
        raise UsageError(f"{path} would hold the manifest {name!r}; the file must be named {name}.yaml")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; choose another name, or replace it with --force")
    open_set = partial(open_reader, base=base, labels=labels, progress=progress, clip=contract.clip)
    reader = open_set(spec)
    picked = pick(reader, labels=labels, samples=samples, select=select, seed=seed, contract=contract)
    source = _moved(spec, base=base, to=path.parent)
    manifest = make_manifest(
        reader, picked, name=name, source=source, licence=licence, labels=labels, select=select, seed=seed
    )
    judge = None if evaluation is None else open_set(evaluation)
    picked_set = SubsetReader(reader, picked)
    findings = lint_calibration(picked_set, judge, labels=labels, contract=contract, select=select)
    refuse(findings)

    from edgecv.recipe.calibration import write_calibration

    path.parent.mkdir(parents=True, exist_ok=True)
    write_calibration(manifest, path)
    return manifest, findings


def _moved(spec: DataSpec, *, base: Path, to: Path) -> DataSpec:
    """``spec`` with its relative paths made relative to the folder ``to`` instead of ``base``; others stay."""

    def moved(path: str | None) -> str | None:
        if path is None or os.path.isabs(path):
            return path
        return Path(os.path.relpath(base / path, to)).as_posix()

    return dataclasses.replace(spec, path=moved(spec.path), root=moved(spec.root), truth=moved(spec.truth))
