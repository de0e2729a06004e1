"""Commands on an artifact: import, build, eval. They work on a board without the host half."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from edgecv import families
from edgecv.commands.samples import open_labelled
from edgecv.commands.values import named_values
from edgecv.core.contract import Clip, InputContract
from edgecv.core.kinds import FAMILY_KINDS, metric_unit
from edgecv.core.plain import to_plain
from edgecv.core.progress import PlainProgress
from edgecv.core.recipe import FamilySpec
from edgecv.errors import UsageError
from edgecv.measure.accuracy import evaluate as evaluate_subject
from edgecv.runtime.complete import complete
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import load_artifact


def import_file(options: argparse.Namespace) -> int:
    """Make an artifact from a bare model file."""
    vector = options.vector is not None
    channels = 1 if options.color == "gray" or vector else 3
    contract = InputContract(
        size=(1, options.vector) if vector else tuple(options.size),
        vector=vector,
        color=options.color,
        mean=tuple(options.mean or [0.0] * channels),
        std=tuple(options.std or [1.0] * channels),
        range=tuple(options.range),
        resize=options.resize,
        crop_ratio=options.crop_ratio,
        pad_value=options.pad_value,
        interpolation=options.interpolation,
        clip=_clip(options.clip),
    )
    families.get(options.family)
    labels = _labels(Path(options.labels)) if options.labels else FAMILY_KINDS[options.family].labels
    if not labels:
        raise UsageError(f"--labels is missing; family {options.family} needs a text file with one class name a line")
    family = FamilySpec(
        options.family,
        labels,
        background=options.background,
        outputs=options.outputs,
        head=options.head,
        score_threshold=options.score,
        iou_threshold=options.iou,
        options=named_values(options.option, "--option"),
    )
    name = options.name or Path(options.file).stem.lower()
    out = import_model(options.file, out=options.out, name=name, family=family, contract=contract)
    hint = f"eval {out} --data vectors:FILE.csv" if vector else f"run {out} PICTURE"
    print(f"{out} is an artifact; try: edgecv {hint}")
    return 0


def _clip(given: Sequence[float] | None) -> Clip | None:
    """The two numbers of ``--clip``.

    Raises:
        UsageError: the first is no whole number.
    """
    if given is None:
        return None
    if not given[0].is_integer():
        raise UsageError(f"--clip is {given[0]:g} {given[1]:g}; the number of frames must be whole, such as 8 8.0")
    return Clip(int(given[0]), given[1])


def build(options: argparse.Namespace) -> int:
    """Finish a deferred artifact on this device."""
    manifest = complete(Path(options.artifact))
    print(f"{options.artifact} is ready: {manifest.model}, {manifest.engine_version}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """The task metric on a data set."""
    with load_artifact(options.artifact, threads=options.threads) as model:
        reader = open_labelled(options, model)
        metric = options.metric or model.subject.family.METRICS[0]
        figures = evaluate_subject(model.subject, reader, metric=metric, progress=PlainProgress())
    if options.json:
        print(json.dumps({**to_plain(figures, omit=("per_sample",)), "skipped": dict(reader.skipped)}))
        return 0
    interval = figures.interval
    shown = f", 95 % interval {interval.low:.4f} to {interval.high:.4f}" if interval else ""
    print(f"{figures.metric} {figures.value:.4f}{_unit(figures.metric)} on {figures.samples} samples{shown}")
    for name, value in figures.extras.items():
        print(f"{name} {value:.4f}")
    print(f"file {figures.file_sha256}")
    return 0


def _unit(metric: str) -> str:
    """What stands behind a value: nothing for a share."""
    return "" if metric_unit(metric) == "share" else f" {metric_unit(metric)}"


def _labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read as labels ({error}); give a text file with one class name a line"
        ) from error
    labels = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not labels:
        raise UsageError(f"{path} has no labels; give a text file with one class name a line")
    return labels
