"""A small network for keypoints, quick to train on a CPU and made of what all targets compute in int8."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

__all__ = ["HalvingBlock", "conv_norm", "simple_pose"]


def simple_pose(
    *, keypoints: int = 17, widths: tuple[int, ...] = (16, 24, 48, 64), neck: int = 40, channels: int = 3
) -> nn.Module:
    """Keypoints of one person: `(N, channels, H, W)` float32 -> maps `(N, keypoints, H / 4, W / 4)`.

    SimpleBaseline (Xiao, Wu, Wei, arXiv:1804.06208) made small: residual blocks (He et al., arXiv:1512.03385) down to
    the last of ``widths``, each of which halves the size, then up again. Instead of transposed convolutions, maps are
    enlarged by repeating pixels (which keeps their int8 scale) and added to the finer ones, all ``neck`` channels
    wide (Lin et al., arXiv:1612.03144). H and W are multiples of ``2 ** len(widths)``. As it is by default, it has
    145,000 parameters.
    """
    return _SimplePose(keypoints, tuple(widths), neck, channels)


class _SimplePose(nn.Module):
    def __init__(self, keypoints: int, widths: tuple[int, ...], neck: int, channels: int) -> None:
        super().__init__()
        self.stem = conv_norm(channels, widths[0], stride=2)
        self.down = nn.ModuleList(HalvingBlock(one, two) for one, two in pairwise(widths))
        # The maps from a quarter of the input's size on, the coarsest one last.
        self.across = nn.ModuleList(conv_norm(width, neck, kernel=1, act=False) for width in widths[1:])
        self.mix = nn.ModuleList(conv_norm(neck, neck) for _ in widths[2:])
        self.head = nn.Conv2d(neck, keypoints, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features, kept = self.stem(inputs), []
        for down, across in zip(self.down, self.across, strict=True):
            features = down(features)
            kept.append(across(features))
        merged = kept[-1]
        for mix, beside in zip(reversed(self.mix), reversed(kept[:-1]), strict=True):
            wide = functional.interpolate(merged, scale_factor=2.0, mode="nearest")
            merged = mix(functional.relu(wide + beside))
        return self.head(merged)


class HalvingBlock(nn.Module):
    """Two convolutions beside a 1x1 one; the first halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one = conv_norm(inputs, outputs, stride=2)
        self.two = conv_norm(outputs, outputs, act=False)
        self.beside = conv_norm(inputs, outputs, kernel=1, stride=2, act=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.two(self.one(inputs)) + self.beside(inputs))


def conv_norm(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, act: bool = True) -> nn.Sequential:
    """A convolution that keeps the size (or halves it, with ``stride`` 2), batch norm and, with ``act``, ReLU."""
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        norm=nn.BatchNorm2d(outputs),
    )
    if act:
        layers["act"] = nn.ReLU(inplace=False)
    return nn.Sequential(layers)
