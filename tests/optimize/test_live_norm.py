"""Batch norms that come back into a folded graph: the same function, torch's own training, folded at the end."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgecv.optimize.capture import capture
from edgecv.optimize.fold import FOLDED, FoldedNorm
from edgecv.optimize.live_norm import LiveNorm, fold_live_norms, restore_norms, set_live, share_of_run


def network() -> nn.Module:
    """Convolutions and a linear layer with batch norms whose statistics and weights are not the neutral ones."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4, eps=1e-3, momentum=0.3),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 5),
        nn.BatchNorm1d(5),
    )
    for part in module:
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(part.weight, -2, 2)
            nn.init.uniform_(part.bias, -1, 1)
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module.eval()


PICTURES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def graph() -> torch.fx.GraphModule:
    captured = capture(network(), PICTURES, dynamic_batch=True)
    assert restore_norms(captured, captured.meta[FOLDED]) == 3
    return captured


def test_frozen_norms_compute_what_the_network_does(graph: torch.fx.GraphModule) -> None:
    assert torch.allclose(graph(PICTURES), network()(PICTURES), atol=1e-4)


def test_live_norms_normalise_by_the_batch_and_follow_it_as_torch_does(graph: torch.fx.GraphModule) -> None:
    set_live(graph, True)
    module = network().train()
    for _ in range(3):
        assert torch.allclose(graph(PICTURES), module(PICTURES), atol=1e-3)
    set_live(graph, False)
    assert torch.allclose(graph(PICTURES), module.eval()(PICTURES), atol=1e-3)
    assert not torch.allclose(graph(PICTURES), network()(PICTURES), atol=0.1)


def test_folded_for_good_the_graph_computes_the_same_without_norms(graph: torch.fx.GraphModule) -> None:
    set_live(graph, True)
    with torch.no_grad():
        graph(PICTURES)
    for part in graph.modules():
        if isinstance(part, LiveNorm):
            nn.init.uniform_(part.gain, 0.5, 2)
            nn.init.uniform_(part.offset, -1, 1)
    set_live(graph, False)
    expected = graph(PICTURES)
    assert fold_live_norms(graph) == 3
    assert torch.allclose(graph(PICTURES), expected, atol=1e-4)
    assert not any(isinstance(part, LiveNorm) for part in graph.modules())
    assert all(node.op != "call_module" for node in graph.graph.nodes)


def test_gradients_reach_weight_gain_and_offset(graph: torch.fx.GraphModule) -> None:
    for live in (True, False):
        set_live(graph, live)
        graph.zero_grad()
        graph(PICTURES).square().sum().backward()
        norms = [part for part in graph.modules() if isinstance(part, LiveNorm)]
        assert all(float(part.gain.grad.abs().sum()) > 0 for part in norms)
        assert all(float(part.offset.grad.abs().sum()) > 0 for part in norms)


def test_a_dead_channel_stays_finite() -> None:
    module = network()
    with torch.no_grad():
        module[1].weight[0] = 0.0
        module[1].running_var[0] = 0.0
    captured = capture(copy.deepcopy(module), PICTURES, dynamic_batch=True)
    restore_norms(captured, captured.meta[FOLDED])
    assert torch.allclose(captured(PICTURES), module(PICTURES), atol=1e-4)
    set_live(captured, True)
    captured(PICTURES).sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in captured.parameters() if value.grad is not None)


def test_layers_that_had_no_norm_are_left_alone() -> None:
    captured = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), PICTURES)
    assert restore_norms(captured, captured.meta[FOLDED]) == 0


def test_in_a_stream_norms_follow_all_frames_and_normalise_as_frozen_ones() -> None:
    known = FoldedNorm(torch.zeros(2), torch.ones(2), torch.full((2,), 1e-5), 0.3)
    norm = LiveNorm(known, torch.zeros(2), frames=4)
    offsets = torch.tensor([0.0, 3.0, 3.0, 6.0]).reshape(4, 1, 1, 1, 1)
    frames = torch.randn(4, 16, 2, 5, 5, generator=torch.Generator().manual_seed(2)) + offsets
    norm.live = False
    wanted = norm(frames[1])
    norm.live = True
    assert torch.equal(norm(frames[1]), wanted), "its own statistics, not those of the batch"
    with torch.no_grad():
        for _ in range(60):
            for frame in frames:
                norm(frame * norm.factor().reshape(1, 2, 1, 1))  # as the layer gives it
    assert torch.allclose(norm.mean, frames.mean(dim=(0, 1, 3, 4)), atol=0.4)
    assert torch.allclose(norm.variance, frames.var(dim=(0, 1, 3, 4)), rtol=0.15), "with what lies between frames"


def test_gradients_go_back_through_all_frames_while_the_statistics_move() -> None:
    captured = capture(network(), PICTURES, dynamic_batch=True)
    restore_norms(captured, captured.meta[FOLDED], frames=3)
    set_live(captured, True)
    sum(captured(PICTURES + shift).square().sum() for shift in range(3)).backward()
    norms = [part for part in captured.modules() if isinstance(part, LiveNorm)]
    assert all(float(part.gain.grad.abs().sum()) > 0 for part in norms)


def test_runs_weigh_together_what_one_batch_does() -> None:
    assert share_of_run(0.1, 1) == pytest.approx(0.1)
    assert (1 - share_of_run(0.1, 12)) ** 12 == pytest.approx(0.9)
    assert share_of_run(1.0, 5) == 1.0
