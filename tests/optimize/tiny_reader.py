"""A tiny data set that can be learned: three classes of 8x8 gray pictures with noise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Sample
from edgecv.core.recipe import FamilySpec

CONTRACT = InputContract(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,))
FAMILY = FamilySpec(kind="classification", labels=("top", "middle", "bottom"))


@dataclass
class TinyReader:
    """``count`` pictures; picture i is of class i % 3, a bright band at the top, in the middle, or below."""

    count: int = 60
    reads: list[int] = field(default_factory=list)
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> Sequence[str]:
        return [str(index) for index in range(self.count)]

    @property
    def truths(self) -> Sequence[int]:
        return [index % 3 for index in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        self.reads.append(index)
        image = np.random.default_rng(index).integers(0, 100, (8, 8)).astype(np.uint8)
        row = index % 3 * 3
        image[row : row + 2] += 120
        return Sample(id=str(index), image=image, truth=index % 3)

    def sha256(self, index: int) -> str:
        return hashlib.sha256(self[index].image.tobytes()).hexdigest()

    def fingerprint(self) -> str:
        return str(self.count)


def tiny_net(seed: int = 0, *, dropout: float = 0.0) -> nn.Module:
    """A small network for the tiny data set, with batch norm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(128, 3),
        )
