"""Which channels must be scaled alike, followed through everything that only moves or mixes places."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.optimize.capture import capture
from edgecv.optimize.channels import Channels, apply_factors, find_channels
from edgecv.optimize.level import level_channels

from .quantize_nets import example

FACTORS = 2.0 ** torch.arange(-4, 4).float()


class Net(nn.Module):
    """Two layers that make 8 channels each, what ``kind`` says between them, and a reader of the result."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.one, self.side = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        inputs = {"split": 3, "concat": 16, "shuffle": 8, "pixels": 2, "flatten": 128, "slope": 8}.get(kind, 8)
        self.two = nn.Linear(inputs, 4) if kind == "flatten" else nn.Conv2d(inputs, 4, 1)
        self.slope = nn.PReLU(8)

    def forward(self, image: torch.Tensor) -> Any:
        made, side = functional.relu(self.one(image)), functional.leaky_relu(self.side(image))
        if self.kind == "split":
            first, rest = torch.split(made, [3, 5], dim=1)
            return self.two(first), rest
        if self.kind == "concat":
            return self.two(torch.cat([made, functional.max_pool2d(side, 3, 1, 1)], dim=1))
        if self.kind == "shuffle":
            n, c, h, w = made.shape
            return self.two(made.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))
        if self.kind == "pixels":
            return self.two(functional.pixel_shuffle(made, 2))
        if self.kind == "flatten":
            return self.two(functional.adaptive_avg_pool2d(made, 4).flatten(1))
        if self.kind == "gate":
            return self.two(made * side.mean((2, 3), keepdim=True).sigmoid())
        if self.kind == "slope":
            return self.two(self.slope(self.one(image)))
        if self.kind == "softmax":
            return self.two(made.softmax(dim=1))
        if self.kind == "broadcast":
            return self.two(made + side.mean(dim=1, keepdim=True))
        return self.two(made + side)


def free_of(graph: Any, channels: Channels, layer: str) -> list[bool]:
    """Whether each output channel of the layer can be scaled."""
    node = next(node for node in channels.made if node.args[1].target == f"{layer}.weight")  # type: ignore[union-attr]
    return [bool(item) for item in channels.free[channels.made[node]]]


@pytest.mark.parametrize(
    ("kind", "classes", "one", "side"),
    [
        ("sum", 8, 8, 8),  # each channel of the one with its partner
        ("concat", 16, 8, 8),
        ("split", 3, 3, 0),  # the rest is an output
        ("shuffle", 8, 8, 0),
        ("pixels", 2, 8, 0),  # four channels become the places of one
        ("flatten", 8, 8, 0),
        ("gate", 8, 8, 0),  # the gate's own channels stay as they are
        ("slope", 8, 8, 0),
        ("softmax", 0, 0, 0),
        ("broadcast", 1, 8, 0),  # what is added to all of them ties them together, and is a mean of others
    ],
)
def test_channels_are_followed(kind: str, classes: int, one: int, side: int) -> None:
    graph = capture(Net(kind), example())
    channels = find_channels(graph)
    if kind == "broadcast":
        assert sum(free_of(graph, channels, "one")) in (0, 8)
        return
    assert int(channels.free.sum()) == classes
    assert sum(free_of(graph, channels, "one")) == one
    if any(node.args[1].target == "side.weight" for node in channels.made):  # type: ignore[union-attr]
        assert sum(free_of(graph, channels, "side")) == side


@pytest.mark.parametrize(
    "kind", ["sum", "concat", "split", "shuffle", "pixels", "flatten", "gate", "slope", "softmax", "broadcast"]
)
def test_any_factors_leave_the_function_as_it_is(kind: str) -> None:
    module = Net(kind)
    graph = capture(module, example())
    channels = find_channels(graph)
    random = torch.Generator().manual_seed(1)
    factors = 2.0 ** torch.randint(-5, 6, (channels.count,), generator=random).double()
    before = graph.one.weight.detach().clone()  # type: ignore[union-attr]
    apply_factors(graph, channels, torch.where(channels.free, factors, torch.ones_like(factors)))
    for found, wanted in zip(_list(graph(example())), _list(module(example())), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert bool(channels.free.any()) == (not torch.equal(graph.one.weight, before))  # type: ignore[arg-type]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_strength_says_how_far_mixed_channels_are_levelled(strength: float) -> None:
    module = Net("concat")
    with torch.no_grad():
        module.one.weight *= FACTORS.reshape(-1, 1, 1, 1)
        module.one.bias *= FACTORS  # type: ignore[operator]
    graph: Any = capture(module, example())
    pictures = [torch.rand(1, *example().shape[1:], generator=torch.Generator().manual_seed(4))]

    def spread() -> float:
        values = functional.relu(functional.conv2d(pictures[0], graph.one.weight, graph.one.bias, padding=1))
        sizes = values.amax(dim=(0, 2, 3))
        return float((sizes.max() / sizes.min()).detach())

    before = spread()
    names = level_channels(graph, pictures, strength=strength)
    assert bool(names) == (strength > 0)
    assert spread() == pytest.approx(before ** (1 - strength), rel=0.05)
    assert torch.allclose(graph(example()), module(example()), rtol=1e-4, atol=1e-4)


def _list(outputs: Any) -> list[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
