"""Knowledge distillation: a student learns to give the outputs of its teacher. No labels are looked at.

What is compared follows from the family (`output_match`): logits of classifiers, boxes and scores of
detectors, heatmaps of pose networks, the classes of each pixel, the direction of embeddings; any other
tensors by their error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgecv.core.contract import InputContract
from edgecv.core.recipe import Distill, FamilySpec
from edgecv.errors import ModelError
from edgecv.families.detection_cells import CELL_HEADS
from edgecv.families.detection_rows import Cells, corners, rows_of
from edgecv.families.instance_heads import layout

__all__ = [
    "Match",
    "as_distill",
    "cells_loss",
    "class_logits",
    "distillation_loss",
    "first_tensor",
    "heatmap_loss",
    "mixed_loss",
    "output_match",
    "planes_loss",
    "prototypes_loss",
    "tensors_loss",
]

Match = Callable[[Any, Any], Tensor]
"""``match(student's outputs, teacher's outputs)`` is a scalar tensor, >= 0 and 0 where both agree."""

_HALF_LEVEL = 1.0 / 512
"""Probabilities keep so far from 0 and 1: half a step of 8 bits. A rounded 0 must not cost infinitely much."""

_NO_AREA = 1e-12
"""Added to areas, so that two empty boxes at one place overlap wholly."""


def as_distill(value: float | Distill) -> Distill:
    """The long form of a recipe's ``distill``: a number is the weight (0..1) at the default temperature.

    Raises:
        ValueError: the weight is outside 0..1.
    """
    distill = value if isinstance(value, Distill) else Distill(weight=float(value))
    if not 0.0 <= distill.weight <= 1.0:
        raise ValueError(f"distill weight is {distill.weight}; allowed: 0 (no teacher) to 1 (teacher only)")
    return distill


def tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors of a module's ``outputs`` (a tensor, or a tuple, list or mapping of tensors), in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    return list(outputs.values()) if isinstance(outputs, dict) else list(outputs)


def first_tensor(outputs: Any) -> Tensor:
    """The first tensor of a module's ``outputs``."""
    return tensors_of(outputs)[0]


def class_logits(outputs: Any, spec: FamilySpec) -> Tensor:
    """Logits `(N, C)` of a classifier's ``outputs``; probabilities become logits (softmax gives them back)."""
    scores = first_tensor(outputs).flatten(1)
    return scores.float().clamp_min(1e-12).log() if spec.outputs == "probabilities" else scores


