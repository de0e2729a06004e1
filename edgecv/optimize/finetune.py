"""The fine-tuning step: train a pruned (or imported) network on the recipe's training set.

The best epoch is picked on a held-out share of the training set, never on the evaluation set: the
report's accuracy stays one that nothing was chosen by.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.progress import Progress
from edgecv.core.protocols import Reader
from edgecv.core.recipe import FamilySpec, Finetune
from edgecv.core.steps import Augment, AugmentName
from edgecv.data.selection import truths_of
from edgecv.errors import ModelError
from edgecv.models.transformer_detectors import Staged
from edgecv.models.two_stage_loss import is_two_stage, two_stage_loss
from edgecv.optimize.batches import EpochBatches, Lessons, make_batches, split_indices
from edgecv.optimize.fabric import Devices
from edgecv.optimize.objectives import class_score, family_objective, train_objective
from edgecv.optimize.training import TrainPlan, fit

__all__ = [
    "FinetuneResult",
    "TrainSet",
    "can_have_channels_last",
    "class_score",
    "family_objective",
    "finetune",
    "held_out",
]


LEAST_HELD = 20
"""Fewer labelled pictures choose an epoch by chance: beside unlabelled pictures none are held out then."""
VALIDATION_BATCHES = 16
"""So many at least, where there are as many pictures: between them the spread of a score shows."""
OF_AN_IDENTITY = 4
"""Pictures of an identity in a batch: Hermans, Beyer and Leibe 2017, arXiv:1703.07737, section 2."""


@dataclass(frozen=True)
class TrainSet:
    """What to train on: the samples, and how they become inputs and a loss.

    The best epoch is the best on ``validation``; without it, on a share of the samples that is held out of training.
    For ``unlabelled`` pictures, whose truths are not looked at, a teacher answers; beside them the last epoch is taken
    where only few samples could be held out (`LEAST_HELD`).
    """

    reader: Reader
    contract: InputContract
    family: FamilySpec
    validation: Reader | None = None
    unlabelled: Reader | None = None


@dataclass(frozen=True)
class FinetuneResult:
    """``module`` is the one passed in, on the CPU in evaluation mode, with the weights of ``best_epoch`` (from 0).

    ``best_score`` is on the validation set, or the held-out share of the training set, and of the kind ``score_name``:
    top1 (0..1), or minus_distance, how far the outputs are from the teacher's where there are no labels; ``losses`` one
    mean an epoch.
    """

    module: nn.Module
    epochs_run: int
    best_epoch: int
    best_score: float | None
    losses: tuple[float, ...]
    held_out: int
    score_name: str = "top1"


def held_out(
    data: TrainSet,
    *,
    share: float,
    seed: int,
    batch_size: int,
    augment: AugmentName | Augment = "none",
    teaching: float = 0.0,
) -> tuple[Lessons, EpochBatches | None]:
    """``(training, validation)`` batches; without a validation set, ``share`` of the training set is held out by class.

    Unlabelled pictures are among them where a teacher's share, ``teaching`` (0..1), is above 0; if fewer than
    `LEAST_HELD` labelled ones would be held out beside them, there is no validation. Embeddings learn from
    pairs: their training batches hold `OF_AN_IDENTITY` pictures of each identity in them.

    The two never share a sample; the same ``seed`` gives the same split in every step of a recipe.

    Raises:
        DataError: fewer than two samples.
    """
    truths = truths_of(data.reader)
    extra = None
    if data.unlabelled is not None and teaching > 0:
        extra = make_batches(data.unlabelled, data.contract, batch_size=batch_size, shuffle_seed=seed, augment=augment)
    if data.validation is not None:
        rest, held, judged = list(range(len(truths))), list(range(len(data.validation))), data.validation
    elif extra is not None and len(truths) * share < LEAST_HELD:
        rest, held, judged = list(range(len(truths))), [], data.reader
    else:
        (rest, held), judged = split_indices(truths, share=share, seed=seed), data.reader
    train = make_batches(
        data.reader,
        data.contract,
        batch_size=batch_size,
        shuffle_seed=seed,
        augment=augment,
        indices=rest,
    )
    if FAMILY_KINDS[data.family.kind].compares and isinstance(truths[0], (int, np.integer)):
        train = train.by_class([truths[index] for index in rest], OF_AN_IDENTITY)
    if not held:
        return Lessons(train, extra), None
    size = min(batch_size, max(1, len(held) // VALIDATION_BATCHES))
    validation = make_batches(judged, data.contract, batch_size=size, indices=held)
    return Lessons(train, extra), validation


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

    ``teacher`` (the original network) is needed where ``step.distill`` > 0. Families without a loss, and sets
    without labels, learn from it alone; for unlabelled pictures only it answers. ``checkpoint`` is a file from which
    an interrupted run goes on.

    Raises:
        ModelError: the loss is not finite, there is nothing to learn from (neither labels nor a teacher), or there are
            unlabelled pictures for a two-stage network.
        DataError: the training set is too small to hold samples out.
    """
    objective = train_objective(
        data.family,
        data.contract,
        truths_of(data.reader),
        teacher=teacher,
        distill=step.distill,
        label_smoothing=step.label_smoothing,
        own=two_stage_loss if is_two_stage(module) else None,
        staged=isinstance(module, Staged),
    )
    train, validation = held_out(
        data,
        share=step.validation,
        seed=seed,
        batch_size=step.batch_size,
        augment=step.augment,
        teaching=objective.distill.weight,
    )
    if train.extra is not None and is_two_stage(module):
        raise ModelError("a two-stage network takes one picture at a time; remove data.unlabelled")
    for network in (module, teacher):
        if network is not None and can_have_channels_last(network):
            network.to(memory_format=torch.channels_last)
    result = fit(
        module,
        train=train,
        validation=None if validation is None else validation.fixed(),
        objective=objective,
        plan=_plan(step, seed=seed, devices=devices or Devices()),
        progress=progress,
        checkpoint=checkpoint,
    )
    result.module.to(memory_format=torch.contiguous_format)
    return FinetuneResult(
        result.module,
        result.epochs_run,
        result.best_epoch,
        result.best_score,
        result.losses,
        0 if validation is None else len(validation),
        result.score_name,
    )


def can_have_channels_last(module: nn.Module) -> bool:
    """Whether ``module`` may be trained with the channels last in memory, where convolutions are about twice as fast on
    a CPU, and with half precision on a GPU.

    Weights of three-dimensional convolutions have no such form. And with AVX-512, two threads and an odd batch the
    gradient of a strided 1 x 1 convolution writes past its memory where its inputs are no multiple of 16 (oneDNN in
    torch 2.14), as they are in small networks and in those that were cut.
    """
    if any(value.dim() == 5 for value in module.parameters()):
        return False
    return not any(
        set(layer.kernel_size) == {1} and max(layer.stride) > 1 and layer.in_channels % 16
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
    )


def _plan(step: Finetune, *, seed: int, devices: Devices) -> TrainPlan:
    return TrainPlan(
        epochs=step.epochs,
        lr=step.lr,
        optimizer=step.optimizer,
        weight_decay=step.weight_decay,
        warmup=step.warmup,
        patience=step.patience,
        precision=step.precision,
        seed=seed,
        devices=devices,
        ema=step.ema,
    )
