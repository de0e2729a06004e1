"""A small network that finds text by differentiable binarisation, made of what all targets compute in int8."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

__all__ = ["text_finder"]


def text_finder(
    *, planes: int = 2, widths: Sequence[int] = (16, 24, 40, 56), neck: int = 24, channels: int = 3
) -> nn.Module:
    """Finds text: `(N, channels, H, W)` float32 -> logits `(N, planes, H / 2, W / 2)`.

    The form of DBNet (Liao et al., arXiv:1911.08947), much smaller: convolutions at a half, a quarter, ... of the size
    (``widths`` channels each), a feature pyramid that adds each level to the finer one (``neck`` channels), and a head.
    Plane 0 is the probability of text's middle, plane 1 the threshold, which only training reads. H and W must be
    multiples of ``2 ** len(widths)``. It has 90,000 parameters.
    """
    return _TextFinder(planes, list(widths), neck, channels)


class _TextFinder(nn.Module):
    def __init__(self, planes: int, widths: list[int], neck: int, channels: int) -> None:
        super().__init__()
        self.stem = _conv(channels, widths[0], stride=2)
        self.down = nn.ModuleList(_conv(a, b, stride=2) for a, b in pairwise(widths))
        self.mix = nn.ModuleList(_conv(width, width) for width in widths[1:])
        self.lateral = nn.ModuleList(_conv(width, neck, kernel=1) for width in widths[1:])
        self.smooth = _conv(neck, neck)
        self.narrow = _conv(neck, widths[0], kernel=1)
        self.fine = _conv(2 * widths[0], widths[0])
        self.head = nn.Conv2d(widths[0], planes, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        first = self.stem(inputs)
        features, levels = first, []
        for down, mix, lateral in zip(self.down, self.mix, self.lateral, strict=True):
            features = mix(down(features))
            levels.append(lateral(features))
        merged = levels[-1]
        for level in reversed(levels[:-1]):
            merged = level + functional.interpolate(merged, scale_factor=2.0, mode="nearest")
        wide = functional.interpolate(self.narrow(self.smooth(merged)), scale_factor=2.0, mode="nearest")
        return self.head(self.fine(torch.cat([first, wide], dim=1)))


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            norm=nn.BatchNorm2d(outputs),
            act=nn.ReLU(inplace=False),
        )
    )
