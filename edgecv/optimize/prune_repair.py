"""After a cut: new weights for the layers that read fewer channels, by least squares on real pictures.

What a removed channel carried is in part told by those that stay. Each layer whose inputs were narrowed is solved for
the weights that give, from its new inputs, the outputs that it had in the uncut network, layer after
layer in the order of the calls, so that later ones make up for what is left of earlier errors.
He, Zhang, Sun 2017: Channel Pruning for Accelerating Very Deep Neural Networks, arXiv:1707.06168, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from edgecv.core.protocols import Batches
from edgecv.optimize.input_powers import flat_weights, is_plain, matrix_rows, output_rows

__all__ = ["repair_readers"]

_RIDGE = 1e-3
"""Pull towards the present weights, relative to the mean power of the inputs."""
_MOST_COLUMNS = 4096
_MOST_BATCHES = 16


def repair_readers(original: nn.Module, pruned: nn.Module, *, batches: Batches) -> int:
    """Solve the narrowed layers of ``pruned`` (in place, both in evaluation mode); returns how many.

    Plain 2-D convolutions (not grouped) and linear layers that have fewer inputs than in ``original`` and are called
    once; ``batches`` give network inputs `(N, C, H, W)` float32.
    """
    layers = _narrowed(original, pruned)
    if not layers:
        return 0
    inputs = _spread(batches)
    solved = 0
    for name in _in_order(pruned, layers, inputs[0][:1]):
        solved += _solve(original.get_submodule(name), pruned.get_submodule(name), (original, pruned), inputs)
    return solved


def _spread(batches: Batches) -> list[torch.Tensor]:
    """At most `_MOST_BATCHES` batches, evenly out of all: the first ones of a sorted set hold but a few classes."""
    found: list[torch.Tensor] = []
    every = 1
    for number, (arrays, _) in enumerate(batches()):
        if number % every:
            continue
        if len(found) == _MOST_BATCHES:
            found, every = found[::2], 2 * every
            if number % every:
                continue
        found.append(torch.from_numpy(arrays))
    return found


def _narrowed(original: nn.Module, pruned: nn.Module) -> list[str]:
    found = []
    for name, layer in pruned.named_modules():
        before: Any = original.get_submodule(name)
        if isinstance(layer, nn.Linear):
            fewer = layer.in_features < before.in_features and layer.out_features == before.out_features
        elif isinstance(layer, nn.Conv2d):
            # A layer with fewer outputs too has nothing left to be compared with.
            plain = is_plain(layer) and is_plain(before)
            fewer = plain and layer.in_channels < before.in_channels and layer.out_channels == before.out_channels
        else:
            continue
        columns = layer.weight[0].numel()
        if fewer and columns <= _MOST_COLUMNS:
            found.append(name)
    return found


def _in_order(module: nn.Module, names: Sequence[str], example: torch.Tensor) -> list[str]:
    calls: list[str] = []
    handles = [
        module.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name)) for name in names
    ]
    with torch.no_grad():
        module(example)
    for handle in handles:
        handle.remove()
    return [name for name in calls if calls.count(name) == 1]


def _solve(
    before: nn.Module, after: nn.Module, modules: tuple[nn.Module, nn.Module], inputs: list[torch.Tensor]
) -> int:
    """New weights and bias of ``after``; 0 where the inputs tell nothing."""
    layer: Any = after
    columns = layer.weight[0].numel()
    size = columns + (layer.bias is not None)
    gram, target = (
        torch.zeros(size, size, dtype=torch.float64),
        torch.zeros(size, layer.weight.shape[0], dtype=torch.float64),
    )
    generator = torch.Generator().manual_seed(0)
    for batch in inputs:
        wanted = _captured(modules[0], before, batch)[1]
        rows, picked = matrix_rows(layer, _captured(modules[1], after, batch)[0], generator)
        outputs = output_rows(layer, wanted, picked)
        gram += rows.T @ rows
        target += rows.T @ outputs
    present = flat_weights(layer)
    power = gram.diagonal().mean()
    if not torch.isfinite(gram).all() or power <= 0:
        return 0
    pull = _RIDGE * power * torch.eye(size, dtype=torch.float64)
    found = torch.linalg.solve(gram + pull, target + pull @ present.T).T
    if not torch.isfinite(found).all():
        return 0
    with torch.no_grad():
        layer.weight.copy_(found[:, :columns].reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(found[:, columns])
    return 1


class _Reached(Exception):
    """Ends a forward pass early; no error."""


def _captured(module: nn.Module, layer: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and output of ``layer`` where ``batch`` goes through ``module``."""
    found: list[torch.Tensor] = []

    def hook(_: nn.Module, args: Any, output: torch.Tensor) -> None:
        found.extend((args[0], output))
        raise _Reached

    handle = layer.register_forward_hook(hook)
    try:
        with torch.no_grad():
            module(batch)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0], found[1]
