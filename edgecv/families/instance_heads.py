"""How networks for instance segmentation say where the pixels of each object are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.masks import ObjectMask
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.detection import SUPPRESSION
from edgecv.families.heads.common import (
    MULTI_LABEL,
    NORMALIZED,
    Candidates,
    Ints,
    Option,
    Shape,
    check_scores,
    flag,
    is_number,
    pick,
    rows_of,
    setting,
    sigmoid,
    to_pixels,
)
from edgecv.vision.boxes import to_corners
from edgecv.vision.image import Geometry
from edgecv.vision.maps import picture_lines, sampled

Window = tuple[int, int, int, int]
Paint = Callable[[int, FloatArray, Window, Geometry], FloatArray]
"""``paint(candidate, box, window, place)``: the shares `(h, w)` 0..1 of the pixels in ``window`` of the picture that a
candidate's mask gives; ``box`` is the candidate's, in pixels of the picture, before it was cut at the edges."""


@dataclass(frozen=True)
class Found:
    """The objects that reach the score threshold, and how the mask of each is painted."""

    candidates: Candidates
    paint: Paint


@dataclass(frozen=True)
class MaskHead:
    """How outputs are read: ``problems`` says why shapes do not fit, ``decode`` finds the objects.

    ``suppress`` says whether candidates overlap and need non-maximum suppression, as the recipe has it.
    """

    what: str
    problems: Callable[[FamilySpec, Sequence[Shape]], list[str]]
    decode: Callable[[Sequence[FloatArray], FamilySpec, InputContract], Found]
    suppress: Callable[[FamilySpec], bool]
    options: Mapping[str, Option]


_THRESHOLD = Option(0.5, lambda value: is_number(value) and 0 < value < 1, "a number between 0 and 1")
PROTOTYPE_OPTIONS: Mapping[str, Option] = {
    **SUPPRESSION,
    "normalized": NORMALIZED,
    "multi_label": MULTI_LABEL,
    "mask_threshold": _THRESHOLD,
}
ROIS_OPTIONS: Mapping[str, Option] = {
    **SUPPRESSION,
    "normalized": NORMALIZED,
    "suppress": flag(True),
    "mask_threshold": _THRESHOLD,
}


# --- prototypes: YOLO-seg, YOLACT


@dataclass(frozen=True)
class Layout:
    """Which output holds rows of ``width`` values and which one prototypes, and whether those have channels first."""

    rows: int
    prototypes: int
    width: int
    first: bool


def layout(shapes: Sequence[Shape], classes: int) -> Layout | None:
    """How outputs of these shapes are read with so many ``classes``; None where they do not fit. Any batch size."""
    if len(shapes) != 2 or sorted(map(len, shapes)) != [3, 4]:
        return None
    rows, prototypes = (0, 1) if len(shapes[0]) == 3 else (1, 0)
    for channel in (1, 3):
        width = 4 + classes + shapes[prototypes][channel]
        if width in shapes[rows][1:]:
            return Layout(rows, prototypes, width, channel == 1)
    return None


def _prototype_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    classes = len(spec.labels)
    if layout(shapes, classes) is not None:
        return []
    return [
        f"the model has outputs of shape {list(shapes)}; head 'prototypes' needs rows (1, 4 + {classes} + M, N), which "
        f"are a box, {classes} labels and M coefficients, and M prototypes (1, M, h, w). Check the number of labels."
    ]


def _prototypes(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Found:
    """Boxes as YOLO gives them (centre and size in pixels); a mask is a weighted sum of prototypes.

    D. Bolya et al., YOLACT, arXiv:1904.02689: ``sigmoid(coefficients @ prototypes)``, cut to the box. Prototypes
    cover the network's input; shares are linear between their places.
    """
    found = layout([output.shape for output in outputs], len(spec.labels))
    if found is None:
        raise ModelError(_prototype_problems(spec, [output.shape for output in outputs])[0])
    rows = rows_of(outputs[found.rows], found.width, first=True)
    stop = 4 + len(spec.labels)
    multi_label = setting(PROTOTYPE_OPTIONS, spec, "multi_label")
    chosen, ids, scores = pick(rows[:, 4:stop], spec.score_threshold, multi_label=multi_label)
    sized = to_pixels(rows[chosen, :4], contract, normalized=setting(PROTOTYPE_OPTIONS, spec, "normalized"))
    planes = outputs[found.prototypes][0] if found.first else np.moveaxis(outputs[found.prototypes][0], -1, 0)

    def paint(candidate: int, box: FloatArray, window: Window, place: Geometry) -> FloatArray:
        down, across = picture_lines(planes.shape[1:], place, window)
        top, left = (max(0, int(np.floor(line[0]))) for line in (down, across))
        part = planes[:, top : int(np.floor(down[-1])) + 2, left : int(np.floor(across[-1])) + 2]
        coefficients = rows[chosen[candidate], stop:]
        shares = sigmoid(np.tensordot(coefficients, part, axes=1).astype(np.float32, copy=False))
        return sampled(shares, down - top, across - left)

    return Found(Candidates(to_corners(sized), scores, ids), paint)


# --- rois: Mask R-CNN


def _roi_problems(spec: FamilySpec, shapes: Sequence[Shape]) -> list[str]:
    if _roi_order(shapes) is not None:
        return []
    return [
        f"the model has outputs of shape {list(shapes)}; head 'rois' needs boxes (1, K, 4), scores (1, K), classes "
        "(1, K) and masks (1, K, h, w), scores before classes"
    ]


def _roi_order(shapes: Sequence[Shape]) -> tuple[int, int, int, int] | None:
    """Which outputs are boxes, scores, classes and masks: told apart by their shape, scores before classes."""
    by_rank = {rank: [index for index, shape in enumerate(shapes) if len(shape) == rank] for rank in (2, 3, 4)}
    if len(shapes) != 4 or [len(by_rank[rank]) for rank in (2, 3, 4)] != [2, 1, 1]:
        return None
    order = (by_rank[3][0], *by_rank[2], by_rank[4][0])
    boxes, scores, classes, masks = (shapes[index] for index in order)
    count = boxes[1]
    fits = boxes == (1, count, 4) and scores == classes == (1, count) and masks[:2] == (1, count)
    return (order[0], order[1], order[2], order[3]) if fits else None


def _rois(outputs: Sequence[FloatArray], spec: FamilySpec, contract: InputContract) -> Found:
    """K boxes in pixels of the input, each with the mask of its class on a grid over the box, as probabilities.

    K. He et al., Mask R-CNN, arXiv:1703.06870. Shares are linear between the centres of the grid's cells and fall to
    0 within half a cell outside.
    """
    order = _roi_order([output.shape for output in outputs])
    if order is None:
        raise ModelError(_roi_problems(spec, [output.shape for output in outputs])[0])
    boxes, scores, classes, grids = (outputs[index][0] for index in order)
    check_scores(scores)
    chosen = np.flatnonzero(scores >= spec.score_threshold)
    ids = np.rint(classes[chosen]).astype(np.int64)
    inside = (ids >= 0) & (ids < len(spec.labels))
    chosen, ids = chosen[inside], ids[inside]
    placed = to_pixels(boxes[chosen], contract, normalized=setting(ROIS_OPTIONS, spec, "normalized"))

    def paint(candidate: int, box: FloatArray, window: Window, place: Geometry) -> FloatArray:
        # A rim of zeros: outside the box nothing is covered.
        grid = np.pad(grids[chosen[candidate]], 1)
        lines = (
            (np.arange(window[axis], window[axis + 2]) + 0.5 - box[axis])
            / max(float(box[axis + 2] - box[axis]), 1e-6)
            * (grid.shape[1 - axis] - 2)
            + 0.5
            for axis in (0, 1)
        )
        across, down = lines
        return sampled(grid, down, across)

    return Found(Candidates(placed.astype(np.float32, copy=False), scores[chosen], ids), paint)


HEADS: dict[str, MaskHead] = {
    "prototypes": MaskHead(
        "YOLO-seg and YOLACT: rows (1, 4 + C + M, N) and prototypes (1, M, h, w)",
        _prototype_problems,
        _prototypes,
        lambda spec: True,
        PROTOTYPE_OPTIONS,
    ),
    "rois": MaskHead(
        "Mask R-CNN in fixed shapes: boxes (1, K, 4), scores (1, K), classes (1, K), masks (1, K, h, w)",
        _roi_problems,
        _rois,
        lambda spec: bool(setting(ROIS_OPTIONS, spec, "suppress")),
        ROIS_OPTIONS,
    ),
}
"""What `FamilySpec.head` of instance segmentation can name."""


def painted(
    found: Found,
    rows: Ints,
    boxes: FloatArray,
    place: Geometry,
    *,
    threshold: float,
) -> tuple[ObjectMask, ...]:
    """The masks of candidates ``rows`` in the picture, one after the other; ``boxes`` `(N, 4)` are theirs, not cut.

    A pixel belongs to an object when its centre lies in the box and its share is at least ``threshold`` (0..1).
    """
    height, width = place.picture
    masks = []
    for row, box in zip(rows, boxes, strict=True):
        low, high = np.ceil(box[:2] - 0.5), np.ceil(box[2:] - 0.5)
        left, top = (int(min(max(value, 0), limit)) for value, limit in zip(low, (width, height), strict=True))
        right, bottom = (int(min(max(value, 0), limit)) for value, limit in zip(high, (width, height), strict=True))
        if right <= left or bottom <= top:
            masks.append(ObjectMask.of(np.zeros((0, 0), dtype=bool), place.picture))
            continue
        shares = found.paint(int(row), box, (left, top, right, bottom), place)
        masks.append(ObjectMask.of(shares >= threshold, place.picture, left=left, top=top))
    return tuple(masks)
