"""Structured pruning: whole channels go, so every engine gets a smaller, dense network.

The result needs no pickle: a history of cuts turns a fresh build of the same source into the
same shapes (`replay`), and a safetensors file fills them.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Batches
from edgecv.core.recipe import FamilySpec, Prune
from edgecv.errors import ModelError
from edgecv.models.weights import load_module_state, save_module_state
from edgecv.optimize import prune_graph
from edgecv.optimize.batches import make_batches
from edgecv.optimize.finetune import TrainSet
from edgecv.optimize.importance import Group, plain_scores, taylor_scores
from edgecv.optimize.latency_table import make_table
from edgecv.optimize.prune_graph import Cut, Region
from edgecv.optimize.prune_latency import LatencyGoal, LatencyOutcome, LatencyPlanner, allowed_widths, fitted_counts
from edgecv.optimize.prune_layers import narrowable_layers
from edgecv.optimize.prune_plan import Counts, Limits, Scored, first_enough, planned_counts, planned_cuts
from edgecv.optimize.prune_repair import repair_readers

__all__ = [
    "PruneResult",
    "count_macs",
    "example_input",
    "load_module_state",
    "prune",
    "replay",
    "save_module_state",
    "taylor_batches",
]

_ROUND_TO = 8
_SHARES = 1024
"""Steps of the search for the share of channels that gives the wanted speed-up."""


@dataclass(frozen=True)
class PruneResult:
    """A smaller network and how it came about.

    ``module`` is a new module in evaluation mode; ``history`` holds plain values (JSON) for `replay`.
    ``macs_*`` are multiply-accumulates of one picture, ``params_*`` trained values; ``layers`` the output
    channels of each convolution and linear layer, before and after. ``latency`` is there where times decided.
    """

    module: nn.Module
    history: tuple[dict[str, Any], ...]
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    layers: dict[str, tuple[int, int]]
    latency: LatencyOutcome | None = None

    @property
    def speedup(self) -> float:
        """MACs before / after, >= 1."""
        return self.macs_before / self.macs_after


@dataclass(frozen=True)
class _Job:
    step: Prune
    family: FamilySpec
    example: torch.Tensor
    limits: Limits
    regions: tuple[Region, ...]
    usable: frozenset[tuple[str, str]]
    batches: Batches | None = None
    seed: int = 0
    progress: Progress = field(default_factory=SilentProgress)
    timing: _Timing | None = None


@dataclass(frozen=True)
class _Timing:
    """The network before the cuts and its time, and what is wanted."""

    goal: LatencyGoal
    original: nn.Module
    before_ms: float
    wanted_ms: float


def example_input(contract: InputContract) -> torch.Tensor:
    """Zeros `(1, C, H, W)` float32 of the contract's size."""
    return torch.zeros(1, contract.channels, *contract.size)


