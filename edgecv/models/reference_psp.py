"""PSPNet on any backbone of timm: what surrounds a pixel at four scales says what it may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecv.errors import ModelError, ToolchainError

__all__ = ["pspnet"]


def pspnet(
    *,
    num_classes: int = 2,
    backbone: str = "mobilenetv3_small_050",
    stride: int = 8,
    width: int = 32,
    bins: Sequence[int] = (1, 2, 3, 6),
    channels: int = 3,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """A network for segmentation: `(N, channels, H, W)` float32 -> logits `(N, num_classes, H / stride, W / stride)`.

    Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, arXiv:1612.01105. The last map of the ``backbone`` (a name
    of timm, with its ``options``), which keeps 1 / ``stride`` of the picture's size (8, 16 or 32; the backbone's later
    convolutions are dilated for that), is averaged over ``bins`` times ``bins`` windows each; every pyramid level is
    made narrow, enlarged, and joined to the map; a 3x3 convolution of ``width`` channels and a 1x1 one give the scores.
    The auxiliary loss of the paper is left out.

    Raises:
        ModelError: timm has no such backbone, it cannot give maps, or a number is out of its range.
        ToolchainError: timm is not installed.
    """
    if not bins or min(bins) < 1:
        raise ModelError(f"bins is {list(bins)}; give numbers of windows along a side from 1 on, such as [1, 2, 3, 6]")
    if stride not in (8, 16, 32):
        raise ModelError(f"stride is {stride}; allowed are 8, 16 and 32")
    return _Pspnet(_features(backbone, stride, channels, options or {}), num_classes, width, bins)


def _features(backbone: str, stride: int, channels: int, options: dict[str, Any]) -> Any:
    try:
        import timm
    except ModuleNotFoundError:
        raise ToolchainError("timm is not installed; run: pip install 'edgecv[host]' (or: pip install timm)") from None
    if not timm.is_model(backbone):
        raise ModelError(f"timm has no model {backbone!r}; `timm.list_models()` lists its names")
    try:
        found = timm.create_model(
            backbone, features_only=True, out_indices=(-1,), output_stride=stride, in_chans=channels, **options
        )
    except Exception as error:  # constructors run code of others and can raise anything
        raise ModelError(
            f"the backbone {backbone!r} gives no maps at stride {stride}: {type(error).__name__}: {error}. "
            "Take a convolutional one, such as resnet18 or mobilenetv3_large_100, or another stride."
        ) from error
    return found


class _Pspnet(nn.Module):
    def __init__(self, backbone: Any, num_classes: int, width: int, bins: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        wide = int(backbone.feature_info.channels()[-1])
        narrow = max(wide // len(bins), 1)
        self.levels = nn.ModuleList(_Level(wide, narrow, count) for count in bins)
        self.join = _conv(wide + narrow * len(bins), width, kernel=3)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.backbone(inputs)[-1]
        scores: Tensor = self.head(self.join(torch.cat([features, *[level(features) for level in self.levels]], dim=1)))
        return scores


class _Level(nn.Module):
    """One level of the pyramid: means over windows, made narrow, at the size of the map again."""

    def __init__(self, wide: int, narrow: int, bins: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(bins)
        self.conv = _conv(wide, narrow, kernel=1)

    def forward(self, features: Tensor) -> Tensor:
        small = self.conv(self.pool(features))
        return functional.interpolate(small, size=features.shape[-2:], mode="bilinear", align_corners=False)


def _conv(inputs: int, outputs: int, *, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
