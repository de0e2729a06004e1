"""RetinaNet and FCOS with the outputs of torchvision's: all maps as one list of cells, logits for a sigmoid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.heads.anchors import anchor_boxes, corners_of_cells, frozen, inside, moved
from edgecv.families.heads.common import (
    Candidates,
    Head,
    Ints,
    Option,
    Shape,
    check_scores,
    flag,
    is_count,
    is_list,
    is_number,
    logit,
    pick,
    rows_of,
    setting,
    sigmoid,
)
from edgecv.families.heads.pairs import pair_of
from edgecv.vision.boxes import to_corners


def _are_sides(value: object) -> bool:
    return is_list(value, lambda number: is_number(number) and number > 0)


_STRIDES = Option(
    (8, 16, 32, 64, 128), lambda value: is_list(value, is_count), "a list of whole numbers, such as [8, 16, 32]"
)
RETINANET_OPTIONS = {
    "strides": _STRIDES,
    "sizes": Option(
        ((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812)),
        lambda value: is_list(value, _are_sides),
        "a list for each map of anchor sides in pixels",
    ),
    "aspect_ratios": Option((0.5, 1.0, 2.0), _are_sides, "a list of ratios of height to width"),
    "multi_label": flag(True),
}
FCOS_OPTIONS = {"strides": _STRIDES, "multi_label": flag(True)}


def _columns(spec: FamilySpec) -> int:
    return len(spec.labels) + (1 if spec.background else 0)


def _wanted(spec: FamilySpec) -> str:
    return f"{_columns(spec)} classes (labels{' + background' if spec.background else ''})"


# --- retinanet


def _retinanet_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    strides, sizes = setting(RETINANET_OPTIONS, spec, "strides"), setting(RETINANET_OPTIONS, spec, "sizes")
    if len(strides) != len(sizes):
        return [f"head 'retinanet' has {len(strides)} strides and {len(sizes)} lists of sizes; give one for each map"]
    columns = _columns(spec)
    if len(shapes) == 2 and any(
        one == (1, one[1], 4) and other == (1, one[1], columns)
        for one, other in (shapes, shapes[::-1])
        if len(one) == 3
    ):
        return []
    return [
        f"the model has outputs of shape {list(shapes)}; head 'retinanet' with {_wanted(spec)} needs offsets "
        f"(1, P, 4) and logits (1, P, {columns})"
    ]


def _retinanet_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    offsets, logits = pair_of(outputs, _columns(spec), boxes_first=True)
    strides = tuple(setting(RETINANET_OPTIONS, spec, "strides"))
    sizes = frozen(setting(RETINANET_OPTIONS, spec, "sizes"))
    anchors = anchor_boxes(contract.size, strides, sizes, frozen(setting(RETINANET_OPTIONS, spec, "aspect_ratios")))
    _check_count(len(offsets), len(anchors), "anchors (options strides, sizes, aspect_ratios)")
    given = logits[:, 1:] if spec.background else logits
    several = setting(RETINANET_OPTIONS, spec, "multi_label")
    if spec.outputs == "probabilities":
        rows, ids, scores = pick(given, spec.score_threshold, multi_label=several)
    else:
        rows, ids, found = pick(given, logit(spec.score_threshold), multi_label=several)
        scores = sigmoid(found)
    return Candidates(inside(to_corners(moved(anchors[rows], offsets[rows])), contract), scores, ids)


def _check_count(given: int, made: int, what: str) -> None:
    if given != made:
        raise ModelError(f"the model gave {given} boxes; for this input size there are {made} {what}")


# --- fcos


def _fcos_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    columns = _columns(spec)
    rows = len(shapes) == 3 and all(len(shape) == 3 and shape[:2] == (1, shapes[0][1]) for shape in shapes)
    if rows and sorted(shape[2] for shape in shapes) == sorted((4, columns, 1)):
        return []
    return [
        f"the model has outputs of shape {list(shapes)}; head 'fcos' with {_wanted(spec)} needs distances (1, P, 4), "
        f"logits (1, P, {columns}) and centre-ness (1, P, 1)"
    ]


def _fcos_named(outputs: Sequence[FloatArray], columns: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distances, logits and centre-ness, told apart by their width; by their order where two are equally wide."""
    if len(outputs) != 3:
        raise ModelError(f"the model gave {len(outputs)} outputs; distances, logits and centre-ness are needed")
    rest = list(outputs)
    if columns not in (1, 4):
        rest.sort(key=lambda output: (4, columns, 1).index(output.shape[-1]) if output.shape[-1] in (4, 1) else 1)
    boxes, values, centres = rows_of(rest[0], 4), rows_of(rest[1], columns), rows_of(rest[2], 1)[:, 0]
    if not len(boxes) == len(values) == len(centres):
        raise ModelError(
            f"the model gave outputs of shape {[output.shape for output in outputs]}; equally many are due"
        )
    return boxes, values, centres


def _fcos_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    """Distances to the four sides count in strides from a cell's corner, where torchvision has the cell's point.

    A score is the geometric mean of a class's share and the centre-ness (Z. Tian et al., "FCOS", 2020).
    """
    distances, logits, centres = _fcos_named(outputs, _columns(spec))
    strides = tuple(setting(FCOS_OPTIONS, spec, "strides"))
    places = corners_of_cells(contract.size, strides)
    _check_count(len(distances), sum(map(len, places)), "cells (option strides)")
    rows, ids, scores = _fcos_scores(logits[:, 1:] if spec.background else logits, centres, spec)
    point = np.concatenate(places)[rows]
    unit = np.concatenate([np.full(len(one), stride, np.float32) for one, stride in zip(places, strides, strict=True)])
    reach = distances[rows] * unit[rows, np.newaxis]
    boxes = np.concatenate([point - reach[:, :2], point + reach[:, 2:]], axis=1)
    return Candidates(inside(boxes, contract), scores, ids)


def _fcos_scores(logits: FloatArray, centres: FloatArray, spec: FamilySpec) -> tuple[Ints, Ints, FloatArray]:
    check_scores(centres)
    ready = spec.outputs == "probabilities"
    share = centres if ready else sigmoid(centres)
    # No class can lift a score above the root of the centre-ness, so few rows are looked at as a whole.
    hopeful: Ints = np.flatnonzero(share >= spec.score_threshold**2)
    few = logits[hopeful] if ready else sigmoid(logits[hopeful])
    both = np.sqrt(few * share[hopeful, np.newaxis])
    inner, ids, scores = pick(both, spec.score_threshold, multi_label=setting(FCOS_OPTIONS, spec, "multi_label"))
    return hopeful[inner], ids, scores


HEADS = {
    "retinanet": Head(
        "RetinaNet: (1, P, 4) offsets and (1, P, C) logits of anchors",
        _retinanet_problems,
        _retinanet_decode,
        RETINANET_OPTIONS,
    ),
    "fcos": Head(
        "FCOS: (1, P, 4) distances, (1, P, C) logits and (1, P, 1) centre-ness",
        _fcos_problems,
        _fcos_decode,
        FCOS_OPTIONS,
    ),
}
