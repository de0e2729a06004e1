"""Picture-to-picture reference networks: a denoiser, and IMDN-RTC and Zero-DCE, whose published weights load."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

__all__ = ["dncnn", "imdn_rtc", "zero_dce"]


def dncnn(*, width: int = 16, depth: int = 7) -> nn.Module:
    """Denoising: `(N, 3, H, W)` float32 RGB 0..1 -> the same shape, about 0..1, not clipped.

    What is learned is the noise, which is taken from the picture: Zhang, Zuo, Chen, Meng, Zhang: Beyond a Gaussian
    Denoiser: Residual Learning of Deep CNN for Image Denoising, 2017, arXiv:1608.03981; 3x3 convolutions, all but the
    first and the last with batch norm. The paper's colour network has ``depth`` 20 and ``width`` 64; the defaults,
    12,563 parameters, run on a camera's pictures.

    Raises:
        ValueError: ``depth`` is below 2.
    """
    if depth < 2:
        raise ValueError(f"depth is {depth}; at least 2 convolutions are needed, one in and one out")
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return _Without(nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1)))


def imdn_rtc(*, scale: int = 2, width: int = 12, blocks: int = 5) -> nn.Module:
    """Super-resolution: `(N, 3, H, W)` float32 RGB 0..1 -> `(N, 3, scale * H, scale * W)`, about 0..1, not clipped.

    The smallest network of the family of Hui, Gao, Yang, Wang: Lightweight Image Super-Resolution with
    Information Multi-distillation Network, 2019, arXiv:1909.11856: blocks that split a quarter of the channels
    off after each convolution, a residual around each block and around all of them, sub-pixel convolution at the
    end; here without the contrast-aware attention. At the defaults 20,190 parameters; the state dict's names
    (model.0, model.1.sub.0.c1, ..., model.2) are those of the published weights.
    """
    body = [_Distill(width) for _ in range(blocks)]
    return nn.Sequential(
        OrderedDict(
            model=nn.Sequential(
                nn.Conv2d(3, width, 3, padding=1),
                _Around(nn.Sequential(*body, nn.Conv2d(width, width, 1))),
                nn.Conv2d(width, 3 * scale * scale, 3, padding=1),
                nn.PixelShuffle(scale),
            )
        )
    )


def zero_dce(*, width: int = 32) -> nn.Module:
    """Light for dark pictures: `(N, 3, H, W)` float32 RGB 0..1 -> the same shape.

    Guo et al.: Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement, CVPR 2020,
    arXiv:2001.06826: seven convolutions estimate, for each pixel and channel, the r of eight rounds of the
    light curve ``x + r * (x^2 - x)``. The names of the state dict (e_conv1, ..., e_conv7) are those of the
    published weights, which were trained with this sign of r.
    """
    return _ZeroDce(width)


class _Distill(nn.Module):
    """Three convolutions that each hand a quarter of their channels on, a fourth, and a 1x1 that joins the four."""

    def __init__(self, width: int) -> None:
        super().__init__()
        kept = width // 4
        self.sizes = [kept, width - kept]
        self.c1 = nn.Conv2d(width, width, 3, padding=1)
        self.c2 = nn.Conv2d(width - kept, width, 3, padding=1)
        self.c3 = nn.Conv2d(width - kept, width, 3, padding=1)
        self.c4 = nn.Conv2d(width - kept, kept, 3, padding=1)
        self.c5 = nn.Conv2d(4 * kept, width, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        first, rest = torch.split(_leaky(self.c1(inputs)), self.sizes, dim=1)
        second, rest = torch.split(_leaky(self.c2(rest)), self.sizes, dim=1)
        third, rest = torch.split(_leaky(self.c3(rest)), self.sizes, dim=1)
        return inputs + self.c5(torch.cat([first, second, third, self.c4(rest)], dim=1))


def _leaky(values: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(values, 0.05)


class _Without(nn.Module):
    """``inputs - noise(inputs)``."""

    def __init__(self, noise: nn.Module) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs - self.noise(inputs)


class _Around(nn.Module):
    """``inputs + sub(inputs)``."""

    def __init__(self, sub: nn.Module) -> None:
        super().__init__()
        self.sub = sub

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.sub(inputs)


class _ZeroDce(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.e_conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.e_conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.e_conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.e_conv4 = nn.Conv2d(width, width, 3, padding=1)
        self.e_conv5 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.e_conv6 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.e_conv7 = nn.Conv2d(2 * width, 24, 3, padding=1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        one = functional.relu(self.e_conv1(inputs))
        two = functional.relu(self.e_conv2(one))
        three = functional.relu(self.e_conv3(two))
        four = functional.relu(self.e_conv4(three))
        five = functional.relu(self.e_conv5(torch.cat([three, four], dim=1)))
        six = functional.relu(self.e_conv6(torch.cat([two, five], dim=1)))
        rates = torch.tanh(self.e_conv7(torch.cat([one, six], dim=1)))
        light = inputs
        for rate in torch.split(rates, 3, dim=1):
            light = light + rate * (light * light - light)
        return light