def output_match(spec: FamilySpec, contract: InputContract, *, distill: Distill) -> Match:
    """How outputs of this family's networks are compared in distillation."""
    if spec.kind == "classification":
        return lambda student, teacher: distillation_loss(
            class_logits(student, spec), class_logits(teacher, spec), temperature=distill.temperature
        )
    if spec.kind == "detection" and spec.head in CELL_HEADS:
        read = CELL_HEADS[spec.head]
        return lambda student, teacher: cells_loss(
            read(tensors_of(student), spec, contract.size), read(tensors_of(teacher), spec, contract.size)
        )
    if spec.kind == "instance" and spec.head == "prototypes":
        return lambda student, teacher: prototypes_loss(student, teacher, spec)
    if spec.kind == "pose":
        rows = {"heatmap": heatmap_loss, "simcc": bins_loss, "movenet": _movenet_loss, "yolo-pose": _yolo_pose_loss}
        return rows.get(spec.head, tensors_loss)
    if spec.kind == "segmentation":
        return lambda student, teacher: planes_loss(student, teacher, shares=spec.outputs == "probabilities")
    return cosine_loss if spec.kind == "embedding" else tensors_loss


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened distributions, times the temperature squared.

    ``student`` and ``teacher`` are logits `(N, C)`; ``temperature`` > 0. A scalar tensor, mean over
    the batch, >= 0 and 0 where both agree. The factor keeps the gradient's size independent of
    the temperature. Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network,
    arXiv:1503.02531.
    """
    log_student = functional.log_softmax(student.float() / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher.float() / temperature, dim=1)
    return functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def mixed_loss(task_loss: Tensor | None, soft: Tensor, *, weight: float) -> Tensor:
    """``(1 - weight) * task_loss + weight * soft``, a scalar tensor; without a task loss ``soft`` alone."""
    return soft if task_loss is None else (1.0 - weight) * task_loss + weight * soft


def cells_loss(student: Cells, teacher: Cells) -> Tensor:
    """Divergence of scores plus error of boxes where the teacher is sure, per object that it sees; a scalar.

    Class scores count by the teacher's objectness (all alike without one), boxes by its confidence: 1 - GIoU
    (Rezatofighi et al., arXiv:1902.09630) plus the distance of corners in box sizes. Scaling the losses by
    the teacher's objectness: Mehta and Ozturk, arXiv:1805.06361.
    """
    sure = teacher.confidence
    objects = sure.sum().clamp(min=1.0)
    scores = _bernoulli(student.scores, teacher.scores).sum(dim=-1)
    if teacher.objectness is not None and student.objectness is not None:
        found = _bernoulli(student.objectness, teacher.objectness)
        scores = found + teacher.objectness.clamp(0, 1) * scores
    size = (teacher.boxes[..., 2:] - teacher.boxes[..., :2]).abs().clamp(min=1e-6)
    away = ((student.boxes - teacher.boxes).abs() / size.repeat(1, 1, 2)).mean(dim=-1)
    boxes = 1.0 - _giou(student.boxes, teacher.boxes) + away
    if teacher.points is not None and student.points is not None:
        repeats = teacher.points.shape[-1] // 2
        boxes = boxes + ((student.points - teacher.points).abs() / size.repeat(1, 1, repeats)).mean(dim=-1)
    return scores.sum() / objects + (sure * boxes).sum() / objects


def heatmap_loss(student: Any, teacher: Any) -> Tensor:
    """Squared error of maps `(N, K, h, w)`, the teacher's peaks ten times as heavy as its background; a scalar.

    In units of the teacher's own mean square, so that its scale does not matter. Mean squared error on heatmaps:
    Zhang et al., Fast Human Pose Estimation, arXiv:1811.05419.
    """
    loss = torch.zeros(())
    for one, other in zip(_floats(student), _floats(teacher), strict=True):
        highest = other.abs().flatten(2).amax(dim=2).clamp(min=1e-6)
        weight = 0.1 + 0.9 * other.abs() / highest.reshape(*highest.shape, *[1] * (other.ndim - 2))
        error = (weight * (one - other).square()).mean() / (weight * other.square()).mean().clamp(min=1e-12)
        loss = loss.to(error.device) + error
    return loss


def bins_loss(student: Any, teacher: Any) -> Tensor:
    """Divergence of the distributions of keypoints over bins `(N, K, bins)`, logits; a scalar."""
    pairs = zip(_floats(student), _floats(teacher), strict=True)
    parts = [distillation_loss(one.flatten(0, 1), other.flatten(0, 1), temperature=1.0) for one, other in pairs]
    return torch.stack(parts).mean()


def planes_loss(student: Any, teacher: Any, *, shares: bool) -> Tensor:
    """Divergence of the classes at each pixel, mean over pixels; a scalar.

    Outputs are `(N, C, h, w)` or `(N, 1, h, w)` logits (``shares``: probabilities). Pixel-wise distillation: Liu et
    al., Structured Knowledge Distillation, arXiv:1903.04197.
    """
    one, other = (first_tensor(outputs).float() for outputs in (student, teacher))
    if one.ndim != 4:
        return tensors_loss(student, teacher)
    if one.shape[1] == 1:
        pair = (one, other) if shares else (one.sigmoid(), other.sigmoid())
        return _bernoulli(*pair).mean()
    rows = [planes.movedim(1, -1).flatten(0, 2) for planes in (one, other)]
    if shares:
        rows = [row.clamp_min(1e-12).log() for row in rows]
    return distillation_loss(rows[0], rows[1], temperature=1.0)


def cosine_loss(student: Any, teacher: Any) -> Tensor:
    """1 - cosine of vectors `(N, D)`, mean over the batch; a scalar 0..2."""
    one, other = (first_tensor(outputs).float().flatten(1) for outputs in (student, teacher))
    return (1.0 - functional.cosine_similarity(one, other, dim=1)).mean()


def tensors_loss(student: Any, teacher: Any) -> Tensor:
    """Squared error of each output over the teacher's mean square there, mean over the outputs; a scalar."""
    parts = [
        (one - other).square().mean() / other.square().mean().clamp(min=1e-12)
        for one, other in zip(_floats(student), _floats(teacher), strict=True)
    ]
    return torch.stack(parts).mean()


