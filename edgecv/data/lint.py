"""Is a calibration set fit to set the scales of a quantised model? Each check is a figure and a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Reader
from edgecv.core.tensor import FloatArray
from edgecv.data.features import Features, features_of
from edgecv.data.files import even_pick
from edgecv.data.selection import Rule, classes_of, truths_of
from edgecv.errors import DataError

MIN_PICTURES = 8
ENOUGH_PICTURES = 64
DUPLICATES_ERROR = 0.5
NEAR_CORRELATION = 0.99
NEAR_WARNING = 0.05
BLANK_CONTRAST = 0.004
BLANK_ERROR = 0.1
LEAK_ERROR = 0.05
SHIFT_WARNING = 0.15
SHIFT_WARNING_K_CENTER = 0.3
SHIFT_ERROR = 0.4
SATURATED_EXCESS = 0.15
SATURATED_ALONE = 0.9
ACTIVATIONS_WARNING = 0.01
ACTIVATIONS_ERROR = 0.1
FEW_OBJECTS = 0.25
COMPARED = 1024
"""Pictures of each set whose pixels are compared; hashes and classes are compared over all."""
SPREAD_FLOOR = 0.02
"""Smallest spread that shifts are measured in, so that a region that never changes is not infinitely far."""

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class LintFinding:
    """One thing that is wrong with a calibration set: ``figure`` is beyond ``limit``.

    ``code`` is one of too-few, duplicates, near-duplicates, one-class, missing-classes, blank, leak,
    shift, saturated-pixels, saturated-activations, few-objects.
    """

    level: Level
    code: str
    message: str
    figure: float
    limit: float


def lint_calibration(
    calibration: Reader,
    evaluation: Reader | None,
    *,
    labels: Sequence[str],
    contract: InputContract,
    select: Rule = "random",
) -> list[LintFinding]:
    """Check a calibration set, alone and against the evaluation set; errors come first.

    ``select`` is the rule that the set was picked by: k-center takes unusual pictures on purpose.
    Limits were set by experiment so that random picks from the evaluation set's own source pass:
    see `_shift` for how far another set may be. Pictures are read one by one and not kept.

    Raises:
        DataError: a picture cannot be read.
    """
    mine = features_of(calibration, _compared(calibration), contract)
    findings = [*_count(calibration), *_duplicates(calibration, mine), *_classes(calibration, labels), *_blank(mine)]
    other = None
    if evaluation is not None:
        findings += _leak(calibration, evaluation)
        other = features_of(evaluation, _compared(evaluation), contract)
        findings += _shift(mine, other, select)
    findings += _saturated_pixels(mine, other)
    return sorted(findings, key=lambda finding: finding.level != "error")


def refuse(findings: Sequence[LintFinding]) -> None:
    """Stop where a finding is an error.

    Raises:
        DataError: lists all errors.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        lines = "\n".join(f"  {finding.code}: {finding.message}" for finding in errors)
        raise DataError(f"the calibration set cannot be used:\n{lines}")


def saturation_finding(tensors: Mapping[str, float], *, ranges: str = "minmax") -> LintFinding | None:
    """What quantisation found: ``tensors`` gives the share 0..1 of values beyond the scale, by tensor name.

    ``ranges`` is the rule that set the scales, which the advice goes by: all but ``minmax`` cut on purpose. None
    where no tensor has more than one in a hundred.
    """
    beyond = sorted(((share, name) for name, share in tensors.items() if share > ACTIVATIONS_WARNING), reverse=True)
    if not beyond:
        return None
    worst = beyond[0][0]
    names = ", ".join(f"{name} ({share:.1%})" for share, name in beyond[:3])
    more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
    limit = ACTIVATIONS_ERROR if worst > ACTIVATIONS_ERROR else ACTIVATIONS_WARNING
    return LintFinding(
        "error" if worst > ACTIVATIONS_ERROR else "warning",
        "saturated-activations",
        f"values of {names}{more} lie beyond the int8 range; allowed are {limit:.0%}. {_saturation_advice(ranges)}",
        worst,
        limit,
    )


