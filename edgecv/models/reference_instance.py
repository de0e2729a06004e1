"""A small network for instance segmentation, quick to train on a CPU and made of what all targets compute in int8."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

__all__ = ["cell_centres", "yolo_seg"]

_STRIDE = 8


def yolo_seg(
    *,
    num_classes: int = 4,
    prototypes: int = 8,
    widths: tuple[int, int, int, int] = (16, 24, 36, 48),
    neck: int = 28,
    channels: int = 3,
) -> nn.Module:
    """Objects and their masks: `(N, channels, H, W)` float32 -> rows `(N, 4 + C + M, H / 8 * W / 8)` and prototypes
    `(N, M, H / 2, W / 2)`, as the head ``prototypes`` reads them.

    Prototypes and coefficients (Bolya et al., YOLACT, arXiv:1904.02689) beside an anchor-free detector whose cells
    tell the distances to the four sides of their object (Tian et al., FCOS, arXiv:1904.01355), with one map at an
    eighth of the input's size: enough where objects differ little in size. Maps are enlarged by repeating pixels and
    added to the finer ones (Lin et al., arXiv:1612.03144). A row is the box's centre and size in pixels of the input,
    scores 0..1 of ``num_classes`` = C classes, and ``prototypes`` = M coefficients. H and W are multiples of 16. As it
    is by default, it has 92,000 parameters.
    """
    return _YoloSeg(num_classes, prototypes, tuple(widths), neck, channels)


class _YoloSeg(nn.Module):
    def __init__(self, num_classes: int, prototypes: int, widths: tuple[int, ...], neck: int, channels: int) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = widths
        self.stem = _conv(channels, half, stride=2)
        self.quarter = nn.Sequential(_conv(half, quarter, stride=2), _conv(quarter, quarter))
        self.eighth = nn.Sequential(_conv(quarter, eighth, stride=2), _conv(eighth, eighth))
        self.sixteenth = nn.Sequential(_conv(eighth, sixteenth, stride=2), _conv(sixteenth, sixteenth))
        self.join_eighth = _Join(sixteenth, eighth, neck)
        self.join_quarter = _Join(neck, quarter, quarter)
        self.join_half = _Join(quarter, half, half)
        self.prototypes = nn.Conv2d(half, prototypes, 1)
        self.tower = _conv(neck, neck)
        self.sides = nn.Conv2d(neck, 4, 1)
        self.classes = nn.Conv2d(neck, num_classes, 1)
        self.coefficients = nn.Conv2d(neck, prototypes, 1)
        nn.init.constant_(self.sides.get_parameter("bias"), 2.0)
        nn.init.constant_(self.classes.get_parameter("bias"), -4.0)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        half = self.stem(inputs)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        eighth = self.join_eighth(self.sixteenth(eighth), eighth)
        fine = self.join_half(self.join_quarter(eighth, quarter), half)
        features = self.tower(eighth)
        sides = functional.relu(self.sides(features))
        centres = cell_centres(sides, _STRIDE)
        low, high = centres - sides[:, :2] * _STRIDE, centres + sides[:, 2:] * _STRIDE
        boxes = torch.cat([(low + high) / 2, high - low], dim=1)
        rows = torch.cat([boxes, self.classes(features).sigmoid(), self.coefficients(features)], dim=1)
        return rows.flatten(2), self.prototypes(fine)


class _Join(nn.Module):
    """A coarse map and one twice as fine, added and mixed."""

    def __init__(self, coarse: int, fine: int, outputs: int) -> None:
        super().__init__()
        self.up = _conv(coarse, outputs, kernel=1, act=False)
        self.beside = _conv(fine, outputs, kernel=1, act=False)
        self.mix = _conv(outputs, outputs)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        wide = functional.interpolate(self.up(coarse), scale_factor=2.0, mode="nearest")
        return self.mix(functional.relu(wide + self.beside(fine)))


def cell_centres(features: torch.Tensor, stride: int) -> torch.Tensor:
    """The centre of each cell of ``features`` `(N, C, h, w)` in pixels of the input, `(1, 2, h, w)`."""
    rows, columns = torch.meshgrid(
        torch.arange(features.shape[2], device=features.device),
        torch.arange(features.shape[3], device=features.device),
        indexing="ij",
    )
    return ((torch.stack([columns, rows]).to(features.dtype) + 0.5) * stride).unsqueeze(0)


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, act: bool = True) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        norm=nn.BatchNorm2d(outputs),
    )
    if act:
        layers["act"] = nn.ReLU(inplace=False)
    return nn.Sequential(layers)
