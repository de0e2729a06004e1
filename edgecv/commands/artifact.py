"""Commands on an artifact: import, build, eval, bench, verify. They work on a board without the host half."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import edgecv
from edgecv import backends, families
from edgecv.commands.values import named_values
from edgecv.core.artifact import Manifest
from edgecv.core.contract import InputContract
from edgecv.core.figures import AccuracyFigures, LatencyFigures
from edgecv.core.plain import to_plain
from edgecv.core.progress import PlainProgress
from edgecv.core.protocols import Reader
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.core.target import ThermalZone
from edgecv.data.readers import open_reader
from edgecv.errors import MeasurementError, UsageError
from edgecv.measure.accuracy import evaluate as evaluate_subject
from edgecv.measure.accuracy import even_indices
from edgecv.measure.host import Sampler, machine_facts
from edgecv.measure.latency import PLANS, measure_latency
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.runtime.complete import complete
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import Model, load_artifact
from edgecv.runtime.prove import prove

BENCH_PICTURES = 32


def import_file(options: argparse.Namespace) -> int:
    """Make an artifact from a bare model file."""
    channels = 1 if options.color == "gray" else 3
    contract = InputContract(
        size=tuple(options.size),
        color=options.color,
        mean=tuple(options.mean or [0.0] * channels),
        std=tuple(options.std or [1.0] * channels),
        range=tuple(options.range),
        resize=options.resize,
        crop_ratio=options.crop_ratio,
        pad_value=options.pad_value,
        interpolation=options.interpolation,
    )
    families.get(options.family)
    if options.labels is None and options.family != "pose":
        raise UsageError(f"--labels is missing; family {options.family} needs a text file with one class name a line")
    family = FamilySpec(
        options.family,
        _labels(Path(options.labels)) if options.labels else ("person",),
        background=options.background,
        outputs=options.outputs,
        head=options.head,
        score_threshold=options.score,
        iou_threshold=options.iou,
        options=named_values(options.option, "--option"),
    )
    name = options.name or Path(options.file).stem.lower()
    out = import_model(options.file, out=options.out, name=name, family=family, contract=contract)
    print(f"{out} is an artifact; try: edgecv run {out} PICTURE")
    return 0


def build(options: argparse.Namespace) -> int:
    """Finish a deferred artifact on this device."""
    manifest = complete(Path(options.artifact))
    print(f"{options.artifact} is ready: {manifest.model}, {manifest.engine_version}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """The task metric on a data set."""
    with load_artifact(options.artifact, threads=options.threads) as model:
        reader = _reader(options, model)
        metric = options.metric or model.subject.family.METRICS[0]
        figures = evaluate_subject(model.subject, reader, metric=metric, progress=PlainProgress())
    if options.json:
        print(json.dumps({**to_plain(figures, omit=("per_sample",)), "skipped": dict(reader.skipped)}))
        return 0
    interval = figures.interval
    shown = f", 95 % interval {interval.low:.4f} to {interval.high:.4f}" if interval else ""
    print(f"{figures.metric} {figures.value:.4f} on {figures.samples} samples{shown}")
    for name, value in figures.extras.items():
        print(f"{name} {value:.4f}")
    print(f"file {figures.file_sha256}")
    return 0


def bench(options: argparse.Namespace) -> int:
    """Latency on this machine, as a report of its own."""
    from edgecv.report.render import render_all, render_text

    started_s = time.perf_counter()
    with load_artifact(options.artifact, threads=options.threads) as model:
        reader = _reader(options, model)
        images = [reader[index].image for index in even_indices(len(reader), BENCH_PICTURES)]
        zones = tuple(ThermalZone(**zone) for zone in model.manifest.thermal)
        figures = measure_latency(
            model.subject,
            images,
            fps=options.fps,
            plan=PLANS[options.protocol],
            watch=Sampler(zones=zones),
            progress=PlainProgress(),
        )
        report = _report(model, latency=figures, seconds=time.perf_counter() - started_s)
    if options.out:
        render_all(report, Path(options.out))
    print(json.dumps(to_plain(figures)) if options.json else render_text(report))
    if figures.invalid:
        raise MeasurementError(f"the measurement is invalid: {figures.invalid}. Cool or power the board and run again.")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check files, chain and answers."""
    proof = prove(Path(options.artifact))
    if options.json:
        print(json.dumps({"holds": proof.holds, **to_plain(asdict(proof))}))
    else:
        print(f"{proof.files} files are whole, model {proof.chain_file}")
        for rung in proof.ladder.rungs if proof.ladder else ():
            decibel = "equal" if rung.sqnr_db == float("inf") else f"{rung.sqnr_db:.1f} dB"
            agreement = "" if rung.agreement is None else f", same answer on {rung.agreement:.0%}"
            print(f"{rung.outcome}: {rung.name} against {rung.against}: {decibel}{agreement}, {rung.samples} pictures")
        if proof.skipped:
            print(f"answers were not checked: {proof.skipped}")
    if not proof.holds and proof.ladder is not None:
        print(f"edgecv: the first rung that broke: {proof.ladder.first_broken}", file=sys.stderr)
        return 6
    return 0


def _report(
    model: Model, *, latency: LatencyFigures | None = None, accuracy: AccuracyFigures | None = None, seconds: float
) -> Report:
    manifest: Manifest = model.manifest
    figures = ArtifactFigures(
        target=manifest.target,
        title=manifest.name,
        backend=manifest.backend,
        precision=manifest.precision,
        role="optimized",
        tag="measured",
        folder=".",
        file=manifest.model,
        file_bytes=manifest.model_bytes,
        accuracy=accuracy,
        latency=latency,
        delegation=model.engine.delegation(),
        chain=manifest.chain,
        notes=manifest.notes,
    )
    return Report(
        name=manifest.name,
        edgecv_version=edgecv.__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        outcome="inconclusive" if latency is not None and latency.invalid else "pass",
        machine=machine_facts({manifest.backend: backends.get(manifest.backend).version()}),
        artifacts=(figures,),
        steps=(),
        seconds=round(seconds, 3),
        recipe_sha256=manifest.chain.recipe,
    )


def _reader(options: argparse.Namespace, model: Model) -> Reader:
    kind, _, rest = options.data.partition(":")
    if kind == "sklearn-digits":
        values: dict[str, Any] = {"split": rest or "test"}
    elif kind in ("imagefolder", "csv") and rest:
        values = {"path": rest}
    else:
        raise UsageError(f"--data is {options.data!r}; allowed: imagefolder:FOLDER, csv:FILE, sklearn-digits:test")
    if values.get("split", "all") not in ("train", "test", "all"):
        raise UsageError(f"--data is {options.data!r}; the split of sklearn-digits is train, test or all")
    spec = DataSpec(
        kind=kind,
        root=options.root,
        file_column=options.file_column,
        label_column=options.label_column,
        limit=options.limit,
        strict=options.strict,
        **values,
    )
    reader = open_reader(spec, base=Path.cwd(), labels=model.manifest.family.labels, progress=PlainProgress())
    if reader.skipped:
        print(f"{len(reader.skipped)} files were skipped, such as {next(iter(reader.skipped))}", file=sys.stderr)
    return reader


def _labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read as labels ({error}); give a text file with one class name a line"
        ) from error
    labels = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not labels:
        raise UsageError(f"{path} has no labels; give a text file with one class name a line")
    return labels
