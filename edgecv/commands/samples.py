"""Where a command's pictures come from: ``--data`` and the options beside it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edgecv.core.progress import PlainProgress
from edgecv.core.protocols import Reader
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.errors import UsageError
from edgecv.measure.accuracy import even_indices
from edgecv.runtime.load import Model
from edgecv.runtime.sources import parse as parse_source
from edgecv.runtime.sources.synthetic import synthetic_source
from edgecv.vision.image import Image

_APART = 11  # frames of the synthetic camera between two pictures: about a third of a second
_SIZE = "640x480"


def pictures(options: argparse.Namespace, model: Model, count: int) -> list[Image]:
    """At most ``count`` pictures (uint8, BGR) to measure times with; they need no labels.

    ``synthetic:`` takes the options of the synthetic camera, ``frames:`` a video file or a folder of pictures; else
    an even pick of the samples of `open_data`.

    Raises:
        UsageError: the option names no pictures, or they cannot be used.
        CameraError: the video cannot be opened.
    """
    kind, _, rest = options.data.partition(":")
    if kind == "synthetic":
        source = synthetic_source(rest, {} if "size=" in rest else {"size": _SIZE})
        return [source.truth(index * _APART).image for index in range(count)]
    if kind == "frames" and rest:
        return _frames(rest, count)
    reader = open_data(options, model)
    return [reader[index].image for index in even_indices(len(reader), count)]


def _frames(address: str, count: int) -> list[Image]:
    source = parse_source(address, {})
    source.open()
    try:
        found: list[Image] = []
        while len(found) < count and (frame := source.read()) is not None:
            found.append(frame.image)
    finally:
        source.close()
    if not found:
        raise UsageError(f"--data is 'frames:{address}', and there is no picture in it; name a video or a folder")
    return found


def open_data(options: argparse.Namespace, model: Model) -> Reader:
    """The labelled samples of ``--data``, for the labels of the model.

    Raises:
        UsageError: the option names no data set, or the data set cannot be used.
    """
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