def prototypes_loss(student: Any, teacher: Any, spec: FamilySpec) -> Tensor:
    """Of boxes and scores `cells_loss`, of coefficients and prototypes (`edgecv.families.instance_heads`) the squared
    error over the teacher's mean square, coefficients where the teacher is sure; a scalar."""
    (one, planes), (other, wanted) = (_prototype_parts(_floats(outputs), spec) for outputs in (student, teacher))
    stop = 4 + len(spec.labels)
    mine, theirs = (Cells(rows[..., 4:stop], None, corners(rows[..., :4])) for rows in (one, other))
    sure = theirs.confidence[..., None]
    away = (sure * (one - other)[..., stop:].square()).sum() / (sure * other[..., stop:].square()).sum().clamp(
        min=1e-12
    )
    return cells_loss(mine, theirs) + away + tensors_loss(planes, wanted)


def _prototype_parts(outputs: Sequence[Tensor], spec: FamilySpec) -> tuple[Tensor, Tensor]:
    """Rows `(N, A, 4 + C + M)` and prototypes, as they are."""
    found = layout([tuple(output.shape) for output in outputs], len(spec.labels))
    if found is None:
        shapes = [tuple(output.shape) for output in outputs]
        raise ModelError(f"the model gave outputs of shapes {shapes}, which do not fit head prototypes")
    return rows_of(outputs[found.rows], found.width, first=True), outputs[found.prototypes]


def _movenet_loss(student: Any, teacher: Any) -> Tensor:
    """Keypoints `(N, 1, K, 3)` as y, x, score: distances by the teacher's score, and the error of scores."""
    one, other = _floats(student)[0], _floats(teacher)[0]
    sure = other[..., 2:].clamp(0, 1)
    away = sure * (one[..., :2] - other[..., :2]).abs()
    return away.sum() / sure.sum().clamp(min=1.0) + (one[..., 2] - other[..., 2]).square().mean()


def _yolo_pose_loss(student: Any, teacher: Any) -> Tensor:
    return cells_loss(_pose_cells(_floats(student)), _pose_cells(_floats(teacher)))


def _pose_cells(outputs: Sequence[Tensor]) -> Cells:
    output = outputs[0]
    rows = rows_of(output, min(output.shape[1:]), first=True)
    if (rows.shape[-1] - 5) % 3 != 0 or rows.shape[-1] <= 5:
        raise ModelError(
            f"the model gave an output of shape {tuple(output.shape)}; head yolo-pose needs (1, 5 + 3K, N)"
        )
    points = rows[..., 5:].unflatten(-1, (-1, 3))[..., :2].flatten(-2)
    return Cells(rows[..., 4:5], None, corners(rows[..., :4]), points)


def _floats(outputs: Any) -> list[Tensor]:
    return [output.float() for output in tensors_of(outputs)]


def _bernoulli(student: Tensor, teacher: Tensor) -> Tensor:
    """Divergence of probabilities, element by element: 0 where both agree."""
    one, other = (_share(value) * (1 - 2 * _HALF_LEVEL) + _HALF_LEVEL for value in (student, teacher))
    return other * (other / one).log() + (1 - other) * ((1 - other) / (1 - one)).log()


def _share(value: Tensor) -> Tensor:
    """Cut to 0..1, with the gradient of the uncut value: a score that was rounded to 0 must be able to grow."""
    return value + (value.clamp(0, 1) - value).detach()


def _giou(one: Tensor, other: Tensor) -> Tensor:
    """Generalised overlap of boxes `(..., 4)` given as corners: 1 where they are the same, down to -1."""
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(dim=-1) for box in (one, other)]
    union = areas[0] + areas[1] - common
    hull = (torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])).prod(dim=-1)
    return (common + _NO_AREA) / (union + _NO_AREA) - (hull - union) / (hull + _NO_AREA)
