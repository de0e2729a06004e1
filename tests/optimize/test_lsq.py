"""Learned step sizes: the gradients of the paper, one scale where one is shared, and the scale that is deployed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgecv.optimize.capture import capture
from edgecv.optimize.lsq import LearnedSteps, learn_steps
from edgecv.optimize.pt2e import (
    FakeQuantize,
    MinMaxObserver,
    PerChannelMinMaxObserver,
    convert_pt2e,
    prepare_qat_pt2e,
)
from edgecv.optimize.quantizer import EdgeQuantizer


def observed(values: torch.Tensor, *, axis: int | None = None) -> FakeQuantize:
    """A fake quantiser that has seen ``values``."""
    scheme = torch.per_tensor_symmetric if axis is None else torch.per_channel_symmetric
    kind = MinMaxObserver if axis is None else PerChannelMinMaxObserver
    options = {} if axis is None else {"ch_axis": axis}
    fake = FakeQuantize(kind, quant_min=-127, quant_max=127, dtype=torch.int8, qscheme=scheme, **options)
    fake(values)
    return fake


def paper(values: torch.Tensor, scale: float) -> tuple[torch.Tensor, float, torch.Tensor]:
    """Result, gradient of the scale, gradient of the values, for an upstream gradient of ones (equations 1 to 5)."""
    steps = values / scale
    rounded = steps.round().clamp(-127, 127)
    inside = (steps > -127) & (steps < 127)
    by_scale = torch.where(inside, rounded - steps, rounded)
    return rounded * scale, float(by_scale.sum()) / math.sqrt(values.numel() * 127), inside.float()


def test_gradients_are_the_papers() -> None:
    values = torch.linspace(-0.97, 3, 41)  # none on the very edge, where either gradient is right
    learned = LearnedSteps(observed(torch.linspace(-1, 1, 5)))
    start = float(learned.start)
    source = values.clone().requires_grad_()
    result = learned(source)
    result.sum().backward()
    expected, by_scale, by_values = paper(values, start)
    assert torch.allclose(result, expected, atol=1e-6)
    assert torch.equal(source.grad, by_values)
    # The parameter is the scale over its start: one step of SGD moves both by the same share.
    assert float(learned.relative.grad) == pytest.approx(by_scale / start, rel=1e-4)


def test_each_channel_has_its_own_gradient() -> None:
    weight = torch.stack([torch.linspace(-1, 1, 8), torch.linspace(-9, 9, 8)])
    learned = LearnedSteps(observed(weight, axis=0))
    with torch.no_grad():
        learned.relative.copy_(torch.tensor([1.0, 0.5]))
    learned(weight.requires_grad_()).sum().backward()
    for row in range(2):
        start = float(learned.start[row])
        _, by_scale, _ = paper(weight[row].detach(), float(learned.scale[row]))
        assert float(learned.relative.grad[row]) == pytest.approx(by_scale / start, rel=1e-3, abs=1e-3)


def test_a_step_that_clips_too_much_grows_and_one_too_coarse_shrinks() -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    best = {}
    for widest in (0.5, 400.0):
        learned = LearnedSteps(observed(torch.tensor([-widest, widest])))
        optimizer = torch.optim.Adam(learned.parameters(), lr=0.02)
        for _ in range(400):
            optimizer.zero_grad()
            (learned(values) - values).square().sum().backward()
            optimizer.step()
        best[widest] = float(learned.scale)
    assert best[0.5] > 3 * 0.5 / 127
    assert best[400.0] < 0.5 * 400.0 / 127


def test_a_step_cannot_vanish() -> None:
    learned = LearnedSteps(observed(torch.tensor([-1.0, 1.0])))
    with torch.no_grad():
        learned.relative.fill_(-5.0)
    assert float(learned.scale) > 0
    assert torch.isfinite(learned(torch.ones(3))).all()


class Shared(nn.Module):
    """A sum, whose parts and result share one scale by the rules, and a convolution with a scale a channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other, self.last = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.one(x) + self.other(x))


@pytest.mark.build
def test_learned_scales_are_shared_where_rules_share_them_and_reach_the_graph() -> None:
    pictures = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    graph = capture(Shared().eval(), pictures)
    prepared = prepare_qat_pt2e(graph, EdgeQuantizer(scheme="portable", training=True))
    prepared(pictures)
    count = len({id(part) for part in prepared.modules() if isinstance(part, FakeQuantize)})
    names = len(
        [name for name, part in prepared.named_modules(remove_duplicate=False) if isinstance(part, FakeQuantize)]
    )
    assert names > count  # something is shared, or this test shows nothing
    assert learn_steps(prepared) == count
    learned = {id(part): part for part in prepared.modules() if isinstance(part, LearnedSteps)}
    assert len(learned) == count
    with torch.no_grad():
        for index, part in enumerate(learned.values()):
            part.relative.mul_(1.0 + 0.01 * (index + 1))
    expected = sorted(float(scale) for part in learned.values() if not part.is_per_channel for scale in part.scale)
    outputs = prepared(pictures)
    converted = convert_pt2e(prepared, fold_quantize=False)
    deployed = {
        float(node.args[1])
        for node in converted.graph.nodes
        if node.target is torch.ops.quantized_decomposed.quantize_per_tensor.default
    }
    assert sorted(deployed) == pytest.approx(expected)
    assert (converted(pictures) - outputs).abs().max() <= max(expected) * 1.01
