"""Networks that stream: each frame costs one frame's work, and what was seen before is a state. For clips in training.

Their two forms and their parts with a state are those of `edgecv.models.streaming`.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from edgecv.errors import ModelError
from edgecv.models.reference_video import picture_network
from edgecv.models.streaming import Shift, TimeConv

__all__ = ["tsm", "x3d_stream"]

_HALVING_BLOCKS = 2
_EXPANSION = 2


def x3d_stream(
    *,
    frames: int,
    num_classes: int = 9,
    width: int = 16,
    blocks: int = 4,
    kernel: int = 3,
    channels: int = 3,
) -> nn.Module:
    """A small network that streams: clips `(N, frames * channels, H, W)` float32 -> logits `(N, num_classes)` of the
    last frame.

    As in C. Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", arXiv:2004.04730, each block
    widens its channels, convolves them depthwise and narrows them again; the convolution over the picture and the one
    over time are apart, and the latter looks back only, at ``kernel`` frames (`TimeConv`). Another one follows where
    the picture has been averaged. ``width`` is the number of channels of the stem, half as many again with each of
    ``blocks`` but the last; the stem and the first two blocks halve the picture. An answer depends on the last
    ``(kernel - 1) * (blocks + 1) + 1`` frames (11 of 3 and 4): longer clips show it nothing more.
    """
    widths = [round(width * 1.5 ** min(level, blocks - 1)) for level in range(blocks + 1)]
    return _X3dStream(frames, channels, num_classes, widths, kernel)


def tsm(
    *,
    frames: int,
    backbone: str,
    num_classes: int = 9,
    channels: int = 3,
    parts: int = 8,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """A picture network that streams: clips `(N, frames * channels, H, W)` float32 -> logits `(N, num_classes)` of the
    last frame.

    J. Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", arXiv:1811.08383, in its online form:
    in each residual block, beside the shortcut, the first ``1 / parts`` of the channels come from the frame before
    (`Shift`). ``backbone`` is ``torchvision:NAME`` or ``timm:NAME`` of a network with such blocks (ResNets, MobileNets
    V2 to V4, EfficientNets); ``options`` go to its constructor. An answer depends on one frame more with each block.

    Raises:
        ModelError: there is no such network, or it has no residual block that is known.
    """
    module = picture_network(backbone, num_classes, channels, options)
    if not _put_shifts(module, frames, parts):
        known = ", ".join(sorted({*_BRANCHES}))
        raise ModelError(f"{backbone} has no residual block in which a shift can be put; known blocks: {known}")
    return _LastOfFrames(module, frames, channels)


_BRANCHES = {
    "BasicBlock": "conv1",
    "Bottleneck": "conv1",
    "InvertedResidual": ("conv_pw", "block", "conv"),
    "UniversalInvertedResidual": ("dw_start", "pw_exp"),
    "DepthwiseSeparableConv": "conv_dw",
    "MBConv": "block",
}
"""What comes first beside the shortcut, by the class of the block: the name of a part, or the first of some names."""


def _put_shifts(module: nn.Module, frames: int, parts: int) -> int:
    """Put a `Shift` before the branch of each residual block of ``module``; how many."""
    blocks = [item for item in module.modules() if type(item).__name__ in _BRANCHES and _has_shortcut(item)]
    for block in blocks:
        names = _BRANCHES[type(block).__name__]
        name = next(item for item in ((names,) if isinstance(names, str) else names) if _is_there(block, item))
        first = block.get_submodule(name)
        setattr(block, name, nn.Sequential(OrderedDict(shift=Shift(frames=frames, parts=parts), first=first)))
    return len(blocks)


def _is_there(block: nn.Module, name: str) -> bool:
    return not isinstance(getattr(block, name, nn.Identity()), nn.Identity)


def _has_shortcut(block: nn.Module) -> bool:
    """Whether what goes into ``block`` is added to what comes out: in a ResNet always, perhaps by way of a layer."""
    said = [getattr(block, name) for name in ("use_res_connect", "has_skip") if hasattr(block, name)]
    return bool(said[0]) if said else True


class _X3dStream(nn.Module):
    def __init__(self, frames: int, channels: int, num_classes: int, widths: list[int], kernel: int) -> None:
        super().__init__()
        self.channels = channels
        self.stem = _normed(nn.Conv2d(channels, widths[0], 3, 2, 1, bias=False))
        blocks = []
        for level, (one, other) in enumerate(pairwise(widths)):
            stride = 2 if level < _HALVING_BLOCKS else 1
            blocks.append(_Block(one, other, stride=stride, frames=frames, kernel=kernel))
        self.blocks = nn.Sequential(*blocks)
        wide = _EXPANSION * widths[-1]
        self.mix = _normed(nn.Conv2d(widths[-1], wide, 1, bias=False))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.time = TimeConv(wide, frames=frames, kernel=kernel)
        self.head = nn.Linear(wide, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        features = self.mix(self.blocks(self.stem(_split(clips, self.channels))))
        pooled = functional.relu(self.time(self.pool(features)))
        scores: Tensor = self.head(_last(pooled, clips.shape[0]).flatten(1))
        return scores


class _Block(nn.Module):
    """Widen, convolve over the picture, then over time, and narrow; added to what came in where both are as large."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, frames: int, kernel: int) -> None:
        super().__init__()
        wide = _EXPANSION * inputs
        self.widen = _normed(nn.Conv2d(inputs, wide, 1, bias=False))
        self.space = _normed(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False))
        self.time = TimeConv(wide, frames=frames, kernel=kernel)
        self.norm = nn.BatchNorm2d(wide)
        self.narrow = nn.Sequential(
            OrderedDict(conv=nn.Conv2d(wide, outputs, 1, bias=False), norm=nn.BatchNorm2d(outputs))
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        wide = functional.relu(self.norm(self.time(self.space(self.widen(features)))))
        narrow: Tensor = self.narrow(wide)
        return features + narrow if self.shortcut else narrow


class _LastOfFrames(nn.Module):
    def __init__(self, backbone: nn.Module, frames: int, channels: int) -> None:
        super().__init__()
        self.backbone, self.frames, self.channels = backbone, frames, channels

    def forward(self, clips: Tensor) -> Tensor:
        return _last(self.backbone(_split(clips, self.channels)), clips.shape[0])


def _split(clips: Tensor, channels: int) -> Tensor:
    """Clips `(N, T * C, H, W)` as their frames `(N * T, C, H, W)`; one frame is a clip of one."""
    return clips.reshape(-1, channels, clips.shape[2], clips.shape[3])


def _last(features: Tensor, clips: int) -> Tensor:
    """Of the frames' features `(N * T, ...)` those of the last frame of each of the N clips, `(N, ...)`."""
    return features.reshape(clips, -1, *features.shape[1:])[:, -1]


def _normed(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(conv.out_channels), act=nn.ReLU(inplace=False)))
