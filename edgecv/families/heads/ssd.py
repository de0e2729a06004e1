"""Single-shot detectors with prior boxes, and the four outputs of the TFLite post-processing operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.heads.anchors import frozen, inside, moved
from edgecv.families.heads.common import (
    MULTI_LABEL,
    Candidates,
    Head,
    Option,
    Shape,
    best_scores,
    check_scores,
    is_count,
    is_list,
    is_number,
    logit,
    pick,
    setting,
    sigmoid,
    softmax,
    to_pixels,
)
from edgecv.families.heads.pairs import pair_of
from edgecv.vision.boxes import to_corners


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


SSD_OPTIONS = {
    "feature_maps": Option(
        ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)),
        lambda value: is_list(value, lambda pair: is_list(pair, is_count, length=2)),
        "a list of [height, width] in cells, finest map first",
    ),
    "scales": Option(
        (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
        lambda value: is_list(value, _is_positive),
        "a list of shares of the input's side, one for each map and one more",
    ),
    "aspect_ratios": Option(
        ((2, 3),) * 6,
        lambda value: (
            isinstance(value, list | tuple)
            and all(isinstance(one, list | tuple) and (not one or is_list(one, _is_positive)) for one in value)
        ),
        "a list for each map of ratios of width to height beside 1; each stands for its inverse too",
    ),
    "clip": Option(True, lambda value: isinstance(value, bool), "true or false: whether priors are cut at the edges"),
    "variances": Option(
        (0.1, 0.2), lambda value: is_list(value, _is_positive, length=2), "two numbers above 0: of centres and of sizes"
    ),
    "steps": Option(
        None,
        lambda value: value is None or is_list(value, _is_positive),
        "null (cells fill the input), or a list of each map's distance of cells in pixels",
    ),
    "clip_boxes": Option(
        False, lambda value: isinstance(value, bool), "true or false: whether boxes are cut before they are compared"
    ),
    "multi_label": MULTI_LABEL,
}

_ORDER = ("boxes", "classes", "scores", "count")
TFLITE_OPTIONS = {
    "order": Option(
        _ORDER,
        lambda value: isinstance(value, list | tuple) and sorted(map(str, value)) == sorted(_ORDER),
        "a list of the names boxes, classes, scores and count, in the order of the outputs",
    ),
    "class_offset": Option(
        0, lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number, added to each class"
    ),
}


def _columns(spec: FamilySpec) -> int:
    return len(spec.labels) + (1 if spec.background else 0)


def _prior_count(spec: FamilySpec) -> int:
    maps = setting(SSD_OPTIONS, spec, "feature_maps")
    ratios = setting(SSD_OPTIONS, spec, "aspect_ratios")
    return sum(high * wide * (2 + 2 * len(one)) for (high, wide), one in zip(maps, ratios, strict=True))


def _ssd_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    maps, scales, ratios = (setting(SSD_OPTIONS, spec, name) for name in ("feature_maps", "scales", "aspect_ratios"))
    if len(scales) != len(maps) + 1 or len(ratios) != len(maps):
        return [
            f"head 'ssd' has {len(maps)} feature_maps, {len(scales)} scales and {len(ratios)} aspect_ratios; "
            f"{len(maps)} maps need {len(maps) + 1} scales and {len(maps)} lists of ratios"
        ]
    steps = setting(SSD_OPTIONS, spec, "steps")
    if steps is not None and len(steps) != len(maps):
        return [f"head 'ssd' has {len(maps)} feature_maps and {len(steps)} steps; give one step for each map"]
    priors, columns = _prior_count(spec), _columns(spec)
    wanted = f"(1, {priors}, 4) and (1, {priors}, {columns})"
    fitting = [shape for shape in shapes if math.prod(shape) in (priors * 4, priors * columns)]
    if len(shapes) == 2 and len(fitting) == 2 and sum(map(math.prod, shapes)) == priors * (4 + columns):
        return []
    return [
        f"the model has outputs of shape {list(shapes)}; {priors} priors (options feature_maps, aspect_ratios) and "
        f"{columns} classes (labels{' + background' if spec.background else ''}) need {wanted}"
    ]


def _ssd_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    offsets, values = pair_of(outputs, _columns(spec), boxes_first=True)
    maps, scales, ratios = (
        frozen(setting(SSD_OPTIONS, spec, name)) for name in ("feature_maps", "scales", "aspect_ratios")
    )
    steps = setting(SSD_OPTIONS, spec, "steps")
    cells = None if steps is None else tuple((contract.size[0] / step, contract.size[1] / step) for step in steps)
    anchors = priors(maps, scales, ratios, setting(SSD_OPTIONS, spec, "clip"), cells)
    if len(anchors) != len(offsets):
        raise ModelError(f"the model gave {len(offsets)} boxes; the head's options make {len(anchors)} priors")
    rows, ids, scores = _class_scores(values, spec)
    centre, size = setting(SSD_OPTIONS, spec, "variances")
    placed = moved(anchors[rows], offsets[rows], centre=centre, side=size)
    boxes = to_corners(to_pixels(placed, contract))
    return Candidates(inside(boxes, contract) if setting(SSD_OPTIONS, spec, "clip_boxes") else boxes, scores, ids)


def _class_scores(values: FloatArray, spec: FamilySpec) -> tuple[Any, Any, FloatArray]:
    """Rows, classes and scores above the threshold, from probabilities, softmax logits or (no background) sigmoid."""
    multi_label = setting(SSD_OPTIONS, spec, "multi_label")
    first = 1 if spec.background else 0
    if spec.outputs == "probabilities":
        return pick(values[:, first:], spec.score_threshold, multi_label=multi_label)
    if not spec.background:
        rows, ids, logits = pick(values, logit(spec.score_threshold), multi_label=multi_label)
        return rows, ids, sigmoid(logits)
    # A class reaches the threshold only if its logit lies near enough to the background's: few rows need softmax.
    gap = pick((best_scores(values[:, 1:]) - values[:, 0])[:, np.newaxis], logit(spec.score_threshold))[0]
    inner, ids, scores = pick(softmax(values[gap])[:, 1:], spec.score_threshold, multi_label=multi_label)
    return gap[inner], ids, scores


@lru_cache(maxsize=8)
def priors(
    feature_maps: tuple[tuple[int, int], ...],
    scales: tuple[float, ...],
    aspect_ratios: tuple[tuple[float, ...], ...],
    clip: bool,
    cells: tuple[tuple[float, float], ...] | None = None,
) -> FloatArray:
    """Prior boxes `(P, 4)` float32 as centre x, centre y, width, height, in shares of the input's sides.

    For each map and cell, row by row: a square of the map's scale, one of the geometric mean with the next
    map's scale, then for each ratio r one of r and one of 1 / r (W. Liu et al., "SSD", 2016). With ``clip``
    widths and heights are at most 1. ``cells`` says how many cells of each map fill the input's height and width,
    where that is not the size of the map.
    """
    parts = []
    for index, (high, wide) in enumerate(feature_maps):
        scale = scales[index]
        between = math.sqrt(scale * scales[index + 1])
        sizes = [(scale, scale), (between, between)]
        for ratio in aspect_ratios[index]:
            root = math.sqrt(ratio)
            sizes += [(scale * root, scale / root), (scale / root, scale * root)]
        shapes = np.array(sizes)
        if clip:
            shapes = shapes.clip(0, 1)
        y, x = np.divmod(np.arange(high * wide), wide)
        down, across = (high, wide) if cells is None else cells[index]
        centres = np.stack([(x + 0.5) / across, (y + 0.5) / down], axis=1)
        parts.append(np.concatenate([centres.repeat(len(sizes), axis=0), np.tile(shapes, (high * wide, 1))], axis=1))
    boxes: FloatArray = np.concatenate(parts).astype(np.float32)
    boxes.setflags(write=False)  # shared by all callers
    return boxes


# --- ssd-tflite


def _tflite_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    wanted = "boxes (1, K, 4), classes (1, K), scores (1, K) and count (1,)"
    sizes = {name: math.prod(shape) for name, shape in _tflite_named(spec, shapes)}
    if len(shapes) == 4 and sizes["count"] == 1 and sizes["boxes"] == 4 * sizes["scores"] == 4 * sizes["classes"]:
        return []
    return [f"the model has outputs of shape {list(shapes)}; head 'ssd-tflite' needs {wanted}. Set the option 'order'."]


def _tflite_named(spec: FamilySpec, items: Sequence[Any]) -> list[tuple[str, Any]]:
    """Each output (an array or a shape) with its name: boxes and count by their shape, the other two by the order."""
    shapes = [item if isinstance(item, tuple) else item.shape for item in items]
    order = list(setting(TFLITE_OPTIONS, spec, "order"))
    boxes = [place for place, shape in enumerate(shapes) if len(shape) == 3 and shape[-1] == 4]
    counts = [place for place, shape in enumerate(shapes) if len(shape) == 1 and shape[0] == 1]
    if len(items) != 4 or len(boxes) != 1 or len(counts) != 1:
        return list(zip(order, items, strict=False))
    rest = [place for place in range(4) if place not in (boxes[0], counts[0])]
    names = [name for name in order if name in ("classes", "scores")]
    places = [boxes[0], counts[0], *rest]
    return [(name, items[place]) for name, place in zip(["boxes", "count", *names], places, strict=True)]


def _tflite_decode(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Candidates:
    """Boxes as y1, x1, y2, x2 in shares of the input; only the first ``count`` rows mean something."""
    named = dict(_tflite_named(spec, outputs))
    if len(named) != 4 or named["boxes"].size != 4 * named["scores"].size:
        raise ModelError(f"the model gave outputs of shape {[output.shape for output in outputs]}; four are needed")
    count = int(np.clip(np.rint(named["count"].reshape(-1)[0]), 0, named["scores"].size))
    scores, classes = named["scores"].reshape(-1)[:count], named["classes"].reshape(-1)[:count]
    if (scores > 1).any() or (classes != np.rint(classes)).any():
        # Converters write these two in either order, and scores are the ones with values between 0 and 1.
        scores, classes = classes, scores
    check_scores(scores)
    rows = np.flatnonzero(scores >= spec.score_threshold)
    boxes = named["boxes"].reshape(-1, 4)[rows][:, [1, 0, 3, 2]]
    ids = np.rint(classes[rows]).astype(np.int64) + setting(TFLITE_OPTIONS, spec, "class_offset")
    return Candidates(to_pixels(boxes, contract), scores[rows], ids)


HEADS = {
    "ssd": Head("SSD: (1, P, 4) offsets and (1, P, C) scores of prior boxes", _ssd_problems, _ssd_decode, SSD_OPTIONS),
    "ssd-tflite": Head(
        "the four outputs of the TFLite detection post-processing",
        _tflite_problems,
        _tflite_decode,
        TFLITE_OPTIONS,
        suppress=False,
        ranked=True,
    ),
}
