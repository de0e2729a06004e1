"""Reference networks that read a line of text: one row of symbol scores for each place along it."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

__all__ = ["ctc_cnn", "lprnet"]


def ctc_cnn(*, num_classes: int, width: int = 16, channels: int = 1, height: int = 32) -> nn.Module:
    """Reads a line of print: `(N, channels, height, W)` float32 -> logits `(N, num_classes, W / 4)`.

    A CRNN (Shi, Bai, Yao, arXiv:1507.05717) without its recurrent part, so that every engine takes all of it:
    convolutions that halve the height four times and the width twice, a wide one along the line, and a 1x1 one
    for the symbols. ``num_classes`` counts the blank; ``height`` is a multiple of 16.
    """
    return nn.Sequential(
        OrderedDict(
            stem=_conv(channels, width, stride=(2, 2)),
            down1=_conv(width, 2 * width, stride=(2, 2)),
            down2=_conv(2 * width, 4 * width, stride=(2, 1)),
            mix=_conv(4 * width, 4 * width),
            down3=_conv(4 * width, 4 * width, stride=(2, 1)),
            # As high as what is left of the picture: the line is one row behind it.
            line=_conv(4 * width, 6 * width, kernel=(height // 16, 5), padding=(0, 2)),
            head=nn.Conv2d(6 * width, num_classes, 1),
            flat=nn.Flatten(2),
        )
    )


def lprnet(*, num_classes: int = 68) -> nn.Module:
    """LPRNet for licence plates: `(N, 3, 24, 94)` float32 -> logits `(N, num_classes, 18)`, the blank among them.

    Zherzdev, Gruzdev: LPRNet, arXiv:1806.10447, with the widths and names of the state dict that is in wide use
    for Chinese plates (backbone.0.weight, ..., container.0.weight). Its feature maps are each divided by their mean
    square. That is taken over each picture here, so the answer to one does not depend on the others of its batch.
    """
    return _LPRNet(num_classes)


def _conv(
    inputs: int,
    outputs: int,
    *,
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
            norm=nn.BatchNorm2d(outputs),
            act=nn.ReLU(),
        )
    )


class _Block(nn.Module):
    """A 3x3 convolution taken apart into 3x1 and 1x3 between two 1x1, a quarter of the outputs wide."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.block = nn.Sequential(
            nn.Conv2d(inputs, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, inner, (3, 1), padding=(1, 0)),
            nn.ReLU(),
            nn.Conv2d(inner, inner, (1, 3), padding=(0, 1)),
            nn.ReLU(),
            nn.Conv2d(inner, outputs, 1),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.block(inputs)


class _EveryNth(nn.Module):
    """Every ``step``-th channel, then the maximum of 3x3 places, every second one along the line.

    The same as a 3-d max pooling with kernel (1, 3, 3) and stride (step, 1, 2), which engines for pictures lack.
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step
        self.pool = nn.MaxPool2d(3, (1, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.pool(inputs[:, :: self.step])


class _LPRNet(nn.Module):
    _KEPT = (2, 6, 13, 22)
    """Layers of the backbone whose feature maps the symbols are read from."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 64, 3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 1),
            _Block(64, 128),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            _EveryNth(2),
            _Block(64, 256),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            _Block(256, 256),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            _EveryNth(4),
            nn.Dropout(0.5),
            nn.Conv2d(64, 256, (1, 4)),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(256, num_classes, (13, 1)),
            nn.BatchNorm2d(num_classes),
            nn.ReLU(),
        )
        self.container = nn.Sequential(nn.Conv2d(448 + num_classes, num_classes, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        kept = []
        features = inputs
        for index, layer in enumerate(self.backbone):
            features = layer(features)
            if index in self._KEPT:
                kept.append(features)
        # All maps to the 4 x 18 places of the last one.
        places = [
            functional.avg_pool2d(kept[0], 5, 5),
            functional.avg_pool2d(kept[1], 5, 5),
            functional.avg_pool2d(kept[2], (4, 10), (4, 2)),
            kept[3],
        ]
        scaled = [item / (item * item).mean((1, 2, 3), keepdim=True) for item in places]
        return self.container(torch.cat(scaled, 1)).mean(2)
