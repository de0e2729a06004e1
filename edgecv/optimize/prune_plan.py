"""From importance scores to the channels to cut: pure decisions, nothing is touched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from edgecv.optimize.prune_graph import Cut, Prunable

__all__ = ["Limits", "Scored", "first_enough", "planned_counts", "planned_cuts"]

Counts = tuple[int, ...]
"""How many units to cut of each group, in the groups' order."""


@dataclass(frozen=True)
class Scored:
    """A group with the importance of its units: ``scores`` `(units,)`, >= 0, low goes first."""

    group: Prunable
    scores: torch.Tensor

    @property
    def key(self) -> tuple[str, str]:
        """Names the layer within the whole network."""
        return self.group.region, self.group.layer

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Units, the least important first; equal ones in the order of their channels."""
        return tuple(torch.argsort(self.scores, stable=True).tolist())


@dataclass(frozen=True)
class Limits:
    """What no plan may break: what is left of a layer is a multiple of ``round_to`` and at least
    ``1 - max_layer_ratio`` of the channels that it had ``originally`` (by `Scored.key`)."""

    round_to: int
    max_layer_ratio: float
    originally: Mapping[tuple[str, str], int]

    def cut(self, scored: Scored, wanted: int) -> int:
        """How many units to cut where ``wanted`` are to go: as many, or the next smaller allowed number."""
        return self.steps(scored, wanted)[-1]

    def steps(self, scored: Scored, most: int | None = None) -> tuple[int, ...]:
        """Every allowed number of units to cut up to ``most``, ascending; 0 is always one."""
        group = scored.group
        originally = self.originally.get(scored.key, group.channels)
        least = max(1, math.ceil(originally * (1.0 - self.max_layer_ratio) - 1e-9))
        left, allowed = group.channels, [0]
        for number, index in enumerate(scored.order[:most], start=1):
            left -= len(group.units[index])
            if left < least:
                break
            if left % self.round_to == 0:
                allowed.append(number)
        return tuple(allowed)


def planned_counts(
    scored: Sequence[Scored], *, share: float, scope: Literal["global", "uniform"], limits: Limits
) -> Counts:
    """Units to cut of each group so that ``share`` (0..1) of all channels goes, before rounding and limits.

    ``global`` cuts below one threshold for all layers, ``uniform`` the same share of each.
    """
    if scope == "uniform":
        return tuple(limits.cut(item, math.floor(share * len(item.group.units) + 1e-9)) for item in scored)
    ranked = []
    for index, item in enumerate(scored):
        scores = item.scores.tolist()
        for place, unit in enumerate(item.order):
            # Equal scores (an untrained batch norm has nothing else) go evenly over the layers.
            ranked.append((scores[unit], place / len(scores), index, len(item.group.units[unit])))
    ranked.sort()
    left = math.floor(share * sum(channels for *_, channels in ranked) + 1e-9)
    wanted = [0] * len(scored)
    for _, _, index, channels in ranked:
        left -= channels
        if left < 0:
            break
        wanted[index] += 1
    return tuple(limits.cut(item, count) for item, count in zip(scored, wanted, strict=True))


def planned_cuts(scored: Sequence[Scored], counts: Counts, *, round_index: int) -> list[Cut]:
    """The least important units of each group, ``counts`` of them; groups without a cut are left out."""
    cuts = []
    for item, count in zip(scored, counts, strict=True):
        if count:
            indices = sorted(index for unit in item.order[:count] for index in item.group.units[unit])
            cuts.append(Cut(round_index, item.group.region, item.group.layer, tuple(indices)))
    return cuts


def first_enough(plan: Callable[[int], Counts], steps: int, *, enough: Callable[[Counts], bool]) -> Counts | None:
    """The smallest of the plans ``plan(0..steps)`` that is ``enough``; None where not even the last one is.

    Plans only grow with their number. Between the last plan that is not enough and the first that is,
    groups are changed one after the other, so that the target is passed by no more than one
    layer's step.
    """
    low, high = 0, steps
    if not enough(plan(high)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if plan(middle) == plan(high) or (plan(middle) != plan(low) and enough(plan(middle))):
            high = middle
        else:
            low = middle
    before, after = plan(low), plan(high)
    changed = [index for index, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    few, many = 0, len(changed)
    while many - few > 1:
        middle = (few + many) // 2
        if enough(_mixed(before, after, changed[:middle])):
            many = middle
        else:
            few = middle
    return _mixed(before, after, changed[:many])


def _mixed(before: Counts, after: Counts, taken: Sequence[int]) -> Counts:
    chosen = set(taken)
    return tuple(after[index] if index in chosen else count for index, count in enumerate(before))