def objects_finding(mine: float, other: float, *, ranges: str = "minmax") -> LintFinding | None:
    """Whether the calibration set shows too few objects: ``mine`` are found there in a picture by the float network, on
    the mean, and ``other`` in the evaluation set. None where there are at least a quarter as many.

    A face detector that was calibrated on pictures of COCO, with 0.24 faces each, lost 3 of 51 in a crowd; with frames
    and pictures that show faces (8 each) it lost none.
    """
    if mine >= FEW_OBJECTS * other:
        return None
    message = (
        f"the float network is sure of {mine:.2g} objects a picture here and of {other:.2g} in the evaluation set; at "
        f"least {FEW_OBJECTS:.0%} of that is advised, since values that only objects bring about are cut off. Add "
        "pictures that show what is to be found, small and large"
        + ("." if ranges == "minmax" else ", or set `ranges: minmax`, which cuts nothing that it has seen.")
    )
    return LintFinding("warning", "few-objects", message, mine / other, FEW_OBJECTS)


def _saturation_advice(ranges: str) -> str:
    """What to do about values that are cut, by the rule that chose the ranges."""
    if ranges == "minmax":
        return "Add pictures like those of the evaluation set: the widest range that these have is in use already."
    why = (
        "takes the mean of the pictures' ranges, so what only some pictures reach is cut by design"
        if ranges == "mean-minmax"
        else "cuts the rarest values by design"
    )
    return (
        f"`ranges: {ranges}` {why}. If accuracy suffers, set `ranges: minmax` in the quantize step, which cuts nothing "
        "that it has seen, or add pictures like those of the evaluation set."
    )


def _compared(reader: Reader) -> list[int]:
    return even_pick(truths_of(reader), COMPARED)


def _count(calibration: Reader) -> list[LintFinding]:
    count = len(calibration)
    if count >= ENOUGH_PICTURES:
        return []
    error = count < MIN_PICTURES
    limit = MIN_PICTURES if error else ENOUGH_PICTURES
    message = f"{count} pictures; {ENOUGH_PICTURES} or more are advised, {MIN_PICTURES} are the least. Raise samples."
    return [LintFinding("error" if error else "warning", "too-few", message, count, limit)]


def _duplicates(calibration: Reader, features: Features) -> list[LintFinding]:
    count = len(calibration)
    repeated = count - len({calibration.sha256(index) for index in range(count)})
    if repeated:
        share = repeated / count
        error = share > DUPLICATES_ERROR
        message = f"{repeated} of {count} pictures ({share:.0%}) are copies of another. Remove them from the source."
        limit = DUPLICATES_ERROR if error else 0.0
        return [LintFinding("error" if error else "warning", "duplicates", message, share, limit)]
    share = _near_share(features.patterns)
    if share <= NEAR_WARNING:
        return []
    message = (
        f"{share:.0%} of the pictures look like another one (correlation above {NEAR_CORRELATION}); allowed are "
        f"{NEAR_WARNING:.0%}. Neighbouring frames of a video? Use select: k-center, or a more varied source."
    )
    return [LintFinding("warning", "near-duplicates", message, share, NEAR_WARNING)]


def _near_share(patterns: FloatArray) -> float:
    """Share of pictures with a twin before them."""
    near = 0
    for start in range(0, len(patterns), 256):
        block = patterns[start : start + 256]
        alike = block @ patterns[: start + len(block)].T > NEAR_CORRELATION
        near += int(np.count_nonzero(np.tril(alike, k=start - 1).any(axis=1)))
    return near / len(patterns)


def _classes(calibration: Reader, labels: Sequence[str]) -> list[LintFinding]:
    """All classes should be there once there are two pictures for each; before that, half of what is possible.

    A set without labels is not judged, and one class alone is only an error where a picture has one class.
    """
    count, classes = len(calibration), len(labels)
    truths = truths_of(calibration)
    shows = [classes_of(truth) for truth in truths]
    if None in shows:
        return []
    covered = sorted({index for found in shows for index in found or ()})
    single = all(isinstance(truth, (int, np.integer)) for truth in truths)
    if len(covered) == 1 and classes > 1 and single:
        message = f"all {count} pictures are of one class, {labels[covered[0]]}. Use select: stratified."
        return [LintFinding("error", "one-class", message, 1, 2)]
    wanted = classes if count >= 2 * classes else min(count, classes) // 2
    if len(covered) >= wanted:
        return []
    missing = [label for index, label in enumerate(labels) if index not in covered]
    shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    message = f"{len(covered)} of {classes} classes are covered; missing: {shown}. Use select: stratified."
    return [LintFinding("warning", "missing-classes", message, len(covered), wanted)]


