"""A moving average of the weights: less noise of the last steps than in the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage", "average_of"]


@dataclass
class WeightAverage:
    """Averages of every floating tensor of a module's state (running statistics and scales too), by name.

    ``decay`` (0..1) is the share that an old value keeps in one step. The first steps average over fewer
    values, ``min(decay, (1 + n) / (10 + n))`` after ``n`` of them, so that short runs are not mostly their start.
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    """

    decay: float
    values: dict[str, Tensor]
    updates: int = 0

    def update(self, module: nn.Module) -> None:
        """Take in the weights of ``module`` after one more step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        with torch.no_grad():
            for name, value in _floats(module).items():
                kept = self.values.get(name)
                # Ranges that have seen nothing are infinite; averaged, they would be that for ever.
                if kept is None or kept.shape != value.shape or not bool(torch.isfinite(kept).all()):
                    self.values[name] = value.clone()
                else:
                    kept.lerp_(value, 1.0 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """While the block runs, ``module`` has the averaged weights; afterwards its own again."""
        own = {name: value.clone() for name, value in _floats(module).items()}
        self.copy_to(module)
        try:
            yield
        finally:
            _assign(module, own)

    def copy_to(self, module: nn.Module) -> None:
        """Give ``module`` the averaged weights for good."""
        _assign(module, self.values)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values only, for a checkpoint."""
        return {"decay": self.decay, "updates": self.updates, "values": self.values}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave; the tensors keep their device.

        Raises:
            KeyError, RuntimeError: ``state`` is of another module.
        """
        updates, values = int(state["updates"]), state["values"]
        for name, kept in self.values.items():
            kept.copy_(values[name])
        self.updates = updates


def average_of(module: nn.Module, *, decay: float) -> WeightAverage | None:
    """An average that starts at the weights of ``module``; None for decay 0."""
    if decay == 0.0:
        return None
    return WeightAverage(decay, {name: value.clone() for name, value in _floats(module).items()})


def _floats(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in module.state_dict().items() if value.is_floating_point()}


def _assign(module: nn.Module, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in _floats(module).items():
            value.copy_(values[name])
