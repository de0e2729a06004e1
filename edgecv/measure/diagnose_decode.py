"""Which decoding made a result: thresholds, non-maximum suppression, box format and labels, found by trying."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from edgecv.core.contract import InputContract
from edgecv.core.figures import Diagnosis
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Classification, label_of
from edgecv.core.tensor import Array
from edgecv.errors import EdgecvError
from edgecv.families.heads import HEADS
from edgecv.measure.golden import Golden, decoded
from edgecv.measure.ladder import Outputs

RUNG, LABELS_RUNG = "decode", "metric"
_PICTURES = 4
_TOLERANCE = 1e-3
_GRID = tuple(round(0.05 * step, 2) for step in range(21))
_COUNTS = (1, 5, 10, 20, 50, 100, 200, 300, 500, 1000)
_FLAGS = ("agnostic", "soft", "multi_label", "normalized", "decoded")

Results = Sequence[dict[str, Any]]


def same_results(one: Results, other: Results) -> bool:
    """Whether two lists of decoded results (as plain values) say the same, the names of classes left aside.

    Numbers may differ by a thousandth of their size or of 1: processors round exponentials differently.
    """
    return _same(list(one), list(other))


def diagnose_decode(
    golden: Golden, spec: FamilySpec, contract: InputContract, *, found: Results
) -> tuple[Diagnosis, ...]:
    """Why ``spec`` decodes the golden outputs to ``found`` and not to the golden results: the setting that does.

    One setting is tried at a time, then a score and an IoU threshold together.
    """
    some = _first(golden)
    wanted = some.results

    def gives(candidate: FamilySpec) -> bool:
        try:
            return same_results(decoded(some.outputs, some.pictures, candidate, contract), wanted)
        except (EdgecvError, ValueError):
            return False

    for name in ("score_threshold", "iou_threshold"):
        span = _span_of(gives, spec, name)
        if span is not None:
            return (_threshold(name, getattr(spec, name), span, len(wanted)),)
    for what, mine, theirs, candidate in _settings(spec):
        if gives(candidate):
            return (Diagnosis(RUNG, what, mine, theirs, _evidence(len(wanted))),)
    both = _both(spec, gives)
    if both:
        return tuple(_threshold(name, getattr(spec, name), span, len(wanted)) for name, span in both.items())
    counts = [
        sum(len(value) for value in item.values() if isinstance(value, list)) for item in (*found, *golden.results)
    ]
    half = len(found)
    text = f"{sum(counts[:half])} entries against {sum(counts[half:])}; no setting that is known here gives them"
    return (Diagnosis(RUNG, "the same outputs are decoded to other results", "", "", text),)


def diagnose_labels(golden: Golden, found: Results) -> tuple[Diagnosis, ...]:
    """Classes that have another name than when the artifact was proven; () where all names are the same."""
    mine, theirs = _names(found), _names(golden.results)
    other = sorted(index for index in mine.keys() & theirs.keys() if mine[index] != theirs[index])
    if not other:
        return ()
    swapped = {mine[index] for index in other} == {theirs[index] for index in other}
    what = "order of the labels" if swapped else "labels"
    said, proven = (", ".join(f"{index} {names[index]}" for index in other[:6]) for names in (mine, theirs))
    return (
        Diagnosis(LABELS_RUNG, what, said, proven, f"{len(other)} of {len(theirs)} classes seen have another name"),
    )


def diagnose_truths(results: Sequence[Any], truths: Sequence[Any]) -> tuple[Diagnosis, ...]:
    """Truths of a classification set whose classes are named in another order than the model's: the order, or ().

    Said only where a one-to-one renaming of the classes makes at least 80 % of ``results`` right and no more than
    half are right as they are; each class has to be seen twice.
    """
    if not results or not all(isinstance(result, Classification) for result in results):
        return ()
    pairs = [(int(truth), result.best) for result, truth in zip(results, truths, strict=True)]
    renamed: dict[int, int] = {}
    for truth in {truth for truth, _ in pairs}:
        answers = [answer for other, answer in pairs if other == truth]
        if len(answers) < 2:
            return ()
        renamed[truth] = max(sorted(set(answers)), key=answers.count)
    right = sum(truth == answer for truth, answer in pairs) / len(pairs)
    after = sum(renamed[truth] == answer for truth, answer in pairs) / len(pairs)
    if len(set(renamed.values())) < len(renamed) or len(renamed) < 2 or after < 0.8 or right > 0.5:
        return ()
    other = [truth for truth in sorted(renamed) if renamed[truth] != truth][:6]
    labels = results[0].labels
    found = ", ".join(f"{truth} {label_of(labels, truth)}" for truth in other)
    expected = ", ".join(f"{truth} {label_of(labels, renamed[truth])}" for truth in other)
    evidence = f"{right:.0%} of {len(pairs)} answers are right as it is, {after:.0%} with the classes renamed"
    return (Diagnosis(LABELS_RUNG, "order of the labels", found, expected, evidence),)


def _first(golden: Golden) -> Golden:
    """The pictures that are decoded again and again: those with the most to say."""
    rows = sorted(range(len(golden.results)), key=lambda row: -len(str(golden.results[row])))[:_PICTURES]
    outputs = Outputs(golden.outputs.name, tuple(array[rows] for array in golden.outputs.arrays))
    pictures: tuple[Array, ...] = tuple(golden.pictures[row] for row in rows)
    return Golden(pictures, golden.inputs[rows], outputs, tuple(golden.results[row] for row in rows))


def _span_of(gives: Callable[[FamilySpec], bool], spec: FamilySpec, name: str) -> tuple[float, float] | None:
    """The smallest and the largest value 0..1 of the field ``name`` for which ``gives`` holds, to 0.005; or None."""

    def right(value: float) -> bool:
        return gives(replace(spec, **{name: value}))  # type: ignore[arg-type]

    found = [value for value in _GRID if right(value)]
    found = found or [value for value in (round(0.01 * step, 2) for step in range(101)) if right(value)]
    if not found:
        return None
    low, high = found[0], found[-1]
    return _edge(right, low, max(0.0, low - 0.05)), _edge(right, high, min(1.0, high + 0.05))


def _edge(gives: Callable[[float], bool], inside: float, outside: float) -> float:
    while abs(inside - outside) > 0.005:
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if gives(middle) else (inside, middle)
    return inside


def _threshold(name: str, mine: float, span: tuple[float, float], pictures: int) -> Diagnosis:
    shown = f"{span[0]:.2f} to {span[1]:.2f}" if span[1] - span[0] > 0.006 else f"{span[0]:.2f}"
    return Diagnosis(RUNG, name, f"{mine:g}", shown, _evidence(pictures))


def _evidence(pictures: int) -> str:
    return f"with it the expected outputs of {pictures} pictures are decoded to the expected results"


def _settings(spec: FamilySpec) -> Iterator[tuple[str, str, str, FamilySpec]]:
    """Single settings with another value: name, found, expected, and the specification with it."""
    for count in _COUNTS:
        yield "max_detections", str(spec.max_detections), str(count), replace(spec, max_detections=count)
    for name in _FLAGS:
        mine = bool(spec.options.get(name, False))
        changed = replace(spec, options={**spec.options, name: not mine})
        yield f"option {name}", str(mine).lower(), str(not mine).lower(), changed
    yield (
        "background",
        str(spec.background).lower(),
        str(not spec.background).lower(),
        replace(spec, background=not spec.background),
    )
    other = "logits" if spec.outputs == "probabilities" else "probabilities"
    yield "outputs", spec.outputs, other, replace(spec, outputs=other)  # type: ignore[arg-type]
    for count in range(1, min(len(spec.labels), 20) + 1):
        yield "top_k", str(spec.top_k), str(count), replace(spec, top_k=count)
    for head in HEADS if spec.kind == "detection" else ():
        yield "head (format of the boxes)", spec.head, head, replace(spec, head=head)


def _both(spec: FamilySpec, gives: Callable[[FamilySpec], bool]) -> dict[str, tuple[float, float]]:
    """A score and an IoU threshold that together give the results; {} where none of the grid do."""
    for score in _GRID:
        for overlap in _GRID:
            if gives(replace(spec, score_threshold=score, iou_threshold=overlap)):
                overlaps = _span_of(gives, replace(spec, score_threshold=score), "iou_threshold")
                scores = _span_of(gives, replace(spec, iou_threshold=overlap), "score_threshold")
                return {"score_threshold": scores or (score, score), "iou_threshold": overlaps or (overlap, overlap)}
    return {}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = (one.keys() | other.keys()) - {"label"}
        return all(key in one and key in other and _same(one[key], other[key]) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(one == other)


def _names(results: Results) -> dict[int, str]:
    """Class number -> name, of all entries that have both."""
    found: dict[int, str] = {}
    for item in results:
        for entries in item.values():
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict) and "label" in entry:
                    index = entry.get("class", entry.get("id"))
                    if isinstance(index, int):
                        found[index] = str(entry["label"])
    return found
