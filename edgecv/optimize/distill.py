"""Knowledge distillation: a student learns from its teacher's softened outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from edgecv.core.recipe import Distill, FamilySpec

__all__ = ["as_distill", "class_logits", "distillation_loss", "first_tensor", "mixed_loss"]


def as_distill(value: float | Distill) -> Distill:
    """The long form of a recipe's ``distill``: a number is the weight (0..1) at the default temperature.

    Raises:
        ValueError: the weight is outside 0..1.
    """
    distill = value if isinstance(value, Distill) else Distill(weight=float(value))
    if not 0.0 <= distill.weight <= 1.0:
        raise ValueError(f"distill weight is {distill.weight}; allowed: 0 (no teacher) to 1 (teacher only)")
    return distill


def first_tensor(outputs: Any) -> torch.Tensor:
    """The first tensor of a module's ``outputs`` (a tensor, or a tuple or list of tensors)."""
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]


def class_logits(outputs: Any, spec: FamilySpec) -> torch.Tensor:
    """Logits `(N, C)` of a classifier's ``outputs``; probabilities become logits (softmax gives them back)."""
    scores = first_tensor(outputs).flatten(1)
    return scores.float().clamp_min(1e-12).log() if spec.outputs == "probabilities" else scores


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Kullback-Leibler divergence of softened distributions, times the temperature squared.

    ``student`` and ``teacher`` are logits `(N, C)`; ``temperature`` > 0. A scalar tensor, mean over
    the batch, >= 0 and 0 where both agree. The factor keeps the gradient's size independent of
    the temperature. Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network,
    arXiv:1503.02531.
    """
    log_student = functional.log_softmax(student.float() / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher.float() / temperature, dim=1)
    return functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def mixed_loss(
    task_loss: torch.Tensor, student: torch.Tensor, teacher: torch.Tensor, *, distill: Distill
) -> torch.Tensor:
    """``(1 - weight) * task_loss + weight * distillation_loss``, a scalar tensor."""
    soft = distillation_loss(student, teacher, temperature=distill.temperature)
    return (1.0 - distill.weight) * task_loss + distill.weight * soft
