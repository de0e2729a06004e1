"""How much each channel matters, by the published measures that a recipe can name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.protocols import Batches
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.optimize.finetune import family_objective
from edgecv.optimize.prune_graph import Prunable
from edgecv.optimize.prune_plan import Scored

__all__ = ["plain_scores", "taylor_scores"]

Group = tuple[Prunable, Any]
"""A group of channels and torch-pruning's own form of it."""

Kind = Literal["magnitude", "bn-scale", "lamp", "fpgm", "random"]


def plain_scores(groups: Sequence[Group], *, kind: Kind, seed: int) -> list[Scored]:
    """Importance from the weights alone; groups that the measure says nothing about are left out.

    ``magnitude`` group L2 norm (Fang et al., arXiv:2301.12900), ``bn-scale`` (Liu et al. 2017,
    arXiv:1708.06519), ``lamp`` (Lee et al. 2021, arXiv:2010.07611), ``fpgm`` distance to the geometric median
    (He et al. 2019, arXiv:1811.00250), ``random`` by ``seed``.
    """
    import torch_pruning

    kinds: dict[Kind, Callable[[], Callable[[Any], torch.Tensor | None]]] = {
        "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
        "bn-scale": torch_pruning.importance.BNScaleImportance,
        "lamp": torch_pruning.importance.LAMPImportance,
        "fpgm": lambda: _median_distance,
        "random": torch_pruning.importance.RandomImportance,
    }
    importance = kinds[kind]()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        found = [(group, importance(raw)) for group, raw in groups]
    return [_scored(group, scores.detach().double()) for group, scores in found if scores is not None]


def taylor_scores(module: nn.Module, groups: Sequence[Group], *, batches: Batches, family: FamilySpec) -> list[Scored]:
    """Squared first-order change of the loss if a channel went, mean over the samples: one currency for all layers.

    The square is taken for each sample before the mean: in a trained network the gradients of all samples
    together cancel out, and only their spread tells which channels the loss reacts to. Of a family whose loss compares
    samples with each other the batches stay whole. ``groups`` are of ``module``, which is left with gradients.
    Molchanov et al. 2019, arXiv:1906.10771, equation 8.
    """
    import torch_pruning

    importance = torch_pruning.importance.GroupTaylorImportance(normalizer=None, multivariable=True)
    objective = family_objective(family)
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    totals: list[torch.Tensor | None] = [None] * len(groups)
    count = 0
    for arrays, truths in batches() if FAMILY_KINDS[family.kind].compares else _one_by_one(batches):
        targets = torch.from_numpy(truths) if isinstance(truths, np.ndarray) else truths
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        objective.loss(module(torch.from_numpy(arrays)), targets).backward()
        count += 1
        for index, (_, raw) in enumerate(groups):
            change = importance(raw)
            if change is not None:
                squared = change.detach().double().square()
                before = totals[index]
                totals[index] = squared if before is None else before + squared
    return [
        _scored(group, total / count) for (group, _), total in zip(groups, totals, strict=True) if total is not None
    ]


def _one_by_one(batches: Batches) -> Iterator[tuple[FloatArray, Any]]:
    for arrays, truths in batches():
        for index in range(len(arrays)):
            yield arrays[index : index + 1], truths[index : index + 1]


def _median_distance(raw: Any) -> torch.Tensor | None:
    """How far each filter lies from all others of its layer, mean over the layers of a group.

    torch-pruning's own measure squares the weights first and so takes a filter and its opposite for equal.
    """
    import torch_pruning

    filters = (
        torch_pruning.prune_conv_out_channels,
        torch_pruning.prune_depthwise_conv_out_channels,
        torch_pruning.prune_linear_out_channels,
    )
    channels = len(raw[0].idxs)
    total, layers = torch.zeros(channels, dtype=torch.float64), 0
    for item in raw:
        if item.dep.handler not in filters or any(index is None for index in item.root_idxs):
            continue
        weight = item.dep.target.module.weight.detach()
        rows = (weight.transpose(0, 1) if getattr(item.dep.target.module, "transposed", False) else weight)[item.idxs]
        flat = rows.flatten(1).double().cpu()
        distances = torch.cdist(flat, flat).sum(dim=1)
        total.scatter_add_(0, torch.tensor(item.root_idxs), distances / distances.mean())
        layers += 1
    return total / layers if layers else None


def _scored(group: Prunable, scores: torch.Tensor) -> Scored:
    """Scores of channels as scores of units."""
    plain = scores.cpu()
    means = [float(plain[list(unit)].mean()) for unit in group.units]
    return Scored(group, torch.tensor(means, dtype=torch.float64))
