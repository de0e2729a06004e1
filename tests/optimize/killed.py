"""A training that is killed before an epoch, as a process would be."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from edgecv.optimize.training import Hooks


class Killed(Exception):
    """Stands for the end of a process."""


def killed_before(stop_at: int | None, hooks: Hooks) -> Hooks:
    """``hooks`` with a kill before epoch ``stop_at``; None for no kill."""

    def on_epoch_start(trained: nn.Module, epoch: int) -> None:
        if epoch == stop_at:
            raise Killed
        if hooks.on_epoch_start is not None:
            hooks.on_epoch_start(trained, epoch)

    return replace(hooks, on_epoch_start=on_epoch_start)
