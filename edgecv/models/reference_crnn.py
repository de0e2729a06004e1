"""CRNN: a reader of text lines with recurrent layers, for weights that are in wide use."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

__all__ = ["crnn"]

_WIDTHS = (64, 128, 256, 256, 512, 512, 512)
_NORMED = (2, 4, 6)


def crnn(*, num_classes: int = 37, hidden: int = 256, channels: int = 1, width_share: float = 1.0) -> nn.Module:
    """Reads a line of print: `(N, channels, 32, W)` float32 -> logits `(N, W / 4 + 1, num_classes)`, the blank first.

    Shi, Bai, Yao: An End-to-End Trainable Neural Network for Image-based Sequence Recognition, arXiv:1507.05717, with
    the names of the state dict that is in wide use (cnn.conv0, ..., rnn.0.rnn, rnn.1.embedding): seven convolutions
    and two bidirectional LSTM. ``width_share`` makes the convolutions narrower. It has 8.3 million parameters.
    """
    return _Crnn(num_classes, hidden, channels, [max(1, round(width * width_share)) for width in _WIDTHS])


class _Crnn(nn.Module):
    def __init__(self, num_classes: int, hidden: int, channels: int, widths: list[int]) -> None:
        super().__init__()
        self.cnn = nn.Sequential(_layers(channels, widths))
        self.rnn = nn.Sequential(
            _Recurrent(widths[-1], hidden, hidden),
            _Recurrent(hidden, hidden, num_classes),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.cnn(inputs)
        return self.rnn(features.squeeze(2).transpose(1, 2))


class _Recurrent(nn.Module):
    """A bidirectional LSTM along the line and a linear layer; `(N, T, inputs)` -> `(N, T, outputs)`."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=True)
        self.embedding = nn.Linear(2 * hidden, outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.embedding(self.rnn(inputs)[0])


def _layers(channels: int, widths: list[int]) -> "OrderedDict[str, nn.Module]":
    pools: dict[int, nn.Module] = {
        0: nn.MaxPool2d(2, 2),
        1: nn.MaxPool2d(2, 2),
        3: nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
        5: nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
    }
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (inputs, outputs) in enumerate(zip([channels, *widths], widths, strict=False)):
        last = index == len(widths) - 1
        layers[f"conv{index}"] = nn.Conv2d(inputs, outputs, 2 if last else 3, 1, 0 if last else 1)
        if index in _NORMED:
            layers[f"batchnorm{index}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{index}"] = nn.ReLU()
        if index in pools:
            layers[f"pooling{index}"] = pools[index]
    return layers
