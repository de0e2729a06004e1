"""Structured pruning: whole channels go, so every engine gets a smaller, dense network.

The result needs no pickle: a history of cuts turns a fresh build of the same source into the
same shapes (`replay`), and a safetensors file fills them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Batches
from edgecv.core.recipe import FamilySpec, Prune
from edgecv.errors import ModelError
from edgecv.models.weights import load_module_state, save_module_state
from edgecv.optimize import prune_graph
from edgecv.optimize.batches import make_batches
from edgecv.optimize.finetune import TrainSet
from edgecv.optimize.prune_graph import Cut, Region
from edgecv.optimize.prune_latency import LatencyGoal, LatencyOutcome
from edgecv.optimize.prune_repair import repair_readers
from edgecv.optimize.prune_rounds import checked, count_macs, latency_round, mac_round, make_job, make_timing, without

__all__ = [
    "PruneResult",
    "count_macs",
    "decided_by_data",
    "example_input",
    "load_module_state",
    "prune",
    "replay",
    "save_module_state",
    "taylor_batches",
]

_ROUND_TO = 8


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


def example_input(contract: InputContract) -> torch.Tensor:
    """Zeros `(1, C, H, W)` float32 of the contract's size."""
    return torch.zeros(1, contract.planes, *contract.size)


def taylor_batches(data: TrainSet, *, samples: int, seed: int, batch_size: int = 32) -> Batches:
    """At most ``samples`` pictures of the training set, drawn at random by ``seed``, for Taylor importance."""
    count = len(data.reader)
    chosen = np.random.default_rng(seed).permutation(count)[: min(samples, count)]
    indices = sorted(int(index) for index in chosen)
    return make_batches(data.reader, data.contract, batch_size=batch_size, indices=indices).fixed()


def decided_by_data(step: Prune, *, pictures: bool) -> Prune:
    """``step`` with what it leaves open: importance by the outputs and repair where there are ``pictures`` to look at,
    else by the weights' magnitude and no repair."""
    return replace(
        step,
        importance=("output" if pictures else "magnitude") if step.importance == "auto" else step.importance,
        repair=pictures if step.repair is None else step.repair,
    )


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
    what the network computes keep their widths. ``batches`` (training samples) are needed for output and Taylor
    importance and for ``step.repair``; where the step leaves these open, they decide (`decided_by_data`).
    Without ``step.round_to`` channel counts are multiples of 8.

    The measures of importance and their sources are in `edgecv.optimize.importance` and `output_importance`.

    Raises:
        ModelError: the speed-up or time cannot be reached, nothing can be cut, or the network cannot be traced.
        ToolchainError: by latency, and the engine refuses the network or one of its layers.
    """
    step = decided_by_data(step, pictures=batches is not None)
    _check(step, batches, goal)
    progress = progress or SilentProgress()
    example = example_input(contract)
    original = copy.deepcopy(module).cpu().eval()
    job = make_job(original, step=step, family=family, example=example, round_to=step.round_to or _ROUND_TO)
    job = replace(job, batches=batches, seed=seed, progress=progress)
    if step.by_latency and goal is not None:
        job = replace(job, timing=make_timing(original, step, goal, example))
    macs_before = count_macs(original, example)
    history: list[Cut] = []
    outcome: LatencyOutcome | None = None
    current = copy.deepcopy(original)
    with progress.task("prune", step.steps) as task:
        for index in range(step.steps):
            if job.timing is not None:
                cuts, outcome = latency_round(current, job, job.timing, index)
            else:
                cuts = mac_round(current, job, index, macs_before)
            current = checked(current, job, cuts)
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


def _check(step: Prune, batches: Batches | None, goal: LatencyGoal | None) -> None:
    """Refuse what cannot be done before anything is computed."""
    wishes = {"speedup": step.speedup, "ratio": step.ratio, "latency_ms": step.latency_ms}
    if sum(value is not None for value in wishes.values()) != 1:
        given = ", ".join(f"{name} ({value})" for name, value in wishes.items())
        raise ModelError(f"prune needs exactly one of {given}")
    if step.repair and batches is None:
        raise ModelError("repair needs training samples; set data.train, or repair: false")
    if step.by_latency and (goal is None or step.ratio is not None):
        raise ModelError("pruning by latency needs a target that can be measured here, and speedup or latency_ms")
    if step.importance in ("taylor", "output") and batches is None:
        raise ModelError(
            f"{step.importance} importance needs training samples; set data.train, or use importance: magnitude"
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
            current = without(current, regions, together)
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"the pruning history does not fit this network ({error}); it was made for another version of the "
            "model's source. Run the prune step again."
        ) from error
    return current


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
