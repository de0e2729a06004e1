"""What a family's network is trained towards: its loss on labels, its teacher's outputs, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.recipe import Distill, FamilySpec
from edgecv.errors import ModelError
from edgecv.optimize.distill import Match, as_distill, class_logits, distillation_loss, first_tensor, output_match

__all__ = ["Objective", "class_score", "family_objective", "train_objective"]

LossFunction = Callable[[Any, Any], torch.Tensor]
OwnLoss = Callable[[nn.Module, torch.Tensor, Any], torch.Tensor]
ScoreFunction = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Objective:
    """What training works towards.

    ``loss(outputs, truths)`` gives a scalar tensor (truths are an int64 tensor on the outputs'
    device, or a list); without ``labels`` it is never called, and ``distill.weight`` must be 1. ``score(outputs,
    truths)`` is the mean of a figure over the batch, higher is better (None: minus the validation loss);
    ``score_name`` is what reports call it. ``teacher`` is used where ``distill.weight`` > 0;
    ``match(student, teacher)`` compares the outputs of both (None: the first tensors are logits `(N, C)`).
    ``own(module, inputs, truths)`` stands for ``loss`` where that needs more of a network than its outputs; it takes no
    teacher and one process. A teacher answers for the rows that the student picked (`edgecv.optimize.picks`).
    ``staged`` networks give the answers of all their parts when they are asked for ``every`` one; the losses are added.
    """

    loss: LossFunction
    score: ScoreFunction | None = None
    teacher: nn.Module | None = None
    distill: Distill = field(default_factory=lambda: Distill(weight=0.0))
    match: Match | None = None
    score_name: str = "score"
    labels: bool = True
    own: OwnLoss | None = None
    staged: bool = False

    def compare(self, student: Any, teacher: Any) -> torch.Tensor:
        """How far the student's outputs are from the teacher's, a scalar tensor."""
        if self.match is not None:
            return self.match(student, teacher)
        return distillation_loss(first_tensor(student), first_tensor(teacher), temperature=self.distill.temperature)


def class_score(spec: FamilySpec) -> Callable[[Any, Any], float]:
    """Top-1 share (0..1) of a batch, for `fit`; outputs of any shape that flattens to `(N, C)`."""
    first = 1 if spec.background else 0

    def score(outputs: Any, truths: Any) -> float:
        best = class_logits(outputs, spec)[:, first:].argmax(dim=1)
        return float((best == truths).float().mean().item())

    return score


def family_objective(
    spec: FamilySpec,
    *,
    label_smoothing: float = 0.0,
    teacher: nn.Module | None = None,
    distill: Any = 0.0,
    contract: InputContract | None = None,
) -> Objective:
    """The family's loss on labels and its score as `fit` takes them.

    ``distill`` is a recipe's share or `Distill`; ``contract`` is needed beside a ``teacher`` (some heads of detectors
    are read by it).
    """
    family, form = families.get(spec.kind), as_distill(distill)

    def loss(outputs: Any, truths: Any) -> torch.Tensor:
        value: torch.Tensor = family.loss(outputs, truths, spec, label_smoothing=label_smoothing)
        return value

    match = None if contract is None else output_match(spec, contract, distill=form)
    score = class_score(spec) if spec.kind == "classification" else None
    return Objective(loss, score, teacher, form, match, "top1" if score else "minus_loss")


def train_objective(
    spec: FamilySpec,
    contract: InputContract,
    truths: Sequence[Any],
    *,
    teacher: nn.Module | None,
    distill: Any,
    label_smoothing: float = 0.0,
    own: OwnLoss | None = None,
    staged: bool = False,
) -> Objective:
    """`family_objective` for a training set with these ``truths``; without labels the teacher is all there is.

    A family without a loss of its own (`edgecv.core.kinds`) learns from the teacher alone, whatever its share. So
    does every family with ``distill`` 1; where its truths are missing too, the best epoch is the one nearest to the
    teacher. ``own`` is the loss of a network that brings one (`Objective`);
    ``staged`` says that it gives the answers of all its parts.

    Raises:
        ModelError: there is nothing to learn from: a share above 0 and no teacher, no labels and a share below 1,
            or neither a loss nor a teacher.
    """
    objective = family_objective(
        spec, label_smoothing=label_smoothing, teacher=teacher, distill=distill, contract=contract
    )
    weight = objective.distill.weight
    if weight > 0 and teacher is None:
        raise ModelError(f"distill is {weight} and there is no teacher; give the original network, or 0")
    has_loss, labelled = families.trains(spec), all(truth is not None for truth in truths)
    if own is not None and labelled and weight == 0:
        return replace(objective, own=own)
    if has_loss and labelled:
        return replace(objective, staged=staged)
    if weight == 0 or (has_loss and weight < 1):
        trained = f"{spec.kind}, head {spec.head}," if spec.head else spec.kind
        why = f"{trained} has no loss on labels" if not has_loss else "the training set has no labels"
        raise ModelError(f"{why} and distill is {weight}; set distill: 1.0 to learn from the original network")
    alone = replace(objective.distill, weight=1.0)
    return replace(objective, score=None, distill=alone, score_name="minus_distance", labels=False)
