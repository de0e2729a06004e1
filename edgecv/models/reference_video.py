"""Networks for clips: a small (2+1)D network of what targets compute in int8, and picture networks frame by frame."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.recipe import ModelSpec
from edgecv.errors import ModelError
from edgecv.models.sources import build_module, split_source

__all__ = ["picture_network", "r2plus1d", "tsn"]


def r2plus1d(
    *, frames: int, height: int, num_classes: int = 9, width: int = 12, blocks: int = 4, channels: int = 3
) -> nn.Module:
    """A network for clips: `(N, frames * channels, height, W)` float32 -> logits `(N, num_classes)`.

    Each block is a convolution over the picture and one over time, with batch norm and ReLU after each: D. Tran et
    al., "A Closer Look at Spatiotemporal Convolutions", arXiv:1711.11248. Few engines compute three-dimensional
    convolutions in int8, so the frames lie below each other in one tall picture: there a convolution over time is an
    ordinary one whose rows are a frame's height apart. (At the edges of a frame a convolution over the picture sees a
    row of the next frame instead of zeros.) ``width`` is the number of channels of the first of ``blocks``, and half as
    many again with each; the first three halve the picture. At 12 and 4 it has 25,500 parameters.

    Raises:
        ModelError: ``height`` is no multiple of 8.
    """
    if height % 8 or height < 8:
        raise ModelError(f"height is {height}; this network halves it three times, so it must be a multiple of 8")
    return _TallClips(frames, channels, height, num_classes, [round(width * 1.5**level) for level in range(blocks)])


def tsn(
    *, frames: int, backbone: str, num_classes: int = 9, channels: int = 3, options: dict[str, Any] | None = None
) -> nn.Module:
    """A picture network on each frame and the mean of its logits: `(N, frames * channels, H, W)` -> `(N, num_classes)`.

    L. Wang et al., "Temporal Segment Networks", arXiv:1608.00859. ``backbone`` is ``torchvision:NAME`` or
    ``timm:NAME``, ``options`` go to its constructor. It does not know which frame came first.

    Raises:
        ModelError: there is no such network.
    """
    return _MeanOfFrames(picture_network(backbone, num_classes, channels, options), frames, channels)


def picture_network(backbone: str, num_classes: int, channels: int, options: dict[str, Any] | None) -> nn.Module:
    """The network ``torchvision:NAME`` or ``timm:NAME`` for single frames; ``options`` go to its constructor.

    Raises:
        ModelError: there is no such network.
    """
    kind, _ = split_source(backbone)
    if kind not in ("torchvision", "timm"):
        raise ModelError(f"backbone is {backbone!r}; allowed are torchvision:NAME and timm:NAME")
    contract = InputContract(size=(1, 1), color="gray" if channels == 1 else "rgb")
    spec = ModelSpec(source=backbone, input=contract, options=dict(options or {}))
    return build_module(spec, num_classes=num_classes, base=Path())


_HALVINGS = 3


class _TallClips(nn.Module):
    def __init__(self, frames: int, channels: int, height: int, num_classes: int, widths: list[int]) -> None:
        super().__init__()
        self.frames, self.channels = frames, channels
        blocks = []
        for level, (one, other) in enumerate(pairwise([channels, *widths])):
            stride = 2 if level < _HALVINGS else 1
            height //= stride
            blocks.append(_Block(one, other, rows=height, stride=stride))
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        height, width = clips.shape[2], clips.shape[3]
        split = clips.reshape(-1, self.frames, self.channels, height, width)
        tall = split.transpose(1, 2).reshape(-1, self.channels, self.frames * height, width)
        return self.head(self.pool(self.blocks(tall)).flatten(1))


class _Block(nn.Module):
    """A convolution over the picture, then one over time: over three of the pictures that lie ``rows`` apart."""

    def __init__(self, inputs: int, outputs: int, *, rows: int, stride: int) -> None:
        super().__init__()
        self.space = _normed(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False))
        self.time = _normed(nn.Conv2d(outputs, outputs, (3, 1), padding=(rows, 0), dilation=(rows, 1), bias=False))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.time(self.space(features))


class _MeanOfFrames(nn.Module):
    def __init__(self, backbone: nn.Module, frames: int, channels: int) -> None:
        super().__init__()
        self.backbone, self.frames, self.channels = backbone, frames, channels

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        logits = self.backbone(clips.reshape(-1, self.channels, clips.shape[2], clips.shape[3]))
        return logits.reshape(-1, self.frames, logits.shape[1]).mean(1)


def _normed(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(conv.out_channels), act=nn.ReLU(inplace=False)))
