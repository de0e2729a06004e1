"""Raw outputs of detectors as cells with scores and boxes, in torch and differentiable: what distillation compares.

Boxes are relative to their cell (or prior, or query). Teacher and student have the same cells, and overlap
does not change when both boxes move or one axis is scaled, so no grid has to be laid out here.
The layouts are those of `edgecv.families.heads`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.errors import ModelError
from edgecv.families.heads import HEADS

__all__ = ["CELL_HEADS", "Cells", "rows_of"]

_LARGEST_LOG = 20.0


@dataclass(frozen=True)
class Cells:
    """Of a batch of N with M cells: ``scores`` `(N, M, C)` and ``objectness`` `(N, M)` as probabilities,
    ``boxes`` `(N, M, 4)` as corners, in any unit that both networks share. Heads without objectness have None;
    ``points`` `(N, M, 2K)` are x and y of keypoints in the boxes' unit, where the head has them.
    """

    scores: Tensor
    objectness: Tensor | None
    boxes: Tensor
    points: Tensor | None = None

    @property
    def confidence(self) -> Tensor:
        """Probability that there is an object, `(N, M)`."""
        best = self.scores.amax(dim=-1)
        return best if self.objectness is None else best * self.objectness


Reader = Callable[[Sequence[Tensor], FamilySpec, InputContract], Cells]


def rows_of(output: Tensor, width: int, *, first: bool = False) -> Tensor:
    """`(N, M, width)` of `(N, M, width)`, `(N, width, M)`, `(N, width, h, w)` or `(N, h, w, width)`.

    ``first``: channels come first where both fit.

    Raises:
        ModelError: it has another shape.
    """
    shape = tuple(output.shape)
    if len(shape) not in (3, 4) or width not in (shape[1], shape[-1]):
        raise ModelError(f"an output has shape {shape}; {width} values for each box are needed. Check the labels.")
    if shape[1] == width and (first or shape[-1] != width):
        return output.flatten(2).transpose(1, 2)
    return output.reshape(shape[0], -1, width)


def _corners(centres: Tensor, sizes: Tensor) -> Tensor:
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1)


def _growth(values: Tensor) -> Tensor:
    return values.clamp(max=_LARGEST_LOG).exp()


def _option(spec: FamilySpec, name: str) -> Any:
    return spec.options.get(name, HEADS[spec.head].options[name].default)


def _yolox(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    rows = rows_of(outputs[0], 5 + len(spec.labels))
    sizes = rows[..., 2:4] if _option(spec, "decoded") else _growth(rows[..., 2:4])
    return Cells(rows[..., 5:], rows[..., 4], _corners(rows[..., :2], sizes))


def _anchor(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    width = 5 + len(spec.labels)
    if len(outputs) == 1 and outputs[0].ndim == 3:
        rows = rows_of(outputs[0], width)
        return Cells(rows[..., 5:], rows[..., 4], _corners(rows[..., :2], rows[..., 2:4]))
    anchors = _option(spec, "anchors")
    count = len(anchors[0])
    maps = sorted((_anchor_map(output, count, width) for output in outputs), key=lambda found: -found[1] * found[2])
    parts = []
    for (values, high, wide), sizes in zip(maps, anchors, strict=True):
        shares = values.sigmoid()
        step = values.new_tensor([contract.size[1] / wide, contract.size[0] / high])
        anchor = values.new_tensor(sizes).reshape(1, count, 1, 2) / step
        boxes = _corners(shares[..., :2] * 2, (shares[..., 2:4] * 2).square() * anchor)
        parts.append(torch.cat([boxes, shares[..., 4:]], dim=-1).flatten(1, 2))
    rows = torch.cat(parts, dim=1)
    return Cells(rows[..., 5:], rows[..., 4], rows[..., :4])


def _anchor_map(output: Tensor, count: int, width: int) -> tuple[Tensor, int, int]:
    """`(N, anchors, cells, width)` of a raw map, with its height and width."""
    if output.ndim == 5:
        return output.flatten(2, 3), output.shape[2], output.shape[3]
    if output.shape[1] == count * width:
        rows = output.reshape(output.shape[0], count, width, -1).transpose(2, 3)
        return rows, output.shape[2], output.shape[3]
    rows = output.reshape(output.shape[0], -1, count, width).transpose(1, 2)
    return rows, output.shape[1], output.shape[2]


def _yolo(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    classes = len(spec.labels)
    if len(outputs) == 1 and outputs[0].ndim == 3:
        rows = rows_of(outputs[0], 4 + classes, first=True)
        return Cells(rows[..., 4:], None, _corners(rows[..., :2], rows[..., 2:4]))
    bins = int(_option(spec, "reg_max"))
    rows = torch.cat([rows_of(output, 4 * bins + classes, first=True) for output in outputs], dim=1)
    sides = rows[..., : 4 * bins].reshape(*rows.shape[:2], 4, bins)
    places = torch.arange(bins, dtype=rows.dtype, device=rows.device)
    away = sides.softmax(dim=-1) @ places if bins > 1 else sides[..., 0]
    return Cells(rows[..., 4 * bins :].sigmoid(), None, torch.cat([-away[..., :2], away[..., 2:]], dim=-1))


def _fastest(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    output, width = outputs[0], 5 + len(spec.labels)
    rows = rows_of(output, width, first=True)
    high, wide = output.shape[2:] if output.shape[1] == width else output.shape[1:3]
    centres = rows[..., 1:3].tanh() / rows.new_tensor([wide, high])
    return Cells(rows[..., 5:], rows[..., 0], _corners(centres, rows[..., 3:5].sigmoid()))


def _pair(outputs: Sequence[Tensor], columns: int, *, boxes_first: bool) -> tuple[Tensor, Tensor]:
    """Boxes and scores of two outputs, told apart by their last axis, else by the order."""
    if len(outputs) != 2:
        raise ModelError(f"the model gave {len(outputs)} outputs; boxes and scores are needed")
    one, other = outputs
    swap = not boxes_first if columns == 4 else one.shape[-1] != 4
    boxes, scores = (other, one) if swap else (one, other)
    return rows_of(boxes, 4), rows_of(scores, columns)


def _ssd(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    columns = len(spec.labels) + (1 if spec.background else 0)
    offsets, values = _pair(outputs, columns, boxes_first=True)
    if spec.outputs != "probabilities":
        values = values.softmax(dim=-1) if spec.background else values.sigmoid()
    centre, size = (float(number) for number in _option(spec, "variances"))
    boxes = _corners(offsets[..., :2] * centre, _growth(offsets[..., 2:] * size))
    return Cells(values[..., 1:] if spec.background else values, None, boxes)


def _retinanet(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    offsets, values = _pair(outputs, len(spec.labels) + (1 if spec.background else 0), boxes_first=True)
    scores = values if spec.outputs == "probabilities" else values.sigmoid()
    boxes = _corners(offsets[..., :2], _growth(offsets[..., 2:]))
    return Cells(scores[..., 1:] if spec.background else scores, None, boxes)


def _fcos(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    columns = len(spec.labels) + (1 if spec.background else 0)
    if len(outputs) != 3:
        raise ModelError(f"the model gave {len(outputs)} outputs; distances, logits and centre-ness are needed")
    rest = list(outputs)
    if columns not in (1, 4):
        rest.sort(key=lambda output: (4, columns, 1).index(output.shape[-1]) if output.shape[-1] in (4, 1) else 1)
    sides, values, centres = rows_of(rest[0], 4), rows_of(rest[1], columns), rows_of(rest[2], 1)[..., 0]
    if spec.outputs != "probabilities":
        values, centres = values.sigmoid(), centres.sigmoid()
    boxes = torch.cat([-sides[..., :2], sides[..., 2:]], dim=-1)
    return Cells(values[..., 1:] if spec.background else values, centres, boxes)


def _ultraface(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    boxes, values = _pair(outputs, len(spec.labels) + 1, boxes_first=False)
    return Cells(values[..., 1:], None, boxes)


def _detr(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    labels = len(spec.labels)
    columns = {output.shape[-1] for output in outputs}
    width = labels + 1 if labels + 1 in columns and columns != {4, labels} else labels
    boxes, values = _pair(outputs, width, boxes_first=False)
    if spec.outputs != "probabilities":
        values = values.sigmoid() if width == labels else values.softmax(dim=-1)
    return Cells(values[..., :labels], None, _corners(boxes[..., :2], boxes[..., 2:]))


def _yunet(outputs: Sequence[Tensor], spec: FamilySpec, contract: InputContract) -> Cells:
    widths = [len(spec.labels), 1, 4, 2 * (len(spec.keypoints) or 5)]
    parts: list[list[Tensor]] = []
    for stride in _option(spec, "strides"):
        cells = math.ceil(contract.size[0] / stride) * math.ceil(contract.size[1] / stride)
        row = []
        for place, width in enumerate(widths):
            fitting = [output for output in outputs if tuple(output.shape[1:]) == (cells, width)]
            if len(fitting) <= widths[:place].count(width):
                raise ModelError(f"no output has shape (N, {cells}, {width}); check the labels and the head's strides")
            row.append(fitting[widths[:place].count(width)])
        parts.append(row)
    classes, objectness, boxes, points = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return Cells(classes, objectness[..., 0], _corners(boxes[..., :2], _growth(boxes[..., 2:])), points)


CELL_HEADS: Mapping[str, Reader] = {
    "yolo-anchor": _anchor,
    "yolox": _yolox,
    "yolo": _yolo,
    "fastestdet": _fastest,
    "ssd": _ssd,
    "retinanet": _retinanet,
    "fcos": _fcos,
    "ultraface": _ultraface,
    "detr": _detr,
    "yunet": _yunet,
}
"""Heads whose cells are the same in every picture. The others (end-to-end, two-stage) give sorted rows, which do not
line up."""