def _blank(features: Features) -> list[LintFinding]:
    share = float(np.mean(features.contrast.max(axis=1) < BLANK_CONTRAST))
    if share == 0.0:
        return []
    error = share > BLANK_ERROR
    message = f"{share:.0%} of the pictures are one flat colour; they say nothing about activations. Remove them."
    return [LintFinding("error" if error else "warning", "blank", message, share, BLANK_ERROR if error else 0.0)]


def _leak(calibration: Reader, evaluation: Reader) -> list[LintFinding]:
    judged = {evaluation.sha256(index) for index in range(len(evaluation))}
    shared = sum(calibration.sha256(index) in judged for index in range(len(calibration)))
    if not shared:
        return []
    share = shared / len(calibration)
    error = share > LEAK_ERROR
    message = (
        f"{shared} of {len(calibration)} pictures ({share:.0%}) are in the evaluation set too, which makes the "
        "measured accuracy too good. Calibrate on other pictures, such as the training set."
    )
    return [LintFinding("error" if error else "warning", "leak", message, share, LEAK_ERROR if error else 0.0)]


def _shift(mine: Features, other: Features, select: Rule) -> list[LintFinding]:
    """How far the set's average picture is from the evaluation set's, in spreads of the latter's pictures.

    Two figures: the largest shift of level, contrast and sharpness over the channels, and the root
    mean square shift over 4 x 4 regions. From each, what sampling alone gives in 1 of 100 random
    picks (3.5 and 2.0 times ``sqrt(1/n + 1/m)``, found by drawing from CIFAR-10, ImageNet and digits
    pictures) is taken off; the larger remainder counts. A k-center pick reaches for pictures of high
    contrast (0.9 spreads more on CIFAR-10) and somewhat for sharp ones, so the one is not held
    against it and the other only by a wider warning limit.
    """
    noise = (1.0 / len(mine.level) + 1.0 / len(other.level)) ** 0.5
    parts = {
        "brightness": float(_distance(mine.level, other.level).max()) - 3.5 * noise,
        "contrast": float(_distance(mine.contrast, other.contrast).max()) - 3.5 * noise,
        "sharpness": float(_distance(mine.sharpness, other.sharpness).max()) - 3.5 * noise,
        "layout": float(np.sqrt(np.mean(_distance(mine.regions, other.regions) ** 2))) - 2.0 * noise,
    }
    warning = SHIFT_WARNING
    if select == "k-center":
        del parts["contrast"]
        warning = SHIFT_WARNING_K_CENTER
    name, figure = max(parts.items(), key=lambda part: part[1])
    if figure <= warning:
        return []
    # The spread of a handful of pictures is known too badly to refuse a set for it.
    error = figure > SHIFT_ERROR and len(other.level) >= MIN_PICTURES
    limit = SHIFT_ERROR if error else warning
    message = (
        f"the pictures are unlike the evaluation set's: the mean {name} is {figure:.2f} spreads further away than "
        f"chance explains; allowed are {limit}. Take the pictures from where the model will be used."
    )
    return [LintFinding("error" if error else "warning", "shift", message, figure, limit)]


def _distance(mine: FloatArray, other: FloatArray) -> FloatArray:
    spread = np.maximum(other.std(axis=0), SPREAD_FLOOR)
    shift: FloatArray = np.abs(mine.mean(axis=0) - other.mean(axis=0)) / spread
    return shift


def _saturated_pixels(mine: Features, other: Features | None) -> list[LintFinding]:
    share = float(mine.saturated.mean())
    limit = SATURATED_ALONE if other is None else float(other.saturated.mean()) + SATURATED_EXCESS
    if share <= limit:
        return []
    compared = "" if other is None else f", in the evaluation set {limit - SATURATED_EXCESS:.0%}"
    message = (
        f"{share:.0%} of the pixel values are 0 or 255{compared}; allowed are {limit:.0%}. "
        "Are the pictures over- or underexposed, or masks?"
    )
    return [LintFinding("warning", "saturated-pixels", message, share, limit)]
