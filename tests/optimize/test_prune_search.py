"""The search for channels that go together: what the library finds, and that it ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_pruning
from torch import nn

from edgecv.models.reference import cifar_resnet20, digits_cnn
from edgecv.models.reference_hrnet import hrnet_pose
from edgecv.optimize.prune_graph import Region, dependency_graph, groups_of, sound_groups
from edgecv.optimize.prune_search import Graph
from tests.networks import SMALL_DPT


def found(graph: Any, module: nn.Module) -> list[list[tuple[str, str, list[int], list[int]]]]:
    """Every group as plain values: what is cut, by what, which channels, and whose they are."""
    names = {child: name for name, child in module.named_modules()}
    return [
        [(names.get(d.target.module, d.target.name), d.handler.__name__, i, group[k].root_idxs) for k, (d, i) in items]
        for group in graph.get_all_groups()
        for items in [list(enumerate(group))]
    ]


@pytest.mark.parametrize(
    ("module", "example"),
    [
        (digits_cnn(width=8), torch.zeros(1, 1, 32, 32)),
        (cifar_resnet20(), torch.zeros(1, 3, 32, 32)),
        (hrnet_pose(), torch.zeros(1, 3, 64, 64)),
    ],
    ids=["concatenation", "residual", "branches"],
)
def test_it_finds_what_the_library_finds(module: nn.Module, example: torch.Tensor) -> None:
    module.eval()
    graph = dependency_graph(module, example)
    assert isinstance(graph, Graph)
    plain = torch_pruning.DependencyGraph().build_dependency(module, example, forward_fn=lambda m, i: m(i))
    assert found(graph, module) == found(plain, module)
    assert not graph.endless


@pytest.mark.timeout(120)
def test_tokens_that_become_a_map_do_not_keep_it_for_ever() -> None:
    """torch-pruning 1.6 alone fills the memory here; the layers inside the blocks can be cut all the same."""
    from transformers import DPTConfig, DPTForDepthEstimation

    class Depth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = DPTForDepthEstimation(DPTConfig(**SMALL_DPT))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            depth: torch.Tensor = self.net(inputs).predicted_depth
            return depth

    torch.manual_seed(0)
    module, example = Depth().eval(), torch.zeros(1, 3, 64, 64)
    region = Region("", example)
    groups = [group for group, _ in groups_of(module, region, protected=frozenset())]
    cut = {group.layer for group in sound_groups(module, [region], groups, example=example)}
    assert {f"net.dpt.encoder.layer.{block}.intermediate.dense" for block in range(4)} <= cut
    assert not any("attention" in layer for layer in cut)
