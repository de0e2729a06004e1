"""Which channels go so that the network meets a time on a real engine, with the least importance lost.

Latency tables on the target engine instead of MACs: Yang et al. 2018, NetAdapt, arXiv:1804.03230; importance per
time saved under a latency budget: Shen et al. 2022, HALP, arXiv:2110.10811. The table's sum is held
against a measurement of the whole cut network, and the plan is made again with what was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgecv.core.progress import Progress
from edgecv.optimize.latency_table import Meter
from edgecv.optimize.prune_layers import Costs, Key
from edgecv.optimize.prune_plan import Counts, Limits, Scored, first_enough, planned_counts

__all__ = ["LATENCY_TOLERANCE", "LatencyGoal", "LatencyOutcome", "LatencyPlanner", "allowed_widths", "fitted_counts"]

_ATTEMPTS = 3
LATENCY_TOLERANCE = 1.01
"""A measured time this much above the wanted one is still met: the medians differ by as much from run to run."""
_UNDER = 0.95
"""Below this share of the wanted time more was cut than needed."""
_SHARES = 1024
_LEAST_GAIN_MS = 1e-6
_LEAST_REST = 0.02
"""Share of the whole network's time that is taken to be outside of its layers, at the least."""


@dataclass(frozen=True)
class LatencyGoal:
    """What takes the times and where they are kept; ``name`` is the target's, for messages."""

    name: str
    meter: Meter
    cache: Path | None = None


@dataclass(frozen=True)
class LatencyOutcome:
    """Milliseconds at batch 1 on the target's engine, float: before and after by measurement of the whole networks
    in turn, what was wanted, what the table had said for the final cut, and how many layer widths it holds."""

    target: str
    before_ms: float
    wanted_ms: float
    after_ms: float
    predicted_ms: float
    points: int

    @property
    def met(self) -> bool:
        """Whether the measured time is the wanted one or below, within 1 %."""
        return self.after_ms <= self.wanted_ms * LATENCY_TOLERANCE

    @property
    def error(self) -> float:
        """Predicted / measured - 1."""
        return self.predicted_ms / self.after_ms - 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for reports."""
        rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**rounded, "prediction_error": round(self.error, 4), "met": self.met}


def allowed_widths(scored: Sequence[Scored], limits: Limits) -> dict[Key, tuple[int, ...]]:
    """By group: every width that ``limits`` allow, ascending; the last is the present one."""
    found = {}
    for item in scored:
        found[item.key] = tuple(sorted(item.group.channels - _channels(item, cut) for cut in limits.steps(item)))
    return found


@dataclass(frozen=True)
class LatencyPlanner:
    """Plans the cuts of one round. ``rest_ms`` is the time of the network outside of the table's layers.

    With a table of `edgecv.optimize.prune_layers.MacCosts` all milliseconds are multiply-accumulates.
    """

    scored: Sequence[Scored]
    limits: Limits
    table: Costs
    rest_ms: float

    @staticmethod
    def of(scored: Sequence[Scored], limits: Limits, table: Costs, *, network_ms: float) -> LatencyPlanner:
        """A planner for a network that takes ``network_ms`` as a whole."""
        rest_ms = max(network_ms - table.total_cost({}), network_ms * _LEAST_REST)
        return LatencyPlanner(scored, limits, table, rest_ms)

    def predicted_ms(self, counts: Counts) -> float:
        """The network's time where ``counts`` units of each group are gone."""
        return self.rest_ms + self.table.total_cost(self._shares(counts))

    def lost(self, counts: Counts) -> float:
        """Sum of the importance of the units that go."""
        return sum(
            float(item.scores[list(item.order[:count])].sum()) for item, count in zip(self.scored, counts, strict=True)
        )

    def plan(self, wanted_ms: float, *, scope: Literal["global", "uniform"]) -> Counts | None:
        """Units to cut of each group so that the predicted time is ``wanted_ms`` or less; None where it cannot be.

        ``global`` cuts where the least importance goes for each millisecond; ``uniform`` the same share of each.
        """
        if scope == "uniform":
            return first_enough(
                lambda number: planned_counts(self.scored, share=number / _SHARES, scope="uniform", limits=self.limits),
                _SHARES,
                enough=lambda counts: self.predicted_ms(counts) <= wanted_ms,
            )
        return self._greedy(wanted_ms)

    def least_ms(self) -> float:
        """The predicted time where everything that may go is gone."""
        return self.predicted_ms(tuple(options[-1] for options in self._options()))

    def _greedy(self, wanted_ms: float) -> Counts | None:
        options = self._options()
        sums = [_running(item) for item in self.scored]
        touched = [
            [place for place, layer in enumerate(self.table.layers) if item.key in layer.keys] for item in self.scored
        ]
        counts = [0] * len(self.scored)
        total_ms = self.predicted_ms(tuple(counts))
        while total_ms > wanted_ms:
            best: tuple[float, int, int, float] | None = None
            shares = self._shares(tuple(counts))
            for index, item in enumerate(self.scored):
                now_ms = sum(self.table.layer_cost(place, shares) for place in touched[index])
                for option in options[index]:
                    if option <= counts[index]:
                        continue
                    trial = {**shares, item.key: _channels(item, option) / item.group.channels}
                    saved_ms = now_ms - sum(self.table.layer_cost(place, trial) for place in touched[index])
                    if saved_ms < _LEAST_GAIN_MS:
                        continue
                    # What saves more than is needed is worth no more than what is needed.
                    useful_ms = min(saved_ms, total_ms - wanted_ms)
                    price = (sums[index][option] - sums[index][counts[index]]) / useful_ms
                    if best is None or price < best[0]:
                        best = price, index, option, saved_ms
            if best is None:
                return None
            counts[best[1]] = best[2]
            total_ms -= best[3]
        return self._restored(counts, options, sums, wanted_ms)

    def _restored(
        self, counts: list[int], options: Sequence[Sequence[int]], sums: Sequence[Sequence[float]], wanted_ms: float
    ) -> Counts:
        """Take back cuts that later ones have made needless, the most important first."""
        for index in sorted(range(len(counts)), key=lambda place: -sums[place][counts[place]]):
            for option in (0, *options[index]):
                if option >= counts[index]:
                    break
                trial = (*counts[:index], option, *counts[index + 1 :])
                if self.predicted_ms(trial) <= wanted_ms:
                    counts[index] = option
                    break
        return tuple(counts)

    def _options(self) -> list[tuple[int, ...]]:
        """By group: every allowed number of units to cut, ascending, at least (0,)."""
        return [self.limits.steps(item) for item in self.scored]

    def _shares(self, counts: Counts) -> dict[Key, float]:
        return {
            item.key: _channels(item, count) / item.group.channels
            for item, count in zip(self.scored, counts, strict=True)
            if count
        }