def count_macs(module: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions, matrix products and attention for the input ``example``."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(example)
    return int(counter.get_total_flops()) // 2


def taylor_batches(data: TrainSet, *, samples: int, seed: int, batch_size: int = 32) -> Batches:
    """At most ``samples`` pictures of the training set, drawn at random by ``seed``, for Taylor importance."""
    count = len(data.reader)
    chosen = np.random.default_rng(seed).permutation(count)[: min(samples, count)]
    indices = sorted(int(index) for index in chosen)
    return make_batches(data.reader, data.contract, batch_size=batch_size, indices=indices).fixed()


def prune(
    module: nn.Module,
    *,
    step: Prune,
    contract: InputContract,
    family: FamilySpec,
    batches: Batches | None = None,
    seed: int = 0,
    goal: LatencyGoal | None = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Cut the least important channels of a copy of ``module``.

    With ``step.speedup`` the smallest cut whose MACs before / after reach it; with ``step.ratio`` that
    share of channels; by latency the cut that loses the least importance and meets the time on the engine
    of ``goal``. The family's heads, ``step.protect`` and whatever cannot be cut without changing
    what the network computes keep their widths. ``batches`` (training samples) are needed for Taylor
    importance and for ``step.repair``. Without ``step.round_to`` channel counts are multiples of 8.

    The measures of importance and their sources are in `edgecv.optimize.importance`.

    Raises:
        ModelError: the speed-up or time cannot be reached, nothing can be cut, or the network cannot be traced.
        ToolchainError: by latency, and the engine refuses the network or one of its layers.
    """
    wishes = {"speedup": step.speedup, "ratio": step.ratio, "latency_ms": step.latency_ms}
    if sum(value is not None for value in wishes.values()) != 1:
        given = ", ".join(f"{name} ({value})" for name, value in wishes.items())
        raise ModelError(f"prune needs exactly one of {given}")
    if step.repair and batches is None:
        raise ModelError("repair needs training samples; set data.train, or repair: false")
    if step.by_latency and (goal is None or step.ratio is not None):
        raise ModelError("pruning by latency needs a target that can be measured here, and speedup or latency_ms")
    if step.importance == "taylor" and batches is None:
        raise ModelError("taylor importance needs training samples; set data.train, or use importance: magnitude")
    progress = progress or SilentProgress()
    example = example_input(contract)
    original = copy.deepcopy(module).cpu().eval()
    job = _job(original, step=step, family=family, example=example, round_to=step.round_to or _ROUND_TO)
    job = replace(job, batches=batches, seed=seed, progress=progress)
    if step.by_latency and goal is not None:
        job = replace(job, timing=_timing(original, step, goal, example))
    macs_before = count_macs(original, example)
    history: list[Cut] = []
    outcome: LatencyOutcome | None = None
    current = copy.deepcopy(original)
    with progress.task("prune", step.steps) as task:
        for index in range(step.steps):
            if job.timing is not None:
                cuts, outcome = _latency_round(current, job, job.timing, index)
            else:
                cuts = _round(current, job, index, macs_before)
            current = _checked(current, job, cuts)
            history += cuts
            if step.repair and batches is not None:
                repair_readers(original, current, batches=batches)
            task.advance(1, note=f"{count_macs(current, example) / macs_before:.0%} of the MACs left")
    return PruneResult(
        module=current,
        history=tuple(cut.to_dict() for cut in history),
        macs_before=macs_before,
        macs_after=count_macs(current, example),
        params_before=_parameters(original),
        params_after=_parameters(current),
        layers=_widths(original, current),
        latency=outcome,
    )


def replay(module: nn.Module, example: torch.Tensor, history: Sequence[Mapping[str, Any]]) -> nn.Module:
    """A fresh build of the same network (``module``, any weights) brought to the shapes of a pruned one.

    ``example`` is an input `(1, C, H, W)`; ``history`` that of `PruneResult`, or of several prune steps one
    after the other. Gives a new module in evaluation mode, to be filled with the pruned network's weights.

    Raises:
        ModelError: the history does not fit the network.
    """
    current = copy.deepcopy(module).eval()
    try:
        cuts = [Cut.from_dict(raw) for raw in history]
        regions = _regions_of(current, example, cuts)
        for together in _batches(cuts):
            current = _cut(current, regions, together)
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"the pruning history does not fit this network ({error}); it was made for another version of the "
            "model's source. Run the prune step again."
        ) from error
    return current


def _job(original: nn.Module, *, step: Prune, family: FamilySpec, example: torch.Tensor, round_to: int) -> _Job:
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
    return _Job(step, family, example, limits, tuple(regions), frozenset(keys))


def _timing(original: nn.Module, step: Prune, goal: LatencyGoal, example: torch.Tensor) -> _Timing:
    before_ms = goal.meter.networks_ms([original], example)[0]
    if step.latency_ms is not None and step.latency_ms >= before_ms:
        raise ModelError(
            f"latency_ms {step.latency_ms:g} is met without pruning: the network takes {before_ms:.3f} ms on "
            f"{goal.name} (float, batch 1). Lower latency_ms, or leave the prune step out."
        )
    return _Timing(goal, original, before_ms, step.latency_ms or before_ms / (step.speedup or 1.0))


def _latency_round(current: nn.Module, job: _Job, timing: _Timing, index: int) -> tuple[list[Cut], LatencyOutcome]:
    """The cuts of one round that meet its share of the wanted time, and what they gave."""
    step, meter = job.step, timing.goal.meter
    scored, work, groups = _scores(current, job)
    layers = narrowable_layers(work, groups, example=job.example)
    table = make_table(layers, allowed_widths(scored, job.limits), meter=meter, cache=timing.goal.cache)

    def measure(counts: Counts) -> float:
        cut = _cut(current, job.regions, planned_cuts(scored, counts, round_index=index))
        # Both in turn: what else the machine does now falls on both.
        before_ms, after_ms = meter.networks_ms([timing.original, cut], job.example)
        return timing.before_ms * after_ms / before_ms

    none = tuple(0 for _ in scored)
    planner = LatencyPlanner.of(scored, job.limits, table, network_ms=timing.before_ms if index == 0 else measure(none))
    done = (index + 1) / step.steps
    wanted_ms = timing.before_ms * (timing.wanted_ms / timing.before_ms) ** done
    found = fitted_counts(planner, wanted_ms=wanted_ms, scope=step.scope, measure=measure, progress=job.progress)
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


def _round(current: nn.Module, job: _Job, index: int, macs_before: int) -> list[Cut]:
    """The cuts of one round."""
    step = job.step
    scored, _, _ = _scores(current, job)
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
    known: dict[Counts, float] = {}

    @cache
    def plan(number: int) -> Counts:
        return planned_counts(scored, share=number / _SHARES, scope=step.scope, limits=job.limits)

    def reached(counts: Counts) -> float:
        if counts not in known:
            cuts = planned_cuts(scored, counts, round_index=index)
            known[counts] = macs_before / count_macs(_cut(current, job.regions, cuts), job.example)
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


def _scores(current: nn.Module, job: _Job) -> tuple[list[Scored], nn.Module, list[Group]]:
    """Importance of every channel that can be cut; the copy that was looked at, and its groups."""
    step = job.step
    work = copy.deepcopy(current)
    groups = [
        (group, raw)
        for region in job.regions
        for group, raw in prune_graph.groups_of(work, region, protected=frozenset())
        if (group.region, group.layer) in job.usable
    ]
    if step.importance != "taylor":
        scored = plain_scores(groups, kind=step.importance, seed=job.seed)
    else:
        assert job.batches is not None  # checked by the caller
        scored = taylor_scores(work, groups, batches=job.batches, family=job.family)
    if not scored:
        raise ModelError(
            f"importance {job.step.importance} finds no channels to rank (bn-scale needs batch norm); use magnitude"
        )
    return scored, work, groups


def _cut(module: nn.Module, regions: Sequence[Region], cuts: Sequence[Cut]) -> nn.Module:
    smaller = copy.deepcopy(module)
    prune_graph.cut_channels(smaller, regions, cuts)
    smaller.zero_grad(set_to_none=True)
    return smaller.eval()


def _checked(before: nn.Module, job: _Job, cuts: Sequence[Cut]) -> nn.Module:
    """``before`` without the channels of ``cuts``, after one more trial of exactly these cuts."""
    after = _cut(before, job.regions, cuts)
    with torch.no_grad():
        same_shapes = prune_graph.shapes(before(job.example)) == prune_graph.shapes(after(job.example))
    if not same_shapes or not prune_graph.is_sound(before, job.regions, cuts, example=job.example):
        layers = ", ".join(cut.layer for cut in cuts[:8])
        raise ModelError(
            f"pruning {type(before).__name__} gave a network that computes something else (cut: {layers}, ...); "
            "name these layers under protect, or leave the prune step out."
        )
    return after


def _batches(cuts: Sequence[Cut]) -> list[list[Cut]]:
    """Cuts that were made at once; each layer is cut at most once in a round."""
    batches: list[list[Cut]] = []
    seen: set[tuple[int, str, str]] = set()
    for cut in cuts:
        key = (cut.round, cut.region, cut.layer)
        if not batches or batches[-1][-1].round != cut.round or key in seen:
            batches.append([])
            seen = set()
        seen.add(key)
        batches[-1].append(cut)
    return batches


def _regions_of(module: nn.Module, example: torch.Tensor, cuts: Sequence[Cut]) -> list[Region]:
    names = {cut.region for cut in cuts}
    if names <= {""}:
        return [Region("", example)]
    inputs = prune_graph.region_inputs(module, example)
    return [Region(name, inputs[name]) for name in sorted(names)]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _widths(original: nn.Module, pruned: nn.Module) -> dict[str, tuple[int, int]]:
    found = {}
    for name, layer in original.named_modules():
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
            other: Any = pruned.get_submodule(name)
            found[name] = int(layer.weight.shape[0]), int(other.weight.shape[0])
    return found
