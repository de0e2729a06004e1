"""The rule for the ranges of activations, chosen by what it leaves of the network's outputs.

No rule is the best for all networks. The mean of the pictures' ranges cuts rare outliers, which a residual network
profits from; where the outlier is the answer (a face's score, a descriptor's large channel) it ruins the network.
So all rules are worked out in one pass over the calibration pictures, and the int8 network is tried with each.
Tensors before a SiLU, leaky ReLU or the like are ranged by what comes out of it (`edgecv.optimize.behind`) whatever
the rule of the others is, unless the one rule is asked for that takes what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgecv.errors import DataError
from edgecv.optimize.behind import Activation, activations, best_range_behind
from edgecv.optimize.examples import Example
from edgecv.optimize.histogram import Histogram, Range, best_range, joined
from edgecv.optimize.observers import scale_and_zero, set_scales
from edgecv.optimize.picks import remembered, repeated
from edgecv.optimize.rules import Plan
from edgecv.optimize.switches import Board, make_board

__all__ = ["RULES", "RangeChoice", "Rule", "choose_ranges"]

Rule = Literal["mean-minmax", "minmax", "mse", "percentile"]
RULES: tuple[Rule, ...] = ("mean-minmax", "minmax", "mse", "percentile")
"""In this order one that is not clearly better than the best before it is passed over."""
SEEN: tuple[Rule, ...] = ("mean-minmax", "minmax")
"""Take the extremes that were seen; the others search."""
CLEARLY_DB = 0.25
TRIALS = 16
"""Calibration pictures, spread over the set, that the rules are tried on."""
LEAST_NOISE = 1e-12


@dataclass(frozen=True)
class RangeChoice:
    """The rule that was taken, and the signal to noise of the outputs in dB with each that was tried."""

    rule: Rule
    sqnr_db: Mapping[str, float]

    @property
    def why(self) -> str:
        """In words: ``ranges minmax (18.9 dB at the outputs; mean-minmax 0.4, ...)``."""
        others = ", ".join(f"{name} {value:.1f}" for name, value in self.sqnr_db.items() if name != self.rule)
        return f"ranges {self.rule} ({self.sqnr_db[self.rule]:.1f} dB at the outputs; {others})"


@dataclass
class _Seen:
    """What one tensor held: a histogram of all values, and the sums of each picture's extremes."""

    histogram: Histogram = field(default_factory=Histogram)
    low: float = 0.0
    high: float = 0.0
    pictures: int = 0

    def update(self, values: Tensor) -> None:
        array = values.detach().float().contiguous().numpy()
        self.histogram.update(array)
        self.low += float(min(array.min(initial=0.0), 0.0))
        self.high += float(max(array.max(initial=0.0), 0.0))
        self.pictures += 1

    def mean_range(self) -> Range:
        return Range(self.low / max(1, self.pictures), self.high / max(1, self.pictures))


