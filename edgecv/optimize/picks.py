"""Operators that choose or order rows by score, and that can be made to choose the same rows again.

A network that picks its best rows itself (RT-DETR's queries, the proposals of a two-stage detector) gives them in the
order of their scores. One rounding step can swap two rows, and everything behind them then looks wrong if outputs are
compared row by row. So a comparison lets the second run take the rows that the first one chose.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["PICKING", "Pick", "Picks"]

aten = torch.ops.aten

PICKING = (aten.topk.default, aten.sort.default, aten.sort.stable, aten.argsort.default)
Picks = Literal["free", "remember", "repeat"]


class Pick(nn.Module):
    """One of `PICKING`: as ever (``free``), so that its choice is kept (``remember``), or made again (``repeat``)."""

    def __init__(self, operator: Any) -> None:
        super().__init__()
        self.operator = operator
        self.picks: Picks = "free"
        self._kept: Tensor | None = None

    def forward(self, values: Tensor, *args: Any, **options: Any) -> Any:
        """What the operator gives for ``values``: values and indices, or indices alone."""
        if self.picks == "repeat" and self._kept is not None:
            kept = self._kept
            return kept if self.operator is aten.argsort.default else (self._taken(values, args, options, kept), kept)
        found = self.operator(values, *args, **options)
        if self.picks == "remember":
            self._kept = found if isinstance(found, Tensor) else found[1]
        return found

    def _taken(self, values: Tensor, args: tuple[Any, ...], options: dict[str, Any], kept: Tensor) -> Tensor:
        place = 1 if self.operator is aten.topk.default else 0  # the number of rows stands before their axis
        axis = options.get("dim", args[place] if len(args) > place else -1)
        return values.gather(int(axis), kept)
