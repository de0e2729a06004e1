"""Small networks and pictures that the quantisation tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SIZE = 16


class Residual(nn.Module):
    """conv-bn-relu, a residual sum, a gate, pooling and a linear layer: `(N, 3, 16, 16)` -> `(N, 10)`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8))
        self.gate = nn.Conv2d(8, 8, 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.stem(image)
        features = functional.relu(features + self.body(features))
        pooled = functional.adaptive_avg_pool2d(features, 1)
        features = features * functional.hardsigmoid(self.gate(pooled))
        return self.head(self.drop(functional.adaptive_avg_pool2d(features, 1).flatten(1)))


def residual(seed: int = 0) -> nn.Module:
    """`Residual` with settled batch norms."""
    torch.manual_seed(seed)
    module = Residual()
    with torch.no_grad():
        for _ in range(20):
            module(torch.from_numpy(images(16)))
    return module.eval()


def images(count: int, *, seed: int = 0, size: int = SIZE, channels: int = 3) -> np.ndarray:
    """Smooth random pictures `(count, channels, size, size)` float32, about -3..3."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(count, channels, size // 4, size // 4))
    fine = random.normal(scale=0.3, size=(count, channels, size, size))
    return (np.kron(coarse, np.ones((4, 4))) + fine).astype(np.float32)


def batches(arrays: np.ndarray, *, batch_size: int = 8) -> Callable[[], Iterator[tuple[np.ndarray, Any]]]:
    """`Batches` of these pictures, without truths."""

    def start() -> Iterator[tuple[np.ndarray, Any]]:
        for index in range(0, len(arrays), batch_size):
            yield arrays[index : index + batch_size], None

    return start


def example(size: int = SIZE) -> torch.Tensor:
    return torch.from_numpy(images(1, seed=9, size=size))


def targets(graph: Any) -> list[str]:
    """Names of the operators of a graph, in order, such as 'conv2d'."""
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    return [getattr(node.target, "__name__", "").split(".")[0] for node in nodes]


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    error = float(((reference - other) ** 2).sum())
    return 10 * np.log10(float((reference**2).sum()) / max(error, 1e-30))
