"""Accuracy of a loaded model file over a whole data set, through the same path as on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecv import families
from edgecv.core.figures import AccuracyFigures
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Metric, Parts, PartsMetric, Reader
from edgecv.core.tensor import FloatArray
from edgecv.errors import DataError
from edgecv.measure.gate import parts_interval
from edgecv.measure.ladder import read_npz
from edgecv.measure.subject import Subject
from edgecv.vision.clips import picture_size

MAX_COLLECT_BYTES = 1 << 30
"""Outputs that `collect_outputs` holds at most, in bytes."""


def evaluate(
    subject: Subject, reader: Reader, *, metric: str = "top1", progress: Progress | None = None
) -> AccuracyFigures:
    """The task metric over all samples of ``reader``, one at a time: pre-process, run, dequantise, decode.

    Only one picture and its outputs are in memory.

    Raises:
        DataError: the data set is empty or its truths do not fit the family.
        UsageError: the family has no such metric.
        EdgecvError: the engine failed.
    """
    counted = _counted(subject, reader, metric, progress or SilentProgress())
    return replace(counted.compute(), file_sha256=subject.file_sha256)


def evaluate_parts(
    subject: Subject, reader: Reader, *, metric: str, progress: Progress | None = None
) -> tuple[AccuracyFigures, Parts | None]:
    """As `evaluate`, with the parts that a bootstrap needs where the metric is no mean over pictures, and its interval.

    Raises:
        DataError: the data set is empty or its truths do not fit the family.
        UsageError: the family has no such metric.
        EdgecvError: the engine failed.
    """
    counted = _counted(subject, reader, metric, progress or SilentProgress())
    figures = replace(counted.compute(), file_sha256=subject.file_sha256)
    if not isinstance(counted, PartsMetric):
        return figures, None
    parts = counted.parts()
    return replace(figures, interval=parts_interval(parts)), parts


def save_parts(path: Path, parts: Parts) -> None:
    """Write parts as one compressed .npz without pickles."""
    np.savez_compressed(path, allow_pickle=False, **parts.arrays())


def load_parts(path: Path) -> Parts:
    """Read what `save_parts` wrote.

    Raises:
        ArtifactError: the file is corrupt.
    """
    return families.parts_from(read_npz(path))


def _counted(subject: Subject, reader: Reader, metric: str, progress: Progress) -> Metric:
    """The metric with every sample counted."""
    counted = subject.family.metric(subject.spec, metric)
    buffer = subject.input_buffer()
    with progress.task("evaluate", len(reader)) as task:
        for index in range(len(reader)):
            sample = reader[index]
            picture = picture_size(sample.image)
            result = subject.decode(subject.run(sample.image, buffer), picture=picture)
            counted.update(result, sample.truth)
            task.advance()
    return counted


def collect_outputs(
    subject: Subject, reader: Reader, *, indices: Iterable[int], progress: Progress | None = None
) -> tuple[FloatArray, ...]:
    """Real outputs of the samples at ``indices`` (in their order), one `(N, ...)` float32 array per output tensor.

    Raises:
        DataError: there is no index, or the outputs would need more than `MAX_COLLECT_BYTES`.
        EdgecvError: the engine failed.
    """
    chosen = list(indices)
    shapes = [(len(chosen), *spec.shape[1:]) for spec in subject.outputs]
    _check_collect(len(chosen), shapes)
    collected = tuple(np.empty(shape, dtype=np.float32) for shape in shapes)
    buffer = subject.input_buffer()
    with (progress or SilentProgress()).task("outputs", len(chosen)) as task:
        for row, index in enumerate(chosen):
            for kept, output in zip(collected, subject.run(reader[index].image, buffer), strict=True):
                kept[row] = output.reshape(kept.shape[1:])
            task.advance()
    return collected


def even_indices(total: int, wanted: int) -> list[int]:
    """``wanted`` indices (all where there are fewer) spread evenly over ``0..total - 1``, ascending."""
    count = min(total, wanted)
    return [index * total // count for index in range(count)]


def _check_collect(samples: int, shapes: Sequence[tuple[int, ...]]) -> None:
    if samples == 0:
        raise DataError("no samples to collect outputs of; give at least one")
    needed = sum(4 * int(np.prod(shape, dtype=np.int64)) for shape in shapes)
    if needed > MAX_COLLECT_BYTES:
        fits = max(1, samples * MAX_COLLECT_BYTES // needed)
        raise DataError(
            f"outputs of {samples} samples need {needed} bytes; allowed are {MAX_COLLECT_BYTES}. Take {fits} samples."
        )
