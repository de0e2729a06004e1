"""The verification ladder: each form of the model against the one before it, on the same pictures.

float torch -> float ONNX -> Q/DQ torch -> compiled artifact -> device. A rung that breaks is named
with what is to blame: pre-processing, graph, quantisation, compiler, decode or metric.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.figures import Diagnosis, Ladder, Outcome, Rung
from edgecv.core.kinds import lower_is_better, metric_loss, metric_unit
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Array, FloatArray, TensorSpec
from edgecv.errors import ArtifactError

GRAPH_MIN_DB = 60.0
"""Float torch against float ONNX: only the order of additions differs (float32 holds about 140 dB)."""
PREPROCESS_MIN_DB = 40.0
"""Against the input of calibration, rounded as the engine's is. The same code gives the same bits; another build of
OpenCV may round some cubic or area pixels otherwise (45 dB and more); an offset of one pixel leaves 15 to 35 dB."""
QUANTISATION_MIN_DB = 5.0
"""Q/DQ against the float model it came from, after calibration alone."""
COMPILER_MIN_DB = 20.0
"""Compiled int8 against the Q/DQ graph: same scales, so only single rounding steps may differ."""
FLOAT_COMPILER_MIN_DB = 40.0
FP16_COMPILER_MIN_DB = 30.0
MIN_AGREEMENT = 0.95
COMPILER_MIN_AGREEMENT = 0.97
QUANTISATION_MIN_AGREEMENT = 0.85
"""A sound int8 graph of an 80 % model changes its answer on one borderline picture in sixteen, for better and worse;
what that costs is the accuracy gate's to judge on the whole evaluation set."""
ONE_MAY_CHANGE = 10
"""From so many pictures on a single one may change its answer, whatever share that is: with a score at the threshold it
does so by one rounding step."""
MAX_METRIC_DROP = 0.10
"""On the few samples of the ladder; a broken rung loses far more."""
MAX_METRIC_DROP_DB = 3.0
"""The same for a metric in dB: twice the squared error."""
MAX_METRIC_GROWTH = 0.5
"""The same for an error with a unit, such as metres, as a share of what it was."""
EQUAL_METRIC, EQUAL_METRIC_DB, EQUAL_METRIC_GROWTH = 0.002, 0.02, 0.01
"""A metric that falls by no more than this is as good: faint boxes come and go with the last bit of their score."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of one form of the model: one `(N, ...)` float32 array per output tensor."""

    name: str
    arrays: tuple[FloatArray, ...]

    @property
    def samples(self) -> int:
        """Number of pictures."""
        return int(self.arrays[0].shape[0])


def sqnr_db(reference: Sequence[Array], other: Sequence[Array]) -> float:
    """Signal to quantisation noise in dB, over all arrays: ``10 log10(sum ref^2 / sum (ref - other)^2)``.

    Arrays pair up and have the same number of values. inf where they are equal; -inf where the
    other has a value that is not finite.
    """
    signal = noise = 0.0
    for one, two in zip(reference, other, strict=True):
        flat, against = one.astype(np.float64).ravel(), two.astype(np.float64).ravel()
        if not np.isfinite(against).all():
            return float("-inf")
        signal += float(flat @ flat)
        difference = flat - against
        noise += float(difference @ difference)
    if noise == 0:
        return float("inf")
    return float("-inf") if signal == 0 else float(10.0 * np.log10(signal / noise))


def max_abs_error(reference: Sequence[Array], other: Sequence[Array]) -> float:
    """Largest absolute difference over all values; inf where a value is not finite."""
    worst = 0.0
    for one, two in zip(reference, other, strict=True):
        difference = np.abs(one.astype(np.float64).ravel() - two.astype(np.float64).ravel())
        worst = max(worst, float(difference.max(initial=0.0)) if np.isfinite(difference).all() else float("inf"))
    return worst


