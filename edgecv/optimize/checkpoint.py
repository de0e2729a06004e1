"""The state of a training run on disk, so that a killed run goes on at the epoch it was in.

One file, replaced in one step after every epoch; it holds tensors and plain values only and is
read with ``weights_only``.
"""

from __future__ import annotations

import math
import os
import pickle
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecv.optimize.ema import WeightAverage

__all__ = ["EpochFigures", "TrainState", "read_checkpoint", "write_checkpoint"]

_VERSION = 3
LEAST_PARTS = 4
"""Of fewer batches no spread is estimated: the highest score counts then."""


@dataclass(frozen=True)
class EpochFigures:
    """Of one epoch: mean training loss, and on the validation part the mean loss and score (None without one).

    ``parts``: samples and mean score of each validation batch, which are the same samples in every epoch.
    """

    epoch: int
    loss: float
    validation_loss: float | None
    score: float | None
    parts: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TrainState:
    """What is known after so many epochs; ``best`` is a copy of the weights of ``best_epoch`` (None: they are the
    module's own, because without a validation part the last epoch counts)."""

    epochs_done: int = 0
    best_epoch: int = 0
    best: dict[str, Any] | None = None
    history: tuple[EpochFigures, ...] = ()

    @property
    def top(self) -> EpochFigures | None:
        """The epoch with the highest score so far (of equals, the lowest validation loss); None where there is none."""
        return max((figures for figures in self.history if figures.score is not None), key=_rank, default=None)

    def after(self, figures: EpochFigures, module: nn.Module) -> TrainState:
        """The state after one more epoch with these ``figures`` of ``module``.

        It becomes the best one if no other has a higher score, or if the highest is less than one standard error
        above its own: then chance may have made the difference, and the later epoch has learned longer, at a lower
        rate (the rule is that of Breiman et al. 1984, Classification and Regression Trees, section 3.4.3).
        """
        history = (*self.history, figures)
        done = self.epochs_done + 1
        if figures.score is None:
            return TrainState(done, figures.epoch, None, history)
        top = self.top
        if top is not None and _rank(figures) <= _rank(top) and not _as_good(figures, top):
            return TrainState(done, self.best_epoch, self.best, history)
        return TrainState(done, figures.epoch, _copied(module.state_dict()), history)


def write_checkpoint(
    path: Path,
    state: TrainState,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: str,
    average: WeightAverage | None = None,
) -> None:
    """Write everything that is needed to go on after ``state.epochs_done`` epochs; a reader never sees half a file."""
    content = {
        "version": _VERSION,
        "identity": identity,
        "epochs_done": state.epochs_done,
        "best_epoch": state.best_epoch,
        "best": state.best,
        "history": [astuple(figures) for figures in state.history],
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": None if average is None else average.state(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def read_checkpoint(
    path: Path | None,
    *,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: str,
    average: WeightAverage | None = None,
) -> TrainState:
    """Put the checkpoint's weights into ``module``, ``optimizer`` and ``average`` and give its state.

    Where there is none, or it is damaged or of another plan (``identity`` differs), training starts
    anew and all stay as they are: a checkpoint only saves time.
    """
    if path is None or not path.is_file():
        return TrainState()
    before = _copied(module.state_dict())
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["version"] != _VERSION or content["identity"] != identity:
            return TrainState()
        history = tuple(EpochFigures(*row) for row in content["history"])
        module.load_state_dict(content["module"])
        if average is not None:
            average.load(content["average"])
        optimizer.load_state_dict(content["optimizer"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
        module.load_state_dict(before)
        return TrainState()
    return TrainState(content["epochs_done"], content["best_epoch"], content["best"], history)


def _rank(figures: EpochFigures) -> tuple[float, float]:
    """Higher is better. On a small held-out part many epochs score the same, and the loss still tells them apart."""
    return figures.score or 0.0, -(figures.validation_loss or 0.0)


def _as_good(one: EpochFigures, top: EpochFigures) -> bool:
    """Whether the score of ``one`` is less than one standard error of the paired difference below that of ``top``."""
    if len(top.parts) < LEAST_PARTS or [count for count, _ in one.parts] != [count for count, _ in top.parts]:
        return False
    total = sum(count for count, _ in top.parts)
    shares = [count / total for count, _ in top.parts]
    apart = [high - low for (_, high), (_, low) in zip(top.parts, one.parts, strict=True)]
    mean = sum(share * value for share, value in zip(shares, apart, strict=True))
    spread = sum(share * (value - mean) ** 2 for share, value in zip(shares, apart, strict=True))
    squares = sum(share * share for share in shares)
    return mean < math.sqrt(spread * squares / (1.0 - squares))


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value
        for name, value in state.items()
    }
