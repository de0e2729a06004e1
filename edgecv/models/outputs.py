"""Plain tensors out of any network: dictionaries, dataclasses and nested tuples are unwrapped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edgecv.models.clips import ClipInputs

__all__ = ["TensorOutputs", "tensors_of", "unwrapped"]


class TensorOutputs(nn.Module):
    """A network around ``model`` whose forward gives one tensor, or a tuple of several."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        outputs = tensors_of(self.model(inputs))
        return outputs[0] if len(outputs) == 1 else outputs


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside a `TensorOutputs` or `ClipInputs`, whose names weights files use; any other module itself."""
    while isinstance(module, TensorOutputs | ClipInputs):
        module = module.model
    return module


def tensors_of(outputs: Any) -> tuple[torch.Tensor, ...]:
    """All tensors in ``outputs``, depth first, in their order; anything else is left out."""
    if isinstance(outputs, torch.Tensor):
        return (outputs,)
    if isinstance(outputs, Mapping):
        items = list(outputs.values())
    elif isinstance(outputs, (tuple, list)):
        items = list(outputs)
    elif dataclasses.is_dataclass(outputs):
        items = [getattr(outputs, field.name) for field in dataclasses.fields(outputs)]
    else:
        items = []
    return tuple(tensor for item in items for tensor in tensors_of(item))
