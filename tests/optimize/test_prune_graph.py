"""Groups of channels: what is found, and that a wrong group never passes its trial."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecv.models.reference import cifar_resnet20, digits_cnn
from edgecv.optimize import prune_graph
from edgecv.optimize.prune_graph import Cut, Prunable, Region, find_regions, is_sound, sound_groups

IMAGE = torch.zeros(1, 3, 16, 16)


def usable(module: nn.Module, example: torch.Tensor) -> list[Prunable]:
    module.eval()
    regions = find_regions(module, example)
    found = [group for region in regions for group, _ in prune_graph.groups_of(module, region, protected=frozenset())]
    return sound_groups(module, regions, found, example=example)


class Twisted(nn.Module):
    """Two convolutions with the channels turned round between them, which tracing takes for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.three(torch.relu(self.two(torch.relu(self.one(inputs)).flip(1))))
        return self.head(features.mean(dim=(2, 3)))


def test_a_network_that_would_run_and_be_wrong_is_not_cut() -> None:
    torch.manual_seed(0)
    module = Twisted().eval()
    regions = [Region("", IMAGE)]
    assert not is_sound(module, regions, [Cut(0, "", "one", (1, 5))], example=IMAGE)
    assert is_sound(module, regions, [Cut(0, "", "two", (1, 5))], example=IMAGE)
    # Cut at both ends alike, the turned channels still meet their own weights.
    assert is_sound(module, regions, [Cut(0, "", "one", (1, 6))], example=IMAGE)
    assert {group.layer for group in usable(module, IMAGE)} == {"two", "three"}


def test_the_trial_leaves_the_network_alone() -> None:
    module = digits_cnn(width=8).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    is_sound(module, [Region("", torch.zeros(1, 1, 32, 32))], [Cut(0, "", "stem.conv", (1,))], example=IMAGE[:, :1])
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())


def test_padded_shortcuts_keep_their_stream_and_blocks_are_cut_inside() -> None:
    layers = {group.layer for group in usable(cifar_resnet20(), torch.zeros(1, 3, 32, 32))}
    assert layers == {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)}


def test_protected_layers_and_everything_tied_to_them_stay() -> None:
    module = digits_cnn(width=8).eval()
    region = Region("", torch.zeros(1, 1, 32, 32))
    everything = {group.layer for group, _ in prune_graph.groups_of(module, region, protected=frozenset())}
    kept = frozenset({"residual.second", "head"})
    rest = {group.layer for group, _ in prune_graph.groups_of(module, region, protected=kept)}
    assert {"residual.second", "down.conv", "separable.depthwise.conv", "head"}.isdisjoint(rest)
    assert {"stem.conv", "mix.conv"} <= rest < everything


class Grouped(nn.Module):
    """A grouped convolution and a group norm, both in four parts."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=4)
        self.norm, self.head = nn.GroupNorm(4, 16), nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.two(self.one(inputs)))).mean(dim=(2, 3)))


class Ghost(nn.Module):
    """A convolution whose own output is joined with a depthwise copy, added to a full one."""

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.part = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 8, 1)
        self.cheap = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        half = torch.relu(self.part(inputs))
        joined = torch.cat([half, self.cheap(half)], dim=1)
        return self.head((joined + torch.relu(self.whole(inputs))).mean(dim=(2, 3)))


@pytest.mark.parametrize(("module", "layer", "unit"), [(Grouped(), "one", (1, 5, 9, 13)), (Ghost(), "whole", (1, 9))])
def test_channels_that_only_go_together_are_one_unit(module: nn.Module, layer: str, unit: tuple[int, ...]) -> None:
    groups = {group.layer: group for group in usable(module, IMAGE)}
    assert unit in groups[layer].units
    assert groups[layer].channels == 16


class Shuffled(nn.Module):
    """Blocks that halve the channels, work on one half and shuffle (ShuffleNetV2's)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.work = nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 1), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        left, right = self.stem(inputs).chunk(2, dim=1)
        joined = torch.cat([left, self.work(right)], dim=1)
        batch, channels, height, width = joined.shape
        shuffled = joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(joined.shape)
        return self.head(shuffled.mean(dim=(2, 3)))


def test_shuffled_channels_keep_their_width_and_branches_are_cut_inside() -> None:
    found = {f"{group.region}.{group.layer}".lstrip(".") for group in usable(Shuffled(), IMAGE)}
    assert found == {"work.0"}


def test_regions_are_the_largest_parts_that_can_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    real = prune_graph.dependency_graph

    def fails_on_the_whole(module: nn.Module, example: torch.Tensor) -> object:
        if isinstance(module, Shuffled):
            raise ZeroDivisionError
        return real(module, example)

    monkeypatch.setattr(prune_graph, "dependency_graph", fails_on_the_whole)
    regions = find_regions(Shuffled().eval(), IMAGE)
    assert [(region.name, tuple(region.example.shape)) for region in regions] == [("work", (1, 8, 16, 16))]


class Attention(nn.Module):
    """One head-splitting block with a residual stream, as in vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(inputs).flatten(2).transpose(1, 2)
        batch, count, _ = tokens.shape
        parts = self.qkv(self.norm(tokens)).reshape(batch, count, 3, 4, 4).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        tokens = tokens + self.proj(mixed.transpose(1, 2).reshape(batch, count, 16))
        tokens = tokens + self.down(nn.functional.gelu(self.up(tokens)))
        return self.head(tokens.mean(dim=1))


def test_attention_heads_stay_whole() -> None:
    groups = usable(Attention(), IMAGE)
    layers = {group.layer for group in groups}
    assert "up" in layers
    assert "qkv" not in layers
