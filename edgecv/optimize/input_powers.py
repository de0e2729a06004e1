"""The layers that read channels: the powers of their inputs, and their best weights without some of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "Reader",
    "input_powers",
    "flat_weights",
    "is_plain",
    "matrix_rows",
    "output_rows",
    "reads",
    "solved_without",
]

_RIDGE = 1e-3
"""Added to the powers, relative to their mean: few pictures do not tell everything."""
_MOST_COLUMNS = 2304
"""Layers with more inputs than this (256 channels of a 3x3 filter) take too long to solve over and over."""
_POSITIONS = 64
"""Places of a picture that are looked at, drawn at random."""


@dataclass(frozen=True)
class Reader:
    """A convolution or linear layer as a matrix product.

    ``powers`` `(columns, columns)` is the mean of the products of its inputs, with a small ridge; ``weights``
    `(outputs, columns)`, float64. Where the layer has a bias, the last column is it, with an input of 1.
    """

    powers: torch.Tensor
    weights: torch.Tensor


def reads(module: nn.Module, raw: Any) -> dict[str, dict[int, list[int]]]:
    """By layer that reads the channels of a torch-pruning group ``raw`` of ``module``: its columns of each channel.

    Only plain 2-D convolutions (one group, zeros around) and linear layers; the channels are the first layer's.
    """
    import torch_pruning

    makers = (torch_pruning.prune_conv_in_channels, torch_pruning.prune_linear_in_channels)
    names = {layer: name for name, layer in module.named_modules()}
    found: dict[str, dict[int, list[int]]] = {}
    for item in raw:
        layer = item.dep.target.module
        if item.dep.handler not in makers or not is_plain(layer) or layer not in names:
            continue
        size = 1 if isinstance(layer, nn.Linear) else layer.weight[0, 0].numel()
        roots = getattr(item, "root_idxs", None) or item.idxs
        for root, index in zip(roots, item.idxs, strict=True):
            channel = int(index) if root is None else int(root)
            start = int(index) * size
            found.setdefault(names[layer], {}).setdefault(channel, []).extend(range(start, start + size))
    return found


def is_plain(layer: Any) -> bool:
    """Whether ``layer`` is a matrix product over patches of its input."""
    if isinstance(layer, nn.Linear):
        return True
    return (
        isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def input_powers(module: nn.Module, names: Collection[str], inputs: Sequence[torch.Tensor]) -> dict[str, Reader]:
    """The layers ``names`` of ``module`` as `Reader`, seen in one pass over ``inputs`` (batches `(N, C, H, W)`).

    Layers with too many columns, or that are called more than once a pass, are left out.
    """
    layers: dict[str, Any] = {name: module.get_submodule(name) for name in sorted(names)}
    layers = {name: layer for name, layer in layers.items() if layer.weight[0].numel() <= _MOST_COLUMNS}
    sums: dict[str, torch.Tensor] = {}
    rows_seen = dict.fromkeys(layers, 0)
    calls = dict.fromkeys(layers, 0)
    generator = torch.Generator().manual_seed(0)

    def hook(name: str) -> Any:
        def record(layer: nn.Module, args: tuple[Any, ...], _: Any) -> None:
            calls[name] += 1
            rows = matrix_rows(layer, args[0], generator)[0]
            sums[name] = rows.T @ rows + sums.get(name, 0.0)
            rows_seen[name] += rows.shape[0]

        return record

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for batch in inputs:
                module(batch)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, layer in layers.items():
        if calls[name] != len(inputs) or not torch.isfinite(sums[name]).all():
            continue
        powers = sums[name] / rows_seen[name]
        ridge = _RIDGE * powers.diagonal().mean().clamp_min(1e-12)
        found[name] = Reader(powers + ridge * torch.eye(len(powers), dtype=powers.dtype), flat_weights(layer))
    return found


def flat_weights(layer: Any) -> torch.Tensor:
    """Weights `(outputs, columns)` float64 of a plain layer, with its bias as the last column."""
    weights = layer.weight.detach().double().reshape(layer.weight.shape[0], -1)
    if layer.bias is None:
        return weights
    return torch.cat([weights, layer.bias.detach().double()[:, None]], dim=1)


def solved_without(reader: Reader, columns: torch.Tensor) -> torch.Tensor:
    """Weights `(outputs, columns)` that give the nearest outputs where the inputs ``columns`` are gone (0 there)."""
    kept = torch.ones(len(reader.powers), dtype=torch.bool)
    kept[columns] = False
    found = torch.zeros_like(reader.weights)
    if kept.any():
        wanted = reader.powers[kept] @ reader.weights.T
        found[:, kept] = torch.linalg.solve(reader.powers[kept][:, kept], wanted).T
    return found


def matrix_rows(layer: Any, values: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs ``values`` of a plain layer as rows `(rows, columns)` float64 at random places, and the places."""
    if isinstance(layer, nn.Linear):
        rows = values.reshape(-1, values.shape[-1])
        picked = torch.randperm(rows.shape[0], generator=generator)[: max(_POSITIONS * values.shape[0], 1)]
        rows = rows[picked]
    else:
        patches = functional.unfold(values, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        picked = torch.randperm(patches.shape[-1], generator=generator)[:_POSITIONS]
        rows = patches[:, :, picked].transpose(1, 2).reshape(-1, patches.shape[1])
    rows = rows.double()
    if layer.bias is not None:
        rows = torch.cat([rows, rows.new_ones(rows.shape[0], 1)], dim=1)
    return rows, picked


def output_rows(layer: Any, outputs: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
    """Outputs of a plain layer as rows `(rows, outputs)` float64 at the places ``picked`` of `matrix_rows`."""
    if isinstance(layer, nn.Linear):
        return outputs.reshape(-1, outputs.shape[-1])[picked].double()
    return outputs.flatten(2)[:, :, picked].transpose(1, 2).reshape(-1, outputs.shape[1]).double()