def fitted_counts(
    planner: LatencyPlanner,
    *,
    wanted_ms: float,
    scope: Literal["global", "uniform"],
    measure: Callable[[Counts], float],
    progress: Progress,
) -> tuple[Counts, float] | None:
    """A plan whose measured time is ``wanted_ms`` or less, with that time; None where the table says it cannot be.

    ``measure`` gives the milliseconds of the whole network after a cut. Where it differs from the prediction
    by more than the noise, the wanted prediction is moved by what the cuts really save, a few
    times over; of the plans that meet the time the one that loses the least is taken, else the fastest.
    """
    before_ms = planner.predicted_ms(tuple(0 for _ in planner.scored))
    goal_ms, tried = wanted_ms, {}
    for _ in range(_ATTEMPTS):
        counts = planner.plan(goal_ms, scope=scope)
        if counts is None or counts in tried:
            break
        tried[counts] = measure(counts)
        predicted_ms, found_ms = planner.predicted_ms(counts), tried[counts]
        progress.line(f"  predicted {predicted_ms:.3f} ms, measured {found_ms:.3f} ms, wanted {wanted_ms:.3f} ms")
        if wanted_ms * _UNDER <= found_ms <= wanted_ms * LATENCY_TOLERANCE or before_ms <= wanted_ms:
            break
        real = (before_ms - found_ms) / max(before_ms - predicted_ms, 1e-9)
        goal_ms = before_ms - (before_ms - wanted_ms) / min(max(real, 0.25), 4.0)
    if not tried:
        return None
    met = {counts: ms for counts, ms in tried.items() if ms <= wanted_ms * LATENCY_TOLERANCE}
    chosen = min(met, key=planner.lost) if met else min(tried, key=lambda item: tried[item])
    return chosen, tried[chosen]


def _channels(item: Scored, units: int) -> int:
    return sum(len(item.group.units[index]) for index in item.order[:units])


def _running(item: Scored) -> list[float]:
    """Importance that is lost with the first 0, 1, 2, ... units."""
    sums = [0.0]
    for index in item.order:
        sums.append(sums[-1] + float(item.scores[index]))
    return sums
