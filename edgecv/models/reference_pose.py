"""Small networks for keypoints, quick to train on a CPU and made of what all targets compute in int8."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from edgecv.models.reference_instance import cell_centres

__all__ = ["HalvingBlock", "conv_norm", "simple_pose", "yolo_pose"]

_STRIDE = 8


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


def yolo_pose(
    *, keypoints: int = 17, widths: tuple[int, ...] = (16, 32, 48, 64), neck: int = 48, channels: int = 3
) -> nn.Module:
    """Persons and their keypoints: `(N, channels, H, W)` float32 -> rows `(N, 5 + 3K, H / 8 * W / 8)`, head yolo-pose.

    YOLO-Pose (Maji et al., arXiv:2204.06806) made small: an anchor-free detector with one map at an eighth of the
    input's size, into which the coarsest one is added, and beside each box ``keypoints`` = K points. A row is the box's
    centre and size in pixels of the input, its score 0..1, then x, y in pixels and the score of each keypoint. There
    are four ``widths``, down to a sixteenth; H and W are multiples of 16. As it is by default, it has 169,000
    parameters.
    """
    return _YoloPose(keypoints, tuple(widths), neck, channels)


class _YoloPose(nn.Module):
    def __init__(self, keypoints: int, widths: tuple[int, ...], neck: int, channels: int) -> None:
        super().__init__()
        self.stem = conv_norm(channels, widths[0], stride=2)
        self.down = nn.ModuleList(HalvingBlock(one, two) for one, two in pairwise(widths))
        self.fine = conv_norm(widths[-2], neck, kernel=1, act=False)
        self.coarse = conv_norm(widths[-1], neck, kernel=1, act=False)
        self.boxes = conv_norm(neck, neck)
        self.points = conv_norm(neck, neck)
        self.sides = nn.Conv2d(neck, 4, 1)
        self.score = nn.Conv2d(neck, 1, 1)
        self.across = nn.Conv2d(neck, keypoints, 1)
        self.along = nn.Conv2d(neck, keypoints, 1)
        self.seen = nn.Conv2d(neck, keypoints, 1)
        nn.init.constant_(self.sides.get_parameter("bias"), 2.0)
        nn.init.constant_(self.score.get_parameter("bias"), -4.0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.stem(inputs)
        for down in self.down[:-1]:
            features = down(features)
        wide = functional.interpolate(self.coarse(self.down[-1](features)), scale_factor=2.0, mode="nearest")
        merged = functional.relu(wide + self.fine(features))
        beside, pointed = self.boxes(merged), self.points(merged)
        sides = functional.relu(self.sides(beside))
        centres = cell_centres(sides, _STRIDE)
        low, high = centres - sides[:, :2] * _STRIDE, centres + sides[:, 2:] * _STRIDE
        x = self.across(pointed) * _STRIDE + centres[:, :1]
        y = self.along(pointed) * _STRIDE + centres[:, 1:]
        triples = torch.stack([x, y, self.seen(pointed).sigmoid()], dim=2).flatten(1, 2)
        return torch.cat([(low + high) / 2, high - low, self.score(beside).sigmoid(), triples], dim=1).flatten(2)


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