class Judge:
    """Decodes and scores outputs by the family, so that a rung can tell answers from numbers.

    ``pictures`` are the (height, width) of the pictures, where truths are in their pixels.
    """

    def __init__(
        self,
        spec: FamilySpec,
        contract: InputContract,
        truths: Sequence[Any],
        metric: str,
        *,
        pictures: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._pictures = pictures
        self._spec, self._contract, self._truths, self._metric = spec, contract, list(truths), metric
        self._family = families.get(spec.kind)
        self._ranked = families.sorts_rows(spec)

    def results(self, outputs: Outputs) -> list[Any] | None:
        """Decoded results, one a picture; None where a value is not finite and nothing can be decoded."""
        if not all(np.isfinite(array).all() for array in outputs.arrays):
            return None
        return [
            self._family.decode(
                [array[row : row + 1] for array in outputs.arrays],
                self._spec,
                self._contract,
                picture=None if self._pictures is None else self._pictures[row],
            )
            for row in range(outputs.samples)
        ]

    def agreement(self, one: list[Any] | None, other: list[Any] | None) -> float:
        """Share of pictures with the same answer."""
        if one is None or other is None:
            return 0.0
        same = [self._family.agree(a, b) for a, b in zip(one, other, strict=True)]
        return float(np.mean(same))

    def score(self, results: list[Any] | None) -> float:
        """The task metric on these pictures; the worst there is without results."""
        if results is None:
            return float("inf") if lower_is_better(self._metric) else 0.0
        metric = self._family.metric(self._spec, self._metric)
        for result, truth in zip(results, self._truths, strict=True):
            metric.update(result, truth)
        return metric.compute().value

    def base(self, form: Outputs) -> Rung:
        """The rung that the ladder stands on: nothing to compare with, only the task metric."""
        score = self.score(self.results(form))
        return Rung(form.name, "", form.samples, None, None, None, score, None, "not-checked")

    def _losses(self, before: float) -> tuple[float, float]:
        """Of the metric: what is as good as nothing, and what is a defect whatever the budget."""
        unit = metric_unit(self._metric)
        if unit == "share":
            return EQUAL_METRIC, MAX_METRIC_DROP
        if unit == "dB":
            return EQUAL_METRIC_DB, MAX_METRIC_DROP_DB
        return EQUAL_METRIC_GROWTH * before, MAX_METRIC_GROWTH * before

    def rung(
        self,
        reference: Outputs,
        other: Outputs,
        *,
        min_db: float | None,
        min_agreement: float,
        blame: str,
        max_drop: float | None = None,
    ) -> Rung:
        """Hold ``other`` against ``reference``; breaks below ``min_db`` (not for outputs whose rows the network itself
        puts in order, `families.sorts_rows`, and not where ``min_db`` is None because the weights were trained
        between), or where the answers change and the metric falls by more than ``max_drop`` (the budget's, for what
        may cost accuracy) or by what is next to nothing.

        Blames ``blame`` where the numbers are off, ``metric`` where only the task metric fell.
        """
        if other.samples != reference.samples:
            raise ArtifactError(f"{other.name} has {other.samples} samples, {reference.name} has {reference.samples}")
        mine, theirs = self.results(reference), self.results(other)
        decibel = sqnr_db(reference.arrays, other.arrays)
        agreement, before, after = self.agreement(mine, theirs), self.score(mine), self.score(theirs)
        guilty = ""
        # Where two scores nearly tie, rows change places: of such outputs only the answers can be compared.
        if self._ranked:
            min_db = None
        off = decibel == float("-inf") or (min_db is not None and decibel < min_db)
        equal, broken = self._losses(before)
        lost = metric_loss(self._metric, before, after)
        changed = round((1.0 - agreement) * reference.samples)
        unlike = agreement < min_agreement and (changed > 1 or reference.samples < ONE_MAY_CHANGE)
        if off or (unlike and lost > max(equal, max_drop or 0.0)):
            guilty = blame
        elif lost > broken:
            guilty = "metric"
        return Rung(
            name=other.name,
            against=reference.name,
            samples=reference.samples,
            sqnr_db=decibel,
            max_abs_error=max_abs_error(reference.arrays, other.arrays),
            agreement=agreement,
            metric=after,
            min_sqnr_db=min_db,
            outcome="fail" if guilty else "pass",
            blame=guilty,
        )


def preprocess_rung(expected: FloatArray, fed: FloatArray, spec: TensorSpec | None = None) -> Rung:
    """What calibration and training fed `(N, ...)` against what the engine is fed on the same pictures.

    ``spec`` is the engine's input: where that is quantised, what is expected is rounded to its steps first.
    """
    if spec is not None:
        expected = spec.dequantize(spec.quantize(expected))
    decibel = sqnr_db([expected], [fed])
    broken = decibel < PREPROCESS_MIN_DB
    return Rung(
        name="engine input",
        against="training input",
        samples=int(expected.shape[0]),
        sqnr_db=decibel,
        max_abs_error=max_abs_error([expected], [fed]),
        agreement=None,
        metric=None,
        min_sqnr_db=PREPROCESS_MIN_DB,
        outcome="fail" if broken else "pass",
        blame="pre-processing" if broken else "",
    )


def deferred_rung(name: str, against: str) -> Rung:
    """A rung that only the device can climb."""
    outcome: Outcome = "not-checked"
    return Rung(name, against, 0, None, None, None, None, None, outcome, "deferred to the device")


def ladder(rungs: Sequence[Rung], diagnosis: Sequence[Diagnosis] = ()) -> Ladder:
    """The rungs in order, and the name of the first that broke; ``diagnosis`` is dropped where none did."""
    broken = next((rung for rung in rungs if rung.outcome == "fail"), None)
    if broken is None:
        return Ladder(tuple(rungs), None)
    return Ladder(tuple(rungs), f"{broken.name} ({broken.blame})", tuple(diagnosis))


def compiler_limits(precision: str) -> tuple[float, float]:
    """Smallest SQNR in dB and smallest agreement of a compiled file against the graph that it came from."""
    if precision == "int8":
        return COMPILER_MIN_DB, COMPILER_MIN_AGREEMENT
    return (FP16_COMPILER_MIN_DB if precision == "fp16" else FLOAT_COMPILER_MIN_DB), MIN_AGREEMENT


def save_outputs(path: Path, forms: Sequence[Outputs], **extra: Array) -> None:
    """Write outputs as one .npz without pickles: ``<form>/<number>`` for each output tensor."""
    arrays = {f"{form.name}/{i}": array for form in forms for i, array in enumerate(form.arrays)}
    np.savez(path, allow_pickle=False, **arrays, **extra)


def load_outputs(path: Path) -> tuple[dict[str, Outputs], dict[str, Array]]:
    """Read what `save_outputs` wrote: the forms by name, and the extra arrays.

    Raises:
        ArtifactError: the file is corrupt.
    """
    arrays = read_npz(path)
    forms: dict[str, list[FloatArray]] = {}
    for name in sorted(name for name in arrays if "/" in name):
        forms.setdefault(name.rsplit("/", 1)[0], []).append(arrays[name])
    extra = {name: array for name, array in arrays.items() if "/" not in name}
    return {name: Outputs(name, tuple(values)) for name, values in forms.items()}, extra


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an .npz file without pickles.

    Raises:
        ArtifactError: the file is corrupt.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(f"{path} is corrupt ({error}); build the artifact again") from error
