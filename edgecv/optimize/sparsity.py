"""Zeros in the weights, without a change of any shape: 2:4 and unstructured sparsity.

2:4 keeps the two largest of every four weights along the input channels (Mishra et al. 2021, arXiv:2104.08378); the
Tensor cores of NVIDIA's Ampere and later skip the zeros, through TensorRT. No other engine that edgecv
compiles for gets faster by zeros: `edgecv.optimize.sparse_gain` says so.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgecv import families
from edgecv.core.recipe import FamilySpec, Prune
from edgecv.errors import ModelError

__all__ = ["SparseResult", "kept_sparse", "pattern_mask", "sparsify"]

_LEAST_INPUTS = 16
"""Layers with fewer inputs (the first of a network, depthwise ones) are too thin to gain and too sensitive."""


@dataclass(frozen=True)
class SparseResult:
    """``module`` is a copy with zeros in the weights of ``layers``; ``zeros`` is their share in these weights (0..1),
    ``left_out`` the convolutions and linear layers that stay dense."""

    module: nn.Module
    layers: tuple[str, ...]
    left_out: tuple[str, ...]
    zeros: float


def sparsify(module: nn.Module, *, step: Prune, family: FamilySpec) -> SparseResult:
    """Set the smallest weights of a copy of ``module`` to zero, as ``step.pattern`` says.

    2:4: in every layer whose inputs come in fours. Unstructured: the ``step.ratio`` smallest weights, over
    all layers (scope global) or in each (uniform). The family's heads, ``step.protect``, embeddings,
    depthwise layers and layers with fewer than 16 inputs stay dense.

    Raises:
        ModelError: no layer can be made sparse, or ``step`` is no sparse pattern.
    """
    if step.pattern is None or (step.pattern == "unstructured") == (step.ratio is None):
        raise ModelError(
            f"pattern is {step.pattern!r} with ratio {step.ratio}; allowed: 2:4 without ratio, unstructured with ratio"
        )
    result = copy.deepcopy(module).cpu().eval()
    kept = _kept(result, step, family)
    layers = {
        name: layer for name, layer in result.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear)) and name
    }
    chosen = [name for name, layer in layers.items() if name not in kept and _suits(layer, step.pattern)]
    if not chosen:
        raise ModelError(
            f"no layer of {type(module).__name__} can be made {step.pattern} sparse ({len(layers)} were looked at); "
            "leave the prune step out, or protect fewer layers"
        )
    masks = _masks([layers[name].weight.detach() for name in chosen], step)
    zeros = total = 0
    with torch.no_grad():
        for name, mask in zip(chosen, masks, strict=True):
            layers[name].weight.mul_(mask)
            zeros, total = zeros + int((~mask).sum()), total + mask.numel()
    return SparseResult(result, tuple(chosen), tuple(name for name in layers if name not in chosen), zeros / total)


def pattern_mask(weight: torch.Tensor) -> torch.Tensor:
    """Bool of ``weight``'s shape: the two largest of every four along axis 1 (input channels, a multiple of 4)."""
    last = weight.detach().abs().movedim(1, -1)
    fours = last.reshape(*last.shape[:-1], -1, 4)
    largest = fours.topk(2, dim=-1).indices
    mask = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, largest, True)
    return mask.reshape(last.shape).movedim(-1, 1)


@contextmanager
def kept_sparse(module: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    """While the block trains ``module`` in place, the zeros in the weights of ``layers`` stay zeros."""
    trained: dict[str, Any] = {name: module.get_submodule(name) for name in layers}
    masks = {name: layer.weight.detach() != 0 for name, layer in trained.items()}

    def hold(name: str) -> Any:
        def before(layer: Any, _: Any) -> None:
            with torch.no_grad():
                layer.weight.mul_(masks[name].to(layer.weight.device))

        return before

    handles = [layer.register_forward_pre_hook(hold(name)) for name, layer in trained.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for name, layer in trained.items():
                layer.weight.mul_(masks[name].to(layer.weight.device))


def _kept(module: nn.Module, step: Prune, family: FamilySpec) -> set[str]:
    names = [name for name, _ in module.named_modules() if name]
    kept = set(families.get(family.kind).protected(module))
    for pattern in step.protect:
        matches = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise ModelError(f"protect: {pattern!r} fits no layer; the first names are {', '.join(names[:8])}")
        kept.update(name for name in names if any(name == one or name.startswith(one + ".") for one in matches))
    return kept


def _suits(layer: Any, pattern: str) -> bool:
    inputs = layer.weight.shape[1]
    return bool(inputs >= _LEAST_INPUTS and (pattern != "2:4" or inputs % 4 == 0))


def _masks(weights: Sequence[torch.Tensor], step: Prune) -> list[torch.Tensor]:
    if step.pattern == "2:4":
        return [pattern_mask(weight) for weight in weights]
    assert step.ratio is not None  # checked by the caller
    sizes = [weight.abs() for weight in weights]
    if step.scope == "global":
        limit = torch.cat([size.flatten() for size in sizes]).kthvalue(_count(step.ratio, sizes)).values
        return [size > limit for size in sizes]
    return [size > size.flatten().kthvalue(_count(step.ratio, [size])).values for size in sizes]


def _count(ratio: float, sizes: Sequence[torch.Tensor]) -> int:
    return max(1, round(ratio * sum(size.numel() for size in sizes)))
