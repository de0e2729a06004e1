"""Where a command's pictures come from: ``--data`` and the options beside it."""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.core.contract import Clip
from edgecv.core.kinds import DATA_KINDS, data_facts, family_facts, kinds_with
from edgecv.core.progress import PlainProgress
from edgecv.core.protocols import Reader
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.data.selection import truths_of
from edgecv.errors import UsageError
from edgecv.measure.accuracy import even_indices
from edgecv.runtime.load import Model
from edgecv.runtime.sources import parse as parse_source
from edgecv.runtime.sources.synthetic import synthetic_source
from edgecv.vision.image import Image

_OF_KINDS = ("root", "only", "truth", "ignore_index", "depth_unit", "crop", "caption", "noise", "shot")
_KEYS = (*_OF_KINDS, "split", "file_column", "label_column", "limit")
_NUMBERS: dict[str, tuple[type[float] | type[int], float, float, str]] = {
    "crop": (float, 0.1, 10.0, "a width over a height, 0.1 to 10, such as 0.75"),
    "noise": (float, 0.0, 255.0, "a standard deviation in steps of 0..255, such as 25"),
    "shot": (float, 0.0, 64.0, "how many steps of 0..255 one electron makes, 0 to 64, such as 0.5"),
    "ignore_index": (int, 0, 255, "a whole number, 0 to 255"),
    "limit": (int, 1, math.inf, "a whole number above 0"),
}
_DEPTH_UNITS = ("mm", "kitti", "sun-rgbd")
_WHAT = {"none": "test", "folder": "FOLDER", "file": "FILE", "pictures": "FOLDER", "videos": "VIDEO"}
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
    clip = model.manifest.contract.clip
    frames = count if clip is None else count + clip.frames - 1
    if kind == "synthetic":
        source = synthetic_source(rest, {} if "size=" in rest else {"size": _SIZE})
        return _clips([source.truth(index * _APART).image for index in range(frames)], clip)
    if kind == "frames" and rest:
        return _clips(_frames(rest, frames), clip)
    reader = open_data(options, model)
    return [reader[index].image for index in even_indices(len(reader), count)]


def _clips(frames: list[Image], clip: Clip | None) -> list[Image]:
    """The frames themselves, or the clips that begin with each of them; the first is repeated where there are few."""
    if clip is None:
        return frames
    frames = frames[:1] * max(0, clip.frames - len(frames)) + frames
    return [np.stack(frames[at : at + clip.frames]) for at in range(len(frames) - clip.frames + 1)]


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
    """The samples of ``--data``, for the labels of the model.

    ``KIND:PATH`` may go on with keys of the data set as in a recipe, such as ``coco:FILE,root=FOLDER,only=val*``.

    Raises:
        UsageError: the option names no data set, or the data set cannot be used.
    """
    spec = data_spec(options)
    manifest = model.manifest
    reader = open_reader(
        spec,
        base=Path.cwd(),
        labels=manifest.family.labels,
        progress=PlainProgress(),
        clip=manifest.contract.clip,
    )
    if reader.skipped:
        print(f"{len(reader.skipped)} files were skipped, such as {next(iter(reader.skipped))}", file=sys.stderr)
    return reader


def open_labelled(options: argparse.Namespace, model: Model) -> Reader:
    """As `open_data`, and each sample has a truth.

    Raises:
        UsageError: as `open_data`, or there are pictures without truths.
    """
    reader = open_data(options, model)
    if any(truth is None for truth in truths_of(reader)):
        allowed = ", ".join(family_facts(model.manifest.family.kind).data)  # type: ignore[union-attr]
        raise UsageError(f"--data is {options.data!r}, which has pictures without labels; to judge by: {allowed}")
    return reader


def data_spec(options: argparse.Namespace) -> DataSpec:
    """The data set that ``--data`` and the options beside it name.

    Raises:
        UsageError: they name none, or a key does not go with its kind.
    """
    kind, _, rest = options.data.partition(":")
    facts = data_facts(kind)
    if facts is None or (facts.path != "none" and not rest):
        known = ", ".join(f"{name}:{_WHAT[item.path]}" for name, item in DATA_KINDS.items())
        raise UsageError(f"--data is {options.data!r}; allowed: {known}")
    path, values = _path_and_values(options.data, rest, alone=facts.path == "none")
    for key in values:
        if key in _OF_KINDS and not getattr(facts, key):
            raise UsageError(f"--data is {options.data!r}; kind {kind} takes no {key}: {', '.join(kinds_with(key))} do")
    if values.get("split", "all") not in ("train", "test", "all"):
        raise UsageError(f"--data is {options.data!r}; the split is train, test or all")
    if values.get("depth_unit", "mm") not in _DEPTH_UNITS:
        raise UsageError(f"--data is {options.data!r}; depth_unit is {', '.join(_DEPTH_UNITS)}")
    for key in (key for key in _NUMBERS if key in values):
        values[key] = _number(options.data, key, values[key])
    given = {"root": options.root, "file_column": options.file_column, "label_column": options.label_column}
    given["limit"] = options.limit
    return DataSpec(kind=kind, path=path or None, strict=options.strict, **{**given, **values})


def _path_and_values(data: str, rest: str, *, alone: bool) -> tuple[str, dict[str, Any]]:
    """The path of ``KIND:PATH,KEY=VALUE,...`` and the values; a kind that stands ``alone`` may have its split there."""
    path, *pairs = re.split(rf",(?=(?:{'|'.join(_KEYS)})=)", rest)
    if alone:
        path, pairs = "", [f"split={path or 'test'}", *pairs] if "=" not in path else [path, *pairs]
        if unknown := [pair for pair in pairs if pair.partition("=")[0] not in _KEYS]:
            raise UsageError(f"--data is {data!r}; {unknown[0]!r} is none of {', '.join(_KEYS)}")
    return path, dict(pair.split("=", 1) for pair in pairs)


def _number(data: str, key: str, text: str) -> float:
    kind, low, high, what = _NUMBERS[key]
    if not re.fullmatch(r"\d+" if kind is int else r"\d+(\.\d+)?", text) or not low <= float(text) <= high:
        raise UsageError(f"--data is {data!r}; {key} is {what}")
    return kind(text)
