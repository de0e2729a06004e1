"""Learned step sizes: the scales of quantisation are trained with the weights.

Esser et al., Learned Step Size Quantization, arXiv:1902.08153. A range that is observed minds the
largest values; a learned one weighs what clipping them costs against finer steps for all others.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgecv.optimize.pt2e import FakeQuantize, FakeQuantizeBase

__all__ = ["LearnedSteps", "learn_steps"]

_SMALLEST = 1e-3
"""A learned step stays above this share of its first value: at 0 or below there is nothing left to learn from."""


class LearnedSteps(FakeQuantizeBase):
    """Rounds to the int8 grid of a trained scale; takes the place of an observing fake quantiser.

    The parameter ``relative`` is the scale as a multiple of ``start``: scales lie between 1e-6 and 1, and
    Adam's steps are of one absolute size, so the scale itself would jump. Its gradient is the paper's (with
    its factor ``1 / sqrt(values x largest level)``) over ``start``, so that plain SGD moves the scale by as
    large a share of itself as in the paper. The zero point keeps its first value. (A module because torchao
    asks for its base class.)
    """

    def __init__(self, observed: Any) -> None:
        super().__init__()
        scale, zero_point = observed.scale.detach().clone(), observed.zero_point.detach().clone()
        self.relative = nn.Parameter(torch.ones_like(scale))
        self.register_buffer("start", scale)
        self.register_buffer("zero_point", zero_point.to(torch.int32))
        self.quant_min, self.quant_max = int(observed.quant_min), int(observed.quant_max)
        self.dtype, self.qscheme, self.ch_axis = observed.dtype, observed.qscheme, observed.ch_axis
        self.is_dynamic = False
        self.is_per_channel = bool(observed.is_per_channel)

    @property
    def scale(self) -> Tensor:
        """The scale that values are rounded with now: `(1,)`, or one a channel."""
        return self.start * self.relative.detach().clamp(min=_SMALLEST)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point for the deployed graph."""
        return self.scale.cpu(), self.zero_point.cpu()

    def forward(self, values: Tensor) -> Tensor:
        """``values`` rounded to the grid; gradients by the straight-through estimator."""
        count = values.numel() / (self.relative.numel() if self.is_per_channel else 1)
        factor = 1.0 / math.sqrt(max(1.0, count) * self.quant_max)
        relative = _scaled_gradient(self.relative.clamp(min=_SMALLEST), factor / self.start.square())
        scale, zero = self.start * relative, self.zero_point.to(values.dtype)
        limits = (self.quant_min, self.quant_max)
        if self.is_per_channel:
            result: Tensor = torch._fake_quantize_learnable_per_channel_affine(
                values, scale, zero, self.ch_axis, *limits, 1.0
            )
        else:
            result = torch._fake_quantize_learnable_per_tensor_affine(values, scale, zero, *limits, 1.0)
        return result


def learn_steps(graph: GraphModule) -> int:
    """Put a `LearnedSteps` in the place of every fake quantiser of a prepared graph; returns how many.

    They start at the scales observed so far. Where tensors share one quantiser they go on sharing it.
    """
    learned: dict[int, LearnedSteps] = {}
    for name, part in list(graph.named_modules(remove_duplicate=False)):
        if isinstance(part, FakeQuantize):
            owner, _, leaf = name.rpartition(".")
            if id(part) not in learned:
                learned[id(part)] = LearnedSteps(part)
            setattr(graph.get_submodule(owner), leaf, learned[id(part)])
    return len(learned)


def _scaled_gradient(value: Tensor, factor: Tensor) -> Tensor:
    """``value`` as it is, with its gradient times ``factor``."""
    kept = value * factor
    return value.detach() + kept - kept.detach()
