"""The one training loop: fine-tuning after pruning and quantisation-aware training both run on it.

Reproducible on one machine: every epoch seeds its own random numbers from the plan's seed, so a
run that was killed and goes on from its checkpoint ends with the same weights.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Batches
from edgecv.errors import ModelError, UsageError
from edgecv.optimize.batches import EpochBatches, Lessons
from edgecv.optimize.checkpoint import EpochFigures, TrainState, read_checkpoint, write_checkpoint
from edgecv.optimize.distill import first_tensor, mixed_loss
from edgecv.optimize.ema import WeightAverage, average_of
from edgecv.optimize.fabric import Devices, launch_fabric
from edgecv.optimize.features import FeatureTaps, tap_features
from edgecv.optimize.objectives import Objective
from edgecv.optimize.picks import Picks

__all__ = ["EpochFigures", "FitResult", "Hooks", "TrainPlan", "fit", "learning_rate", "top1_score"]


@dataclass(frozen=True)
class TrainPlan:
    """How long and how fast to train, and on what.

    ``lr`` is the peak learning rate; ``warmup`` (0..1) the share of all steps that ramp up to it.
    ``patience``: stop after so many epochs without a better score. ``ema`` (0..1, 0 for none) is the decay of a
    moving average of the weights: it is what is validated and given back.
    """

    epochs: int
    lr: float
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 1e-4
    warmup: float = 0.05
    patience: int | None = None
    precision: Literal["32", "16-mixed", "bf16-mixed"] = "32"
    seed: int = 0
    devices: Devices = field(default_factory=Devices)
    ema: float = 0.0


def _set_mode(module: nn.Module, training: bool) -> None:
    module.train(training)


@dataclass(frozen=True)
class Hooks:
    """Where a caller steps in.

    ``set_mode(module, training)`` switches between training and evaluation (graphs from
    torch.export need torchao's own way); ``on_epoch_start(module, epoch)`` runs before each epoch
    (freezing observers and batch norm in quantisation-aware training); ``log`` takes one line an epoch.
    """

    set_mode: Callable[[nn.Module, bool], None] = _set_mode
    on_epoch_start: Callable[[nn.Module, int], None] | None = None
    log: Callable[[str], None] | None = None


@dataclass(frozen=True)
class FitResult:
    """``module`` is the trained module (the one passed in, on the CPU, in evaluation mode) with the weights
    of ``best_epoch`` (from 0); ``best_score`` is None without a validation part, and of the kind ``score_name``."""

    module: nn.Module
    epochs_run: int
    best_epoch: int
    best_score: float | None
    history: tuple[EpochFigures, ...]
    score_name: str = "score"

    @property
    def losses(self) -> tuple[float, ...]:
        """Mean training loss of each epoch."""
        return tuple(figures.loss for figures in self.history)


def learning_rate(step: int, *, total: int, plan: TrainPlan) -> float:
    """Learning rate of ``step`` (0 <= step < total): linear warm-up, then a cosine down to nearly 0.

    Loshchilov, Hutter: SGDR, arXiv:1608.03983 (one cycle, no restart).
    """
    ramp = math.ceil(plan.warmup * total)
    if step < ramp:
        return plan.lr * (step + 1) / ramp
    return plan.lr * 0.5 * (1.0 + math.cos(math.pi * (step - ramp) / max(1, total - ramp)))


def top1_score(outputs: Any, truths: Any) -> float:
    """Share (0..1) of a batch whose largest logit is the truth's; `(N, C)` logits and `(N,)` class indices."""
    best = first_tensor(outputs).argmax(dim=1)
    return float((best == truths).float().mean().item())


def fit(
    module: nn.Module,
    *,
    train: EpochBatches | Lessons,
    validation: Batches | None,
    objective: Objective,
    plan: TrainPlan,
    hooks: Hooks | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> FitResult:
    """Train ``module`` in place and give it back with the weights of its best epoch.

    The best epoch is the last one whose score on ``validation`` is the highest or less than one standard error below
    it (of fewer than four batches: the highest, of equals the one with the lowest loss); without a validation part it
    is the last. ``checkpoint`` is a file that is written after every
    epoch and from which an interrupted run of the same plan goes on; the caller removes it when the
    result is stored. Under torchrun or Slurm all processes train together (data parallel). For the extra pictures
    of `Lessons` only the teacher answers.

    Raises:
        ModelError: the loss is not finite; there is neither a loss nor a teacher, or none for unlabelled pictures; a
            name in ``distill.features`` fits no module of both networks.
        UsageError: more devices are asked for than were launched, or the accelerator is not there.
    """
    if not objective.labels and (objective.teacher is None or objective.distill.weight != 1.0):
        raise ModelError(
            f"there are no labels to learn from, distill is {objective.distill.weight} and there is "
            f"{'no' if objective.teacher is None else 'a'} teacher; without labels give the original network and "
            "distill: 1.0"
        )
    lessons = train if isinstance(train, Lessons) else Lessons(train)
    if lessons.extra is not None and (objective.teacher is None or objective.distill.weight == 0):
        raise ModelError("there are unlabelled pictures and no teacher to answer for them; set distill above 0")
    with _reproducible(), tap_features(objective.teacher, module, objective.distill) as features:
        session = _Session(
            module=module,
            lessons=lessons,
            validation=validation,
            objective=objective,
            plan=plan,
            hooks=hooks or Hooks(),
            progress=progress or SilentProgress(),
            checkpoint=checkpoint,
            features=features,
            picks=Picks(wanted=objective.teacher is not None and objective.distill.weight > 0),
        )
        return _run(session)


@dataclass(frozen=True)
class _Session:
    module: nn.Module
    lessons: Lessons
    validation: Batches | None
    objective: Objective
    plan: TrainPlan
    hooks: Hooks
    progress: Progress
    checkpoint: Path | None
    features: FeatureTaps | None
    picks: Picks


def _run(session: _Session) -> FitResult:
    plan, module = session.plan, session.module
    fabric = launch_fabric(plan.devices, precision=plan.precision)
    if session.objective.own is not None and fabric.world_size > 1:
        raise UsageError(f"{fabric.world_size} processes train; a network whose parts have their own losses takes one")
    torch.manual_seed(plan.seed)
    session.hooks.set_mode(module, True)
    optimizer = _optimizer(module, plan)
    wrapped, optimizer = fabric.setup(module, optimizer)
    lessons = session.lessons.share(fabric.global_rank, fabric.world_size)
    identity = f"{plan} {lessons.steps} {fabric.world_size} {len(lessons.extra or ())}"
    average = average_of(module, decay=plan.ema)
    state = read_checkpoint(session.checkpoint, module=module, optimizer=optimizer, identity=identity, average=average)
    teacher = session.objective.teacher
    if teacher is not None:
        teacher.eval().to(fabric.device)
    total = plan.epochs * lessons.steps
    with session.progress.task("train", total) as task:
        task.advance(state.epochs_done * lessons.steps)
        while state.epochs_done < plan.epochs and not _is_over(state, plan.patience):
            epoch = state.epochs_done
            learner = _Learner(wrapped, optimizer, average)
            loss = _train_epoch(session, fabric, learner, lessons, epoch, task)
            _agree_on_buffers(module, average, fabric)
            with nullcontext() if average is None else average.applied(module):
                figures = _validate(session, fabric, epoch, loss)
                state = state.after(figures, module)
            if session.hooks.log is not None:
                session.hooks.log(_line(figures, plan.epochs))
            if session.checkpoint is not None:
                if fabric.is_global_zero:
                    write_checkpoint(session.checkpoint, state, module, optimizer, identity, average)
                fabric.barrier()
    if state.best is not None:
        module.load_state_dict(state.best)
    elif average is not None:
        average.copy_to(module)
    if teacher is not None:
        teacher.to("cpu")
    module.to("cpu")
    session.hooks.set_mode(module, False)
    best, name = state.history[state.best_epoch], session.objective.score_name
    return FitResult(module, state.epochs_done, state.best_epoch, best.score, state.history, name)


def _is_over(state: TrainState, patience: int | None) -> bool:
    return patience is not None and state.top is not None and state.epochs_done - 1 - state.top.epoch >= patience


def _optimizer(module: nn.Module, plan: TrainPlan) -> torch.optim.Optimizer:
    """Decay only matrices and filters: shrinking biases and norm scales (1-D) serves nothing."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [item for item in parameters if item.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [item for item in parameters if item.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.lr)


@dataclass(frozen=True)
class _Learner:
    """The module as Fabric wrapped it, its optimiser, and the average of its weights."""

    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None


def _train_epoch(session: _Session, fabric: Any, learner: _Learner, lessons: Lessons, epoch: int, task: Any) -> float:
    """One pass; gives the mean loss of a sample."""
    plan, hooks, optimizer = session.plan, session.hooks, learner.optimizer
    torch.manual_seed(plan.seed * 1_000_003 + epoch * 1009 + fabric.global_rank)
    hooks.set_mode(session.module, True)
    if hooks.on_epoch_start is not None:
        hooks.on_epoch_start(session.module, epoch)
    total, samples = 0.0, 0
    for index, (arrays, truths) in enumerate(lessons(epoch)):
        rate = learning_rate(epoch * lessons.steps + index, total=plan.epochs * lessons.steps, plan=plan)
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = _tensors(arrays, truths, fabric.device)
        optimizer.zero_grad()
        loss = _loss(session, fabric, learner.wrapped, targets, inputs)
        value = float(loss.item())
        if not math.isfinite(value):
            raise ModelError(
                f"the training loss is {value} in epoch {epoch + 1}, step {index + 1}, learning rate {rate:.3g}; "
                "it must be finite. Lower lr, or set precision to '32'."
            )
        fabric.backward(loss)
        optimizer.step()
        if learner.average is not None:
            learner.average.update(session.module)
        total += value * len(arrays)
        samples += len(arrays)
        task.advance(1, note=f"loss {value:.4f}")
    return _mean(fabric, total, samples)


def _loss(session: _Session, fabric: Any, network: Any, targets: Any, inputs: torch.Tensor) -> torch.Tensor:
    objective, features = session.objective, session.features
    if objective.own is not None:
        with fabric.autocast():
            return objective.own(session.module, inputs, targets)
    with session.picks.chosen():
        stages = network(inputs, every=True) if objective.staged else (network(inputs),)
    weight, outputs = objective.distill.weight, stages[-1]
    task_loss = None
    if weight < 1.0 or objective.teacher is None:
        labelled = stages if len(targets) == len(inputs) else [_first(stage, len(targets)) for stage in stages]
        task_loss = torch.stack([objective.loss(stage, targets) for stage in labelled]).sum()
    if objective.teacher is None or weight == 0.0:
        assert task_loss is not None
        return task_loss
    with torch.no_grad(), session.picks.taken():
        teacher = objective.teacher(inputs)
    loss = mixed_loss(task_loss, objective.compare(outputs, teacher), weight=weight)
    return loss if features is None else loss + weight * features.loss()


def _first(outputs: Any, count: int) -> Any:
    """The outputs for the first ``count`` pictures of a batch."""
    return tree_map(lambda tensor: tensor[:count], outputs)


def _agree_on_buffers(module: nn.Module, average: WeightAverage | None, fabric: Any) -> None:
    """Running statistics differ by the last batch of each process; the first one's count."""
    if fabric.world_size > 1:
        for buffer in [*module.buffers(), *(average.values.values() if average is not None else ())]:
            torch.distributed.broadcast(buffer, src=0)


def _validate(session: _Session, fabric: Any, epoch: int, loss: float) -> EpochFigures:
    if session.validation is None:
        return EpochFigures(epoch, loss, None, None)
    session.hooks.set_mode(session.module, False)
    objective = session.objective
    parts: list[tuple[int, float, float]] = []
    # The bare module and not its data-parallel wrapper: that one waits for the other processes in every
    # forward, and they may have one batch less.
    with torch.no_grad(), fabric.autocast():
        for index, (arrays, truths) in enumerate(session.validation()):
            if index % fabric.world_size != fabric.global_rank:
                continue
            inputs, targets = _tensors(arrays, truths, fabric.device)
            if objective.own is not None:
                value = float(objective.own(session.module, inputs, targets).item())
                parts.append((len(arrays), value, -value))
                continue
            with session.picks.chosen():
                outputs = session.module(inputs)
            value = float(_judged(session, outputs, targets, inputs).item())
            score = -value if objective.score is None else float(objective.score(outputs, targets))
            parts.append((len(arrays), value, score))
    parts = _of_all(fabric, parts)
    samples = max(1, sum(count for count, _, _ in parts))
    losses = sum(count * value for count, value, _ in parts) / samples
    scores = sum(count * score for count, _, score in parts) / samples
    return EpochFigures(epoch, loss, losses, scores, tuple((count, score) for count, _, score in parts))


def _judged(session: _Session, outputs: Any, targets: Any, inputs: torch.Tensor) -> torch.Tensor:
    """The loss on labels, or where there are none the distance from the teacher."""
    objective = session.objective
    if objective.labels:
        return objective.loss(outputs, targets)
    assert objective.teacher is not None  # checked by `fit`
    with session.picks.taken():
        return objective.compare(outputs, objective.teacher(inputs))


def _of_all(fabric: Any, parts: list[Any]) -> list[Any]:
    """The ``parts`` of all processes, in the order of the processes."""
    if fabric.world_size == 1:
        return parts
    found: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(found, parts)
    return [part for share in found for part in share]


def _mean(fabric: Any, total: float, samples: int) -> float:
    """Mean over all processes."""
    sums = torch.tensor([total, float(samples)], dtype=torch.float64)
    if fabric.world_size > 1:
        sums = fabric.all_reduce(sums.to(fabric.device), reduce_op="sum").cpu()
    return float(sums[0] / sums[1].clamp(min=1.0))


def _tensors(arrays: Any, truths: Any, device: torch.device) -> tuple[torch.Tensor, Any]:
    inputs = torch.from_numpy(arrays).to(device)
    return inputs, torch.from_numpy(truths).to(device) if isinstance(truths, np.ndarray) else truths


def _line(figures: EpochFigures, epochs: int) -> str:
    text = f"epoch {figures.epoch + 1}/{epochs}: loss {figures.loss:.4f}"
    if figures.score is not None:
        text += f", validation loss {figures.validation_loss:.4f}, score {figures.score:.4f}"
    return text


@contextmanager
def _reproducible() -> Iterator[None]:
    """Deterministic kernels where there are any, and the caller's random state back at the end."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # warn_only: an operation without a deterministic kernel shall train and not nag.
        warnings.filterwarnings("ignore", message=".*deterministic.*")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
