"""How much a network's outputs change when channels go, measured on pictures: one currency for all layers.

Weights tell how layers compare within themselves, not with one another. So the channels of each group are put in
an order first, by what the layers behind can no longer tell without them even with the best new weights
(Hassibi, Stork 1993, optimal brain surgeon, for whole channels as in Kurtic et al. 2023, ZipLM, arXiv:2302.04089).
Then every width that the group may come to is tried: its channels are set to zero, the layers behind get those new
weights, and the change of the outputs on the pictures is the importance of what went. No labels are needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from edgecv.core.protocols import Batches
from edgecv.optimize import prune_graph
from edgecv.optimize.importance import Group, plain_scores
from edgecv.optimize.input_powers import Reader, input_powers, reads, solved_without
from edgecv.optimize.picks import Picks
from edgecv.optimize.prune_graph import Cut, Region
from edgecv.optimize.prune_plan import Limits, Scored

__all__ = ["output_scores"]

_MOST_WIDTHS = 8
"""Widths of a group that are tried; between them the change is taken to be even."""
_MACS = 1e12
"""About so many multiply-accumulates are spent on the trials: fewer pictures for large networks ..."""
_LEAST_PICTURES = 8
"""... but so many at least."""
_CHUNKS = 32
"""The order within a group is found in so many steps at the most."""


@dataclass(frozen=True)
class _Trial:
    """A network that is changed and set back, and the outputs that it had, of the rows that it picked itself."""

    module: nn.Module
    graphs: Mapping[str, Any]
    readers: Mapping[str, Reader]
    pictures: torch.Tensor
    outputs: tuple[torch.Tensor, ...]
    spreads: tuple[torch.Tensor, ...]
    picks: Picks


def output_scores(
    module: nn.Module,
    regions: Sequence[Region],
    groups: Sequence[Group],
    *,
    batches: Batches,
    limits: Limits,
    macs: int,
) -> list[Scored]:
    """Importance of the units of ``groups``: their sum over the units that go is the change of the outputs.

    The change is the mean squared difference over the variance of each output, summed over the outputs (>= 0, about
    2 where nothing is left of the function). ``module`` is in evaluation mode and ends as it was; ``macs`` are its
    multiply-accumulates for one picture, by which the number of pictures is chosen; ``batches`` give inputs
    `(N, C, H, W)` float32.
    """
    inputs = [torch.from_numpy(arrays) for arrays, _ in batches()]
    readers = input_powers(module, {name for _, raw in groups for name in reads(module, raw)}, inputs)
    ordered = [_ordered(module, group, readers) for group in groups]
    options = [_some(limits.steps(item)) for item in ordered]
    trials = max(1, sum(len(option) - 1 for option in options))
    wanted = max(_LEAST_PICTURES, int(_MACS / (trials * max(macs, 1))))
    pictures = torch.cat(inputs)
    pictures = pictures[torch.linspace(0, len(pictures) - 1, min(wanted, len(pictures))).round().long()]
    graphs = {
        region.name: prune_graph.dependency_graph(module.get_submodule(region.name), region.example)
        for region in regions
    }
    picks = Picks()
    with torch.no_grad():
        with picks.chosen():
            outputs = prune_graph.tensors_of(module(pictures))
        spreads = tuple((output - output.mean(dim=0)).square().mean().clamp_min(1e-12) for output in outputs)
        trial = _Trial(module, graphs, readers, pictures, outputs, spreads, picks)
        return [_priced(trial, item, option) for item, option in zip(ordered, options, strict=True)]


def _some(steps: tuple[int, ...]) -> tuple[int, ...]:
    """At most so many of the allowed cuts, evenly taken, none and the largest among them."""
    if len(steps) <= _MOST_WIDTHS + 1:
        return steps
    return tuple(steps[round(index * (len(steps) - 1) / _MOST_WIDTHS)] for index in range(_MOST_WIDTHS + 1))


def _ordered(module: nn.Module, group: Group, readers: Mapping[str, Reader]) -> Scored:
    """The group's units scored by their place (0, 1, ...) in the order in which they are to go."""
    prunable, raw = group
    columns = reads(module, raw)
    behind = [(readers[name], by_channel) for name, by_channel in columns.items() if name in readers]
    count = len(prunable.units)
    if not behind:
        return plain_scores([group], kind="magnitude", seed=0)[0]
    surgeons = [_Surgeon.of(reader, _unit_columns(prunable.units, by_channel)) for reader, by_channel in behind]
    alive = torch.ones(count, dtype=torch.bool)
    places = torch.zeros(count, dtype=torch.float64)
    chunk, done = math.ceil(count / _CHUNKS), 0
    while done < count:
        costs = sum((surgeon.costs(alive) for surgeon in surgeons), torch.zeros(count, dtype=torch.float64))
        costs[~alive] = torch.inf
        for unit in torch.argsort(costs, stable=True)[: min(chunk, count - done)].tolist():
            places[unit] = done
            alive[unit] = False
            done += 1
            for surgeon in surgeons:
                surgeon.remove(unit)
    return Scored(prunable, places)


