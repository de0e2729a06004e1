"""The fine-tuning step: train a pruned (or imported) network on the recipe's training set.

The best epoch is picked on a held-out share of the training set, never on the evaluation set: the
report's accuracy stays one that nothing was chosen by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.progress import Progress
from edgecv.core.protocols import Reader
from edgecv.core.recipe import FamilySpec, Finetune
from edgecv.data.selection import truths_of
from edgecv.errors import ModelError
from edgecv.optimize.batches import EpochBatches, make_batches, split_indices
from edgecv.optimize.distill import as_distill, class_logits
from edgecv.optimize.fabric import Devices
from edgecv.optimize.training import Objective, TrainPlan, fit

__all__ = ["FinetuneResult", "TrainSet", "class_score", "family_objective", "finetune", "held_out"]


@dataclass(frozen=True)
class TrainSet:
    """What to train on: the samples, and how they become inputs and a loss."""

    reader: Reader
    contract: InputContract
    family: FamilySpec


@dataclass(frozen=True)
class FinetuneResult:
    """``module`` is the one passed in, on the CPU in evaluation mode, with the weights of ``best_epoch`` (from 0).

    ``best_score`` (0..1) is on the held-out share of the training set; ``losses`` one mean an epoch.
    """

    module: nn.Module
    epochs_run: int
    best_epoch: int
    best_score: float | None
    losses: tuple[float, ...]
    held_out: int


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
) -> Objective:
    """The family's loss and score as `fit` takes them; ``distill`` is a recipe's share or `Distill`."""
    family = families.get(spec.kind)

    def loss(outputs: Any, truths: Any) -> torch.Tensor:
        value: torch.Tensor = family.loss(outputs, truths, spec, label_smoothing=label_smoothing)
        return value

    def logits(outputs: Any) -> torch.Tensor:
        return class_logits(outputs, spec)

    return Objective(loss, class_score(spec), teacher, as_distill(distill), logits)


def held_out(
    data: TrainSet, *, share: float, seed: int, batch_size: int, augment: Any = "none"
) -> tuple[EpochBatches, EpochBatches]:
    """``(training, validation)`` batches of one training set, split by class with ``share`` held out.

    The two never share a sample; the same ``seed`` gives the same split in every step of a recipe.

    Raises:
        DataError: fewer than two samples.
    """
    rest, held = split_indices(truths_of(data.reader), share=share, seed=seed)
    train = make_batches(
        data.reader, data.contract, batch_size=batch_size, shuffle_seed=seed, augment=augment, indices=rest
    )
    return train, make_batches(data.reader, data.contract, batch_size=batch_size, indices=held)


def finetune(
    module: nn.Module,
    *,
    step: Finetune,
    data: TrainSet,
    teacher: nn.Module | None = None,
    seed: int = 0,
    devices: Devices | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> FinetuneResult:
    """Train ``module`` in place as ``step`` says and keep its best epoch.

    ``teacher`` (the original network) is needed where ``step.distill`` > 0. ``checkpoint`` is a file
    from which an interrupted run goes on.

    Raises:
        ModelError: the loss is not finite, or distillation is asked for without a teacher.
        DataError: the training set is too small to hold samples out.
    """
    objective = family_objective(
        data.family, label_smoothing=step.label_smoothing, teacher=teacher, distill=step.distill
    )
    if objective.distill.weight > 0 and teacher is None:
        raise ModelError(
            f"distill is {objective.distill.weight} and there is no teacher; give the original network, or 0"
        )
    train, validation = held_out(
        data, share=step.validation, seed=seed, batch_size=step.batch_size, augment=step.augment
    )
    plan = TrainPlan(
        epochs=step.epochs,
        lr=step.lr,
        optimizer=step.optimizer,
        weight_decay=step.weight_decay,
        warmup=step.warmup,
        patience=step.patience,
        precision=step.precision,
        seed=seed,
        devices=devices or Devices(),
    )
    result = fit(
        module,
        train=train,
        validation=validation.fixed(),
        objective=objective,
        plan=plan,
        progress=progress,
        checkpoint=checkpoint,
    )
    return FinetuneResult(
        result.module, result.epochs_run, result.best_epoch, result.best_score, result.losses, len(validation)
    )