def choose_ranges(
    graph: GraphModule,
    plan: Plan,
    pictures: Iterable[Example],
    *,
    count: int,
    symmetric: bool,
    rules: Sequence[Rule] = RULES,
    fixed: Mapping[str, Range] | None = None,
) -> RangeChoice:
    """Give every int8 activation of the Q/DQ ``graph`` its range by the rule that keeps the outputs best.

    ``pictures`` are ``count`` pictures `(1, C, H, W)` float32, streamed once. Weights stay float while the rules
    are compared; of one rule alone no trial is made. Tensors that the plan gives one scale keep one; those in
    ``fixed`` take that range with every rule. The same pictures give the same choice.

    Raises:
        DataError: an activation is not finite on a picture, or there is no picture.
    """
    if count < 1:
        raise DataError("the calibration set is empty; at least 1 picture is needed")
    board = make_board(graph)
    seen = {key: _Seen() for key in board.switches}
    _watch(board, seen)
    every, trials = max(1, count // TRIALS), list[Example]()
    board.turn(())
    for number, picture in enumerate(pictures):
        board.run(picture)
        if number % every == 0 and len(trials) < TRIALS:
            trials.append(picture)
    _watch(board, {})
    groups = _groups(plan, seen)
    known = dict(fixed or {})
    if len(rules) > 1 or rules[0] not in SEEN:
        known = _behind(groups, activations(graph), symmetric=symmetric) | known
    found = {rule: _ranges(groups, rule, symmetric=symmetric) | known for rule in rules}
    if len(rules) == 1:
        set_scales(graph, found[rules[0]], symmetric=symmetric)
        return RangeChoice(rules[0], {})
    decibels = _decibels(board, trials, found, symmetric=symmetric)
    best = rules[0]
    for rule in rules[1:]:
        if decibels[rule] > decibels[best] + CLEARLY_DB:
            best = rule
    set_scales(graph, found[best], symmetric=symmetric)
    return RangeChoice(best, decibels)


def _watch(board: Board, seen: Mapping[str, _Seen]) -> None:
    for key, switch in board.switches.items():
        switch.watch = seen[key].update if key in seen else None


def _groups(plan: Plan, seen: Mapping[str, _Seen]) -> list[dict[str, _Seen]]:
    owners = {node.name: owner.name for node, owner in plan.outputs.items()}
    groups: dict[str, dict[str, _Seen]] = {}
    for key, item in seen.items():
        groups.setdefault(owners.get(key, key), {})[key] = item
    return list(groups.values())


def _behind(groups: list[dict[str, _Seen]], behind: Mapping[str, Activation], *, symmetric: bool) -> dict[str, Range]:
    """The ranges of tensors that one activation function reads, which are the same with every rule."""
    return {
        key: best_range_behind(item.histogram, behind[key], symmetric=symmetric)
        for group in groups
        for key, item in group.items()
        if len(group) == 1 and key in behind
    }


def _ranges(groups: list[dict[str, _Seen]], rule: Rule, *, symmetric: bool) -> dict[str, Range]:
    found: dict[str, Range] = {}
    for group in groups:
        if rule in SEEN:
            parts = [
                item.mean_range() if rule == "mean-minmax" else Range(item.histogram.low, item.histogram.high)
                for item in group.values()
            ]
            low, high = min(part.low for part in parts), max(part.high for part in parts)
            chosen = Range(-max(-low, high), max(-low, high)) if symmetric else Range(low, high)
        else:
            whole = joined([item.histogram for item in group.values()])
            chosen = best_range(whole, "mse" if rule == "mse" else "percentile", symmetric=symmetric)
        found |= dict.fromkeys(group, chosen)
    return found


def _decibels(
    board: Board, trials: Iterable[Example], found: Mapping[Rule, Mapping[str, Range]], *, symmetric: bool
) -> dict[str, float]:
    """Signal to noise in dB with every rule, of the mean share of noise in the outputs: one that is lost shows."""
    signal: list[_Spread] = []
    noise: dict[str, list[Tensor]] = {}
    for picture in trials:
        board.turn(())
        with remembered() as rows:
            wanted = [_by_channel(item) for item in board.run(picture)]
        signal = signal or [_Spread() for _ in wanted]
        for spread, item in zip(signal, wanted, strict=True):
            spread.update(item)
        board.turn(tuple(board.switches))
        for rule, ranges in found.items():
            for key, switch in board.switches.items():
                switch.scale, switch.zero = scale_and_zero(ranges[key], switch.low, switch.high, symmetric=symmetric)
            with repeated(rows):
                pairs = zip(wanted, board.run(picture), strict=True)
            errors = [(one - _by_channel(other)).square().sum(dim=0) for one, other in pairs]
            known = noise.get(rule)
            noise[rule] = errors if known is None else [one + other for one, other in zip(known, errors, strict=True)]
    powers = [item.power() for item in signal]
    shares = {
        rule: [float((one / power).nan_to_num(0.0, posinf=1.0).clamp(LEAST_NOISE, 1.0).mean()) for one, power in pairs]
        for rule, pairs in ((rule, list(zip(errors, powers, strict=True))) for rule, errors in noise.items())
    }
    return {rule: -10 * math.log10(sum(items) / len(items)) for rule, items in shares.items()}


def _by_channel(output: Tensor) -> Tensor:
    """``output`` as `(positions, channels)` float64; channels are axis 1 of pictures, else the last one."""
    values = output.double()
    values = values.movedim(1, -1) if values.ndim >= 4 else values
    return values.reshape(-1, values.shape[-1])


@dataclass
class _Spread:
    """Sums from which each channel's spread around its mean follows: what it tells, without what is always there."""

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def update(self, values: Tensor) -> None:
        self.count += len(values)
        self.total = self.total + values.sum(dim=0)
        self.squares = self.squares + values.square().sum(dim=0)

    def power(self) -> Tensor:
        total, squares = torch.as_tensor(self.total), torch.as_tensor(self.squares)
        return (squares - total.square() / max(1, self.count)).clamp_min(0.0)
