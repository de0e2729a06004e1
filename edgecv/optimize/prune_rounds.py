"""One round of pruning: what can be cut, how much it matters, and the cuts that meet the goal."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from edgecv import families
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Batches
from edgecv.core.recipe import FamilySpec, Prune
from edgecv.errors import ModelError
from edgecv.optimize import prune_graph
from edgecv.optimize.importance import Group, plain_scores, taylor_scores
from edgecv.optimize.latency_table import make_table
from edgecv.optimize.output_importance import output_scores
from edgecv.optimize.prune_graph import Cut, Region
from edgecv.optimize.prune_latency import (
    LATENCY_TOLERANCE,
    LatencyGoal,
    LatencyOutcome,
    LatencyPlanner,
    allowed_widths,
    fitted_counts,
)
from edgecv.optimize.prune_layers import MacCosts, narrowable_layers
from edgecv.optimize.prune_plan import Counts, Limits, Scored, first_enough, planned_counts, planned_cuts
from edgecv.optimize.prune_repair import repair_readers

__all__ = [
    "Job",
    "Timing",
    "checked",
    "count_macs",
    "latency_round",
    "mac_round",
    "make_job",
    "make_timing",
    "outputs_apart",
    "without",
]

_ATTEMPTS = 4
_COMPARABLE = ("output", "taylor")
"""Measures that compare the channels of different layers: what is lost for each multiply-accumulate can be weighed."""
_SHARES = 1024
"""Steps of the search for the share of channels that gives the wanted speed-up."""


@dataclass(frozen=True)
class Job:
    """What a prune step is given, and what it found out about the network: the same in every round."""

    step: Prune
    family: FamilySpec
    example: torch.Tensor
    limits: Limits
    regions: tuple[Region, ...]
    usable: frozenset[tuple[str, str]]
    batches: Batches | None = None
    seed: int = 0
    progress: Progress = field(default_factory=SilentProgress)
    timing: Timing | None = None


@dataclass(frozen=True)
class Timing:
    """The network before the cuts and its time, and what is wanted."""

    goal: LatencyGoal
    original: nn.Module
    before_ms: float
    wanted_ms: float


def count_macs(module: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions, matrix products and attention for the input ``example``."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(example)
    return int(counter.get_total_flops()) // 2


def make_job(original: nn.Module, *, step: Prune, family: FamilySpec, example: torch.Tensor, round_to: int) -> Job:
    """Find out what can be cut."""
    protected = set(families.get(family.kind).protected(original))
    names = [name for name, _ in original.named_modules()]
    for pattern in step.protect:
        matches = [name for name in names if name and fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise ModelError(f"protect: {pattern!r} fits no layer; the first names are {', '.join(names[1:9])}")
        protected.update(matches)
        protected.update(name for name in names if any(name.startswith(match + ".") for match in matches))
    regions = prune_graph.find_regions(original, example)
    work = copy.deepcopy(original)
    found = [
        group for region in regions for group, _ in prune_graph.groups_of(work, region, protected=frozenset(protected))
    ]
    usable = prune_graph.sound_groups(original, regions, found, example=example)
    if not usable:
        raise ModelError(
            f"no layer of {type(original).__name__} can be pruned ({len(found)} groups of channels were found and "
            "none can be cut without changing what the network computes). Leave the prune step out."
        )
    keys = {(group.region, group.layer): group.channels for group in usable}
    limits = Limits(round_to=round_to, max_layer_ratio=step.max_layer_ratio, originally=keys)
    return Job(step, family, example, limits, tuple(regions), frozenset(keys))


def make_timing(original: nn.Module, step: Prune, goal: LatencyGoal, example: torch.Tensor) -> Timing:
    """The network's time now and the one that is wanted, by ``step``; ``example`` is an input `(1, C, H, W)`.

    Raises:
        ModelError: the wanted time is met already.
        ToolchainError: the engine refuses the network.
    """
    before_ms = goal.meter.networks_ms([original], example)[0]
    if step.latency_ms is not None and step.latency_ms >= before_ms:
        raise ModelError(
            f"latency_ms {step.latency_ms:g} is met without pruning: the network takes {before_ms:.3f} ms on "
            f"{goal.name} (float, batch 1). Lower latency_ms, or leave the prune step out."
        )
    return Timing(goal, original, before_ms, step.latency_ms or before_ms / (step.speedup or 1.0))


def latency_round(current: nn.Module, job: Job, timing: Timing, index: int) -> tuple[list[Cut], LatencyOutcome]:
    """The cuts of one round that meet its share of the wanted time, and what they gave."""
    step, meter = job.step, timing.goal.meter
    scored, work, groups = _scores(current, job)
    layers = narrowable_layers(work, groups, example=job.example)
    table = make_table(layers, allowed_widths(scored, job.limits), meter=meter, cache=timing.goal.cache)

    def measure(counts: Counts) -> float:
        smaller = without(current, job.regions, planned_cuts(scored, counts, round_index=index))
        # Both in turn: what else the machine does now falls on both.
        before_ms, after_ms = meter.networks_ms([timing.original, smaller], job.example)
        return timing.before_ms * after_ms / before_ms

    none = tuple(0 for _ in scored)
    planner = LatencyPlanner.of(scored, job.limits, table, network_ms=timing.before_ms if index == 0 else measure(none))
    done = (index + 1) / step.steps
    wanted_ms = timing.before_ms * (timing.wanted_ms / timing.before_ms) ** done
    found = _better_plan(current, job, planner, wanted_ms=wanted_ms, measure=measure, index=index)
    if found is None:
        raise ModelError(
            f"{wanted_ms:.3f} ms on {timing.goal.name} cannot be reached: {timing.before_ms:.3f} ms now, at the least "
            f"{planner.least_ms():.3f} ms with max_layer_ratio {step.max_layer_ratio} and channel counts in multiples "
            f"of {job.limits.round_to}. Ask for less, raise max_layer_ratio, or protect fewer layers."
        )
    counts, after_ms = found
    outcome = LatencyOutcome(
        timing.goal.name, timing.before_ms, timing.wanted_ms, after_ms, planner.predicted_ms(counts), table.points
    )
    return planned_cuts(scored, counts, round_index=index), outcome


def _better_plan(
    current: nn.Module,
    job: Job,
    planner: LatencyPlanner,
    *,
    wanted_ms: float,
    measure: Callable[[Counts], float],
    index: int,
) -> tuple[Counts, float] | None:
    """The plan of the step's scope with its measured time; of a global one that is compared with the uniform plan.

    A table of times is noisy, and sums of importance only guess what is lost together. So with pictures at hand both
    networks are made and repaired, and of those that meet the time the one whose outputs changed less is taken.
    """
    step = job.step

    def fitted(scope: Literal["global", "uniform"]) -> tuple[Counts, float] | None:
        return fitted_counts(planner, wanted_ms=wanted_ms, scope=scope, measure=measure, progress=job.progress)

    found = fitted(step.scope)
    if found is None or step.scope == "uniform" or job.batches is None:
        return found
    other = fitted("uniform")
    if other is None or other[0] == found[0]:
        return found
    slower = max(wanted_ms * LATENCY_TOLERANCE, found[1])
    if other[1] > slower:
        return found
    changes = []
    for counts, _ in (found, other):
        smaller = without(current, job.regions, planned_cuts(planner.scored, counts, round_index=index))
        if step.repair:
            repair_readers(current, smaller, batches=job.batches)
        changes.append(outputs_apart(current, smaller, job.batches))
    job.progress.line(f"  outputs change by {changes[0]:.3f} cut by latency, {changes[1]:.3f} cut evenly")
    return found if changes[0] <= changes[1] else other


def outputs_apart(one: nn.Module, other: nn.Module, batches: Batches) -> float:
    """Power of the difference of two networks' outputs over how far those of ``one`` spread around their mean.

    0 for the same outputs; 1 where ``other`` says no more of a picture than the mean does. ``batches`` are streamed.
    """
    apart, squares, count = 0.0, 0.0, 0
    sums: list[torch.Tensor] = []
    with torch.no_grad():
        for arrays, _ in batches():
            pictures = torch.from_numpy(arrays)
            wanted = [item.double() for item in tree_leaves(one(pictures))]
            given = tree_leaves(other(pictures))
            apart += sum(float((left - right).square().sum()) for left, right in zip(wanted, given, strict=True))
            squares += sum(float(item.square().sum()) for item in wanted)
            count += len(arrays)
            found = [item.sum(dim=0) for item in wanted]
            sums = [known + item for known, item in zip(sums, found, strict=True)] if sums else found
    spread = squares - sum(float(item.square().sum()) for item in sums) / max(1, count)
    return apart / max(spread, 1e-30)


def mac_round(current: nn.Module, job: Job, index: int, macs_before: int) -> list[Cut]:
    """The cuts of one round."""
    step = job.step
    scored, work, groups = _scores(current, job)
    done = (index + 1) / step.steps
    if step.ratio is not None:
        # What rounding spared in an earlier round is made up for.
        originally = sum(job.limits.originally[item.key] for item in scored)
        now = sum(item.group.channels for item in scored)
        share = max(0.0, 1.0 - (1.0 - step.ratio) ** done * originally / now)
        counts = planned_counts(scored, share=share, scope=step.scope, limits=job.limits)
        if not any(counts) and step.steps == 1:
            raise ModelError(
                f"ratio {step.ratio} cuts nothing, because channel counts stay multiples of {job.limits.round_to} and "
                f"no layer loses more than {step.max_layer_ratio:.0%}; raise ratio or lower round_to."
            )
        return planned_cuts(scored, counts, round_index=index)
    assert step.speedup is not None  # checked by the caller
    if step.importance in _COMPARABLE and step.scope == "global":
        layers = narrowable_layers(work, groups, example=job.example)
        found = _least_lost(current, job, scored, MacCosts(tuple(layers)), macs_before / step.speedup**done)
        if found is not None:
            return planned_cuts(scored, found, round_index=index)
    known: dict[Counts, float] = {}

    @cache
    def plan(number: int) -> Counts:
        return planned_counts(scored, share=number / _SHARES, scope=step.scope, limits=job.limits)

    def reached(counts: Counts) -> float:
        if counts not in known:
            cuts = planned_cuts(scored, counts, round_index=index)
            known[counts] = macs_before / count_macs(without(current, job.regions, cuts), job.example)
        return known[counts]

    target = step.speedup**done
    found = first_enough(plan, _SHARES, enough=lambda item: reached(item) >= target)
    if found is None:
        raise ModelError(
            f"speedup {step.speedup} cannot be reached: at most {reached(plan(_SHARES)):.2f} with max_layer_ratio "
            f"{step.max_layer_ratio}, channel counts in multiples of {job.limits.round_to} and {len(scored)} groups of "
            "channels that can be cut. Lower speedup, raise max_layer_ratio, or protect fewer layers."
        )
    return planned_cuts(scored, found, round_index=index)


def _least_lost(
    current: nn.Module, job: Job, scored: Sequence[Scored], costs: MacCosts, wanted: float
) -> Counts | None:
    """The cut that loses the least importance and leaves ``wanted`` multiply-accumulates or less; None: not found."""
    now = count_macs(current, job.example)
    planner = LatencyPlanner(scored, job.limits, costs, now - costs.total_cost({}))
    goal = wanted
    for _ in range(_ATTEMPTS):
        counts = planner.plan(goal, scope="global")
        if counts is None:
            return None
        left = count_macs(without(current, job.regions, planned_cuts(scored, counts, round_index=0)), job.example)
        if left <= wanted:
            return counts
        # Attention and other products that the costs leave out fall less than the layers, or not at all.
        goal -= (left - wanted) * 1.05
    return None


def _scores(current: nn.Module, job: Job) -> tuple[list[Scored], nn.Module, list[Group]]:
    """Importance of every channel that can be cut; the copy that was looked at, and its groups."""
    step = job.step
    work = copy.deepcopy(current)
    groups = [
        (group, raw)
        for region in job.regions
        for group, raw in prune_graph.groups_of(work, region, protected=frozenset())
        if (group.region, group.layer) in job.usable
    ]
    if step.importance == "output":
        assert job.batches is not None  # checked by the caller
        scored = output_scores(
            work,
            job.regions,
            groups,
            batches=job.batches,
            limits=job.limits,
            macs=count_macs(work, job.example),
        )
    elif step.importance != "taylor":
        scored = plain_scores(groups, kind="magnitude" if step.importance == "auto" else step.importance, seed=job.seed)
    else:
        assert job.batches is not None  # checked by the caller
        scored = taylor_scores(work, groups, batches=job.batches, family=job.family)
    if not scored:
        raise ModelError(
            f"importance {job.step.importance} finds no channels to rank (bn-scale needs batch norm); use magnitude"
        )
    return scored, work, groups


def without(module: nn.Module, regions: Sequence[Region], cuts: Sequence[Cut]) -> nn.Module:
    """A copy of ``module`` without the channels of ``cuts``."""
    smaller = copy.deepcopy(module)
    prune_graph.cut_channels(smaller, regions, cuts)
    smaller.zero_grad(set_to_none=True)
    return smaller.eval()


def checked(before: nn.Module, job: Job, cuts: Sequence[Cut]) -> nn.Module:
    """``before`` without the channels of ``cuts``, after one more trial of exactly these cuts."""
    after = without(before, job.regions, cuts)
    with torch.no_grad():
        same_shapes = prune_graph.shapes(before(job.example)) == prune_graph.shapes(after(job.example))
    if not same_shapes or not prune_graph.is_sound(before, job.regions, cuts, example=job.example):
        layers = ", ".join(cut.layer for cut in cuts[:8])
        raise ModelError(
            f"pruning {type(before).__name__} gave a network that computes something else (cut: {layers}, ...); "
            "name these layers under protect, or leave the prune step out."
        )
    return after
