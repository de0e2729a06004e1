"""Small reference networks: quick to train on a CPU, and real enough to test every step on."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

__all__ = ["cifar_resnet20", "digits_cnn"]


def digits_cnn(*, num_classes: int = 10, width: int = 32) -> nn.Module:
    """A classifier of 32x32 gray pictures: `(N, 1, 32, 32)` float32 -> logits `(N, num_classes)`.

    Plain, residual and depthwise-separable blocks, each convolution with batch norm and ReLU, so that
    pruning and quantisation meet all three. ``width`` is the number of channels of the first layer;
    at 32 the network has 146,000 parameters and needs 6.8 million multiply-accumulates.
    """
    return nn.Sequential(
        OrderedDict(
            stem=_conv(1, width, kernel=3, stride=2),
            down=_conv(width, 2 * width, kernel=3, stride=2),
            residual=_Residual(2 * width),
            separable=nn.Sequential(
                OrderedDict(
                    depthwise=_conv(2 * width, 2 * width, kernel=3, stride=2, groups=2 * width),
                    pointwise=_conv(2 * width, 4 * width, kernel=1),
                )
            ),
            mix=_conv(4 * width, 4 * width, kernel=1),
            spread=_conv(4 * width, 6 * width, kernel=1),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(6 * width, num_classes),
        )
    )


def cifar_resnet20(*, num_classes: int = 10) -> nn.Module:
    """ResNet-20 for 32x32 colour pictures: `(N, 3, 32, 32)` float32 -> logits `(N, num_classes)`.

    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, section 4.2, arXiv:1512.03385,
    with parameter-free shortcuts (option A): every second pixel, and zeros for the new channels. The
    names of the state dict (conv1, bn1, layer1.0.conv1, ..., linear) are those in wide use for it.
    """
    return _CifarResNet(blocks=3, num_classes=num_classes)


def _conv(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            norm=nn.BatchNorm2d(outputs),
            act=nn.ReLU(inplace=False),
        )
    )


class _Residual(nn.Module):
    """Two convolutions and the way around them; `(N, channels, H, W)` -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, kernel=3)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.norm(self.second(self.first(inputs))) + inputs)


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.new_channels = outputs - inputs

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = functional.relu(self.bn1(self.conv1(inputs)))
        outputs = self.bn2(self.conv2(outputs))
        return functional.relu(outputs + self._shortcut(inputs))

    def _shortcut(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.new_channels == 0:
            return inputs
        half = self.new_channels // 2
        return functional.pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))


class _CifarResNet(nn.Module):
    def __init__(self, *, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
        first = _BasicBlock(inputs, outputs, stride)
        return nn.Sequential(first, *(_BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = functional.relu(self.bn1(self.conv1(inputs)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(functional.adaptive_avg_pool2d(features, 1).flatten(1))