def _unit_columns(units: Sequence[Sequence[int]], by_channel: Mapping[int, Sequence[int]]) -> list[torch.Tensor]:
    return [
        torch.tensor(sorted({column for channel in unit for column in by_channel.get(channel, ())}), dtype=torch.long)
        for unit in units
    ]


@dataclass
class _Surgeon:
    """Takes inputs away from one layer and keeps the rest at the best weights; all is changed in place."""

    inverse: torch.Tensor
    weights: torch.Tensor
    columns: list[torch.Tensor]
    energy: float

    @staticmethod
    def of(reader: Reader, columns: list[torch.Tensor]) -> _Surgeon:
        energy = float(((reader.weights @ reader.powers) * reader.weights).sum())
        return _Surgeon(torch.linalg.inv(reader.powers), reader.weights.clone(), columns, max(energy, 1e-12))

    def costs(self, alive: torch.Tensor) -> torch.Tensor:
        """By unit: the squared error that its loss would leave, relative to the layer's whole output."""
        found = torch.zeros(len(self.columns), dtype=torch.float64)
        for unit, columns in enumerate(self.columns):
            if alive[unit] and len(columns):
                weights = self.weights[:, columns]
                own = self.inverse[columns[:, None], columns]
                found[unit] = (torch.linalg.solve(own, weights.T) * weights.T).sum() / self.energy
        return found

    def remove(self, unit: int) -> None:
        columns = self.columns[unit]
        if not len(columns):
            return
        across = torch.linalg.solve(self.inverse[columns[:, None], columns], self.inverse[columns])
        self.weights -= self.weights[:, columns] @ across
        self.inverse -= self.inverse[:, columns] @ across
        self.weights[:, columns] = 0.0
        # Kept invertible where the unit is asked for no more.
        self.inverse[columns], self.inverse[:, columns] = 0.0, 0.0


def _priced(trial: _Trial, item: Scored, options: Sequence[int]) -> Scored:
    """The units with scores that add up to the change of the outputs and never fall in the units' order."""
    from sklearn.isotonic import isotonic_regression

    changes = [0.0, *(_change(trial, item, count) for count in options[1:])]
    widths = [after - before for before, after in pairwise(options)]
    slopes = [
        max(0.0, after - before) / width for (before, after), width in zip(pairwise(changes), widths, strict=True)
    ]
    order = item.order
    scores = torch.zeros(len(order), dtype=torch.float64)
    if slopes:
        even = isotonic_regression(slopes, sample_weight=widths)
        place = 0
        for slope, width in zip(even, widths, strict=True):
            for _ in range(width):
                # Equal ones keep their order.
                scores[order[place]] = float(slope) * (1.0 + 1e-6 * place) + 1e-12 * place
                place += 1
        last = float(even[-1])
        for rest in range(place, len(order)):
            scores[order[rest]] = max(last, 1e-12) * (1.0 + 1e-6 * rest) + 1e-12 * rest
    return Scored(item.group, scores)


def _change(trial: _Trial, item: Scored, count: int) -> float:
    """Relative squared change of the outputs where the first ``count`` units are gone."""
    group = item.group
    indices = tuple(sorted(index for unit in item.order[:count] for index in group.units[unit]))
    cut = Cut(0, group.region, group.layer, indices)
    # Only the parts of the state that belong to the group change, but which these are is torch-pruning's business.
    before = {name: value.clone() for name, value in trial.module.state_dict().items()}
    try:
        _mend(trial, cut)
        prune_graph.zero_channels(trial.module, trial.graphs, [cut])
        with trial.picks.taken():
            outputs = prune_graph.tensors_of(trial.module(trial.pictures))
    finally:
        trial.module.load_state_dict(before)
    change = sum(
        (
            float((one - other).square().mean() / spread)
            for one, other, spread in zip(outputs, trial.outputs, trial.spreads, strict=True)
        ),
        0.0,
    )
    return change if math.isfinite(change) else torch.finfo(torch.float32).max


def _mend(trial: _Trial, cut: Cut) -> None:
    """New weights for the layers behind the channels of ``cut``."""
    raw = prune_graph.group_of(trial.graphs[cut.region], trial.module, cut)
    for name, by_channel in reads(trial.module, raw).items():
        if name not in trial.readers:
            continue
        gone = sorted({column for columns in by_channel.values() for column in columns})
        layer: Any = trial.module.get_submodule(name)
        found = solved_without(trial.readers[name], torch.tensor(gone, dtype=torch.long))
        layer.weight.copy_(found[:, : layer.weight[0].numel()].reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(found[:, -1])
