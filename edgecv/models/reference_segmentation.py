"""A small U-Net: quick to train on a CPU, and made of what all targets compute in int8."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

__all__ = ["unet"]


def unet(*, num_classes: int = 2, width: int = 16, levels: int = 3, channels: int = 3) -> nn.Module:
    """A network for segmentation: `(N, channels, H, W)` float32 -> logits `(N, num_classes, H / 2, W / 2)`.

    Ronneberger, Fischer, Brox: U-Net, arXiv:1505.04597, made smaller: the first convolution has stride 2, convolutions
    keep the size and have batch norm, maps are enlarged by repeating pixels (which keeps their int8 scale)
    and a 1x1 convolution that makes them as narrow as the map they are joined to. ``width`` is the number of channels
    of the first level, twice as many with each of ``levels``; H and W must be multiples of ``2 ** levels``.
    At 16 and 3 it has 98,000 parameters.
    """
    return _Unet(num_classes, [width * 2**level for level in range(levels)], channels)


class _Unet(nn.Module):
    def __init__(self, num_classes: int, widths: list[int], channels: int) -> None:
        super().__init__()
        self.stem = _conv(channels, widths[0], stride=2)
        self.down = nn.ModuleList(_conv(a, b, stride=2) for a, b in pairwise(widths))
        self.mix = nn.ModuleList(_conv(width, width) for width in widths)
        self.narrow = nn.ModuleList(_conv(b, a, kernel=1) for a, b in pairwise(widths))
        self.join = nn.ModuleList(_conv(2 * width, width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.mix[0](self.stem(inputs))
        kept = []
        for down, mix in zip(self.down, self.mix[1:], strict=True):
            kept.append(features)
            features = mix(down(features))
        for narrow, join, beside in zip(reversed(self.narrow), reversed(self.join), reversed(kept), strict=True):
            wide = functional.interpolate(narrow(features), scale_factor=2.0, mode="nearest")
            features = join(torch.cat([beside, wide], dim=1))
        return self.head(features)


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            norm=nn.BatchNorm2d(outputs),
            act=nn.ReLU(inplace=False),
        )
    )
