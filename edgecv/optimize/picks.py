"""Two runs that are compared row by row are made to choose the same rows.

A network that picks its best rows itself (RT-DETR's queries, the proposals of a two-stage detector) gives them in the
order of their scores. One rounding step can swap two rows, and everything behind them then looks wrong. So the second
run takes the rows that the first one chose: what is left is the difference of what the two compute. Whether the choice
itself is as good is not seen this way; the task's metric, of networks that choose freely, tells that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Picks", "remembered", "repeated"]

aten = torch.ops.aten

_AXIS = {aten.topk.default: 2, aten.sort.default: 1, aten.sort.stable: 1}
"""Operators that give values and where they stood, with the place of the axis among their arguments."""


@contextmanager
def remembered() -> Iterator[list[Tensor]]:
    """Within, each choice of rows is as ever; the list fills with the rows that were chosen, choice by choice."""
    chosen: list[Tensor] = []
    with _Remember(chosen):
        yield chosen


@contextmanager
def repeated(chosen: list[Tensor]) -> Iterator[None]:
    """Within, one run of a network makes the choices of rows that `remembered` gave, in their order.

    What fits no such choice, of another shape say, is chosen as ever. Gradients flow as if the network had chosen so.
    """
    with _Repeat(chosen):
        yield


class Picks:
    """Lets a second network take the rows that a first one chose, run after run.

    Looking at every operator costs time: after a first run in which nothing was chosen, nothing is looked at any more.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self._wanted = wanted
        self._rows: list[Tensor] = []

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Around a run of the first network."""
        if not self._wanted:
            yield
            return
        with remembered() as self._rows:
            yield
        self._wanted = bool(self._rows)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Around the run of the second network."""
        with repeated(self._rows) if self._wanted else nullcontext():
            yield


class _Remember(TorchDispatchMode):
    def __init__(self, chosen: list[Tensor]) -> None:
        super().__init__()
        self.chosen = chosen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in _AXIS:
            self.chosen.append(found[1])
        return found


class _Repeat(TorchDispatchMode):
    def __init__(self, chosen: list[Tensor]) -> None:
        super().__init__()
        self.waiting = list(chosen)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        found = func(*args, **options)
        if func not in _AXIS or not self.waiting:
            return found
        rows = self.waiting.pop(0)
        if rows.shape != found[1].shape:
            return found
        place = _AXIS[func]
        axis = options.get("dim", args[place] if len(args) > place else -1)
        return args[0].gather(axis, rows), rows
