"""Detectors whose boxes are read off priors, anchors, points or queries, as their losses and distillation need them.

The layouts are those of `edgecv.families.heads`; torch tensors, batch first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError
from edgecv.families.detection_rows import Cells, Size, corners, growth, joined, like, pair, rows_of
from edgecv.families.heads.anchors import LARGEST, anchor_boxes, corners_of_cells, frozen
from edgecv.families.heads.common import setting
from edgecv.families.heads.retinanet import FCOS_OPTIONS, RETINANET_OPTIONS
from edgecv.families.heads.ssd import SSD_OPTIONS, priors

__all__ = [
    "Anchored",
    "Distances",
    "Queries",
    "anchors_of",
    "detr_cells",
    "detr_rows",
    "fcos_cells",
    "fcos_rows",
    "retinanet_cells",
    "retinanet_rows",
    "ssd_cells",
    "ssd_rows",
    "ultraface_cells",
]

_SMALLEST_SIDE = 1e-3
"""In pixels: no box is so small that its logarithm runs away."""


@dataclass(frozen=True)
class Anchored:
    """Boxes as offsets from anchors.

    ``offsets`` `(N, M, 4)` as the network gives them, ``values`` `(N, M, C)` of the labels and, first, the background
    where the head has one; ``anchors`` `(M, 4)` as centre and size in pixels; ``units`` what offsets of centres and of
    sides are multiplied by.
    """

    offsets: Any
    values: Any
    anchors: FloatArray
    units: tuple[float, float]
    background: bool

    def label_values(self) -> Any:
        """``values`` without the background, which comes first."""
        return self.values[..., 1:] if self.background else self.values

    def wanted(self, boxes: Any, rows: Any) -> Any:
        """The offsets `(P, 4)` with which the anchors of ``rows`` are ``boxes`` `(P, 4)`, corners in pixels."""
        anchors = like(boxes, self.anchors)[rows]
        away = (boxes[:, :2] + boxes[:, 2:]) / 2 - anchors[:, :2]
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(_SMALLEST_SIDE)
        return joined([away / anchors[:, 2:] / self.units[0], (sides / anchors[:, 2:]).log() / self.units[1]])

    def boxes(self) -> Any:
        """Corners in pixels `(N, M, 4)`."""
        anchors = like(self.offsets, self.anchors)
        centres = anchors[:, :2] + self.offsets[..., :2] * self.units[0] * anchors[:, 2:]
        sides = anchors[:, 2:] * growth(self.offsets[..., 2:] * self.units[1], largest=LARGEST)
        return corners(joined([centres, sides]))


@dataclass(frozen=True)
class Distances:
    """Boxes as distances from points: ``sides`` `(N, M, 4)` left, top, right, bottom in pixels, ``values`` `(N, M, C)`
    of the labels, and ``centrality`` `(N, M)`; ``points`` `(M, 2)` in pixels and the ``strides`` `(M,)` of their maps.
    """

    sides: Any
    values: Any
    centrality: Any
    points: FloatArray
    strides: FloatArray

    def boxes(self) -> Any:
        """Corners in pixels `(N, M, 4)`."""
        points = like(self.sides, self.points)
        return joined([points - self.sides[..., :2], points + self.sides[..., 2:]])


@dataclass(frozen=True)
class Queries:
    """``boxes`` `(N, Q, 4)` as centre and size in shares of the input's sides, and ``values`` `(N, Q, C)`.

    ``exclusive``: the values have "no object" as their last column, for a softmax; else each is for a sigmoid.
    """

    boxes: Any
    values: Any
    exclusive: bool


def _columns(spec: FamilySpec) -> int:
    return len(spec.labels) + (1 if spec.background else 0)


def anchors_of(spec: FamilySpec, size: Size) -> FloatArray:
    """Anchors `(M, 4)` as centre and size in pixels, for heads ``ssd`` and ``retinanet``, as those decode them."""
    if spec.head == "retinanet":
        strides, sizes, ratios = (
            frozen(setting(RETINANET_OPTIONS, spec, name)) for name in ("strides", "sizes", "aspect_ratios")
        )
        return anchor_boxes(size, strides, sizes, ratios)
    maps, scales, ratios, steps, clip = (
        frozen(setting(SSD_OPTIONS, spec, name))
        for name in ("feature_maps", "scales", "aspect_ratios", "steps", "clip")
    )
    cells = None if steps is None else tuple((size[0] / step, size[1] / step) for step in steps)
    whole = np.array([size[1], size[0]] * 2, dtype=np.float32)
    sized: FloatArray = priors(maps, scales, ratios, clip, cells) * whole
    return sized


def ssd_rows(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Anchored:
    """Offsets and scores of priors.

    Raises:
        ModelError: the outputs do not fit the labels, or the priors that the head's options make.
    """
    centre, side = (float(number) for number in setting(SSD_OPTIONS, spec, "variances"))
    return _anchored(outputs, spec, size, "priors", (centre, side))


def retinanet_rows(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Anchored:
    """Offsets and logits of anchors.

    Raises:
        ModelError: the outputs do not fit the labels, or the anchors that the head's options make.
    """
    return _anchored(outputs, spec, size, "anchors (options strides, sizes, aspect_ratios)", (1.0, 1.0))


def _anchored(outputs: Sequence[Any], spec: FamilySpec, size: Size, what: str, units: tuple[float, float]) -> Anchored:
    offsets, values = pair(outputs, _columns(spec), boxes_first=True)
    anchors = anchors_of(spec, size)
    if len(anchors) != offsets.shape[1]:
        raise ModelError(f"the model gave {offsets.shape[1]} boxes; the head's options make {len(anchors)} {what}")
    return Anchored(offsets, values, anchors, units, spec.background)


def ssd_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """Boxes of priors, with probabilities by softmax where there is a background, else by sigmoid."""
    found = ssd_rows(outputs, spec, size)
    values = found.values
    if spec.outputs != "probabilities":
        values = values.softmax(dim=-1) if spec.background else values.sigmoid()
    shares = values[..., 1:] if spec.background else values
    return Cells(shares, None, found.boxes(), exclusive=spec.background)


def retinanet_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """Boxes of anchors, with probabilities by sigmoid."""
    found = retinanet_rows(outputs, spec, size)
    values = found.label_values()
    return Cells(values if spec.outputs == "probabilities" else values.sigmoid(), None, found.boxes())


def fcos_rows(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Distances:
    """Distances, logits and centre-ness, told apart by their width; by their order where two are equally wide.

    Raises:
        ModelError: the outputs do not fit the labels, or the cells that the option ``strides`` makes.
    """
    columns = _columns(spec)
    if len(outputs) != 3:
        raise ModelError(f"the model gave {len(outputs)} outputs; distances, logits and centre-ness are needed")
    rest = list(outputs)
    if columns not in (1, 4):
        rest.sort(key=lambda output: (4, columns, 1).index(output.shape[-1]) if output.shape[-1] in (4, 1) else 1)
    sides, values, centres = rows_of(rest[0], 4), rows_of(rest[1], columns), rows_of(rest[2], 1)[..., 0]
    strides = frozen(setting(FCOS_OPTIONS, spec, "strides"))
    maps = corners_of_cells(size, strides)
    points = np.concatenate(maps)
    if len(points) != sides.shape[1]:
        raise ModelError(f"the model gave {sides.shape[1]} boxes; option strides makes {len(points)} cells")
    steps = np.repeat(np.array(strides, dtype=np.float32), [len(cells) for cells in maps])
    return Distances(
        sides * like(sides, steps)[:, None], values[..., 1:] if spec.background else values, centres, points, steps
    )


def fcos_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """Boxes around points, with probabilities by sigmoid; the objectness is the centre-ness."""
    found = fcos_rows(outputs, spec, size)
    values, centres = found.values, found.centrality
    if spec.outputs != "probabilities":
        values, centres = values.sigmoid(), centres.sigmoid()
    return Cells(values, centres, found.boxes(), centres=found.points, strides=found.strides)


def ultraface_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """Finished boxes in shares of the input, and probabilities with the background first."""
    boxes, values = pair(outputs, len(spec.labels) + 1, boxes_first=False)
    return Cells(values[..., 1:], None, boxes * like(boxes, [size[1], size[0]] * 2), exclusive=True)


def detr_rows(outputs: Sequence[Any], spec: FamilySpec) -> Queries:
    """Boxes and values of queries.

    Raises:
        ModelError: the outputs do not fit the labels.
    """
    labels = len(spec.labels)
    columns = {output.shape[-1] for output in outputs}
    width = labels + 1 if labels + 1 in columns and columns != {4, labels} else labels
    boxes, values = pair(outputs, width, boxes_first=False)
    return Queries(boxes, values, width > labels)


def detr_cells(outputs: Sequence[Any], spec: FamilySpec, size: Size) -> Cells:
    """Boxes of queries, with probabilities by softmax or sigmoid, as `detr_rows` tells."""
    found = detr_rows(outputs, spec)
    values = found.values
    if spec.outputs != "probabilities":
        values = values.softmax(dim=-1) if found.exclusive else values.sigmoid()
    whole = like(values, [size[1], size[0]] * 2)
    return Cells(values[..., : len(spec.labels)], None, corners(found.boxes) * whole, exclusive=found.exclusive)
