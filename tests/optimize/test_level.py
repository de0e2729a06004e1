from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.core.recipe import Quantize
from edgecv.optimize.capture import capture
from edgecv.optimize.level import level_channels
from edgecv.optimize.ptq import prepare_ptq
from edgecv.optimize.sensitivity import output_sqnr_db
from edgecv.optimize.switches import make_board

from .quantize_nets import batches, example, images

FACTORS = 2.0 ** torch.arange(-6, 6).float()
CHANNELS = len(FACTORS)


class Separable(nn.Module):
    """A pointwise layer with channels of very different size, ``between``, a depthwise layer that evens them out."""

    def __init__(self, between: str = "none", *, mixed: bool = False, multiplier: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between, self.mixed = between, mixed
        self.one = nn.Conv2d(3, CHANNELS, 1)
        self.wise = nn.Conv2d(CHANNELS, CHANNELS * multiplier, 3, groups=CHANNELS)
        self.side = nn.Conv2d(CHANNELS, 4, 3)
        self.last = nn.Conv2d(CHANNELS * multiplier, 4, 1)
        with torch.no_grad():
            self.one.weight *= FACTORS.reshape(-1, 1, 1, 1)
            self.one.bias *= FACTORS  # type: ignore[operator]
            self.wise.weight /= FACTORS.repeat_interleave(multiplier).reshape(-1, 1, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = self.one(image)
        if self.between == "sum":
            made = made + self.one(image.flip(2))
        elif self.between != "none":
            made = getattr(functional, self.between)(made)
        wise = self.last(self.wise(made))
        mixed: torch.Tensor = wise + self.side(made) if self.mixed else wise
        return mixed


def pictures() -> list[torch.Tensor]:
    return [torch.from_numpy(array[None]) for array in images(8)]


def channel_ratio(graph: Any) -> float:
    """Largest over smallest channel of what the first layer makes."""
    with torch.no_grad():
        values = functional.conv2d(torch.cat(pictures()), graph.one.weight, graph.one.bias)
    sizes = values.abs().amax(dim=(0, 2, 3))
    return float(sizes.max() / sizes.min())


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("between", ["none", "relu", "leaky_relu"])
def test_channels_become_alike_and_the_function_stays(between: str, multiplier: int) -> None:
    module = Separable(between, multiplier=multiplier)
    graph: Any = capture(module, example())
    assert channel_ratio(graph) > 500
    names = level_channels(graph, pictures())
    assert len(names) == 1
    assert channel_ratio(graph) < 10
    assert torch.allclose(graph(example()), module(example()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("between", ["relu6", "silu", "hardswish", "sigmoid"])
def test_what_does_not_keep_scales_is_left_alone(between: str) -> None:
    graph: Any = capture(Separable(between), example())
    assert level_channels(graph, pictures()) == ()


def test_what_a_mixing_layer_reads_as_well_is_left_alone() -> None:
    graph: Any = capture(Separable(mixed=True), example())
    assert level_channels(graph, pictures()) == ()


def test_a_weight_that_two_places_use_is_left_alone() -> None:
    graph: Any = capture(Separable("sum"), example())
    assert level_channels(graph, pictures()) == ()


def test_dead_channels_and_large_biases_stay_within_the_accumulator() -> None:
    module = Separable()
    with torch.no_grad():
        module.one.weight[3] = 0
        module.one.bias[3] = 0  # type: ignore[index]
        module.wise.bias[0] = 1e7  # type: ignore[index]
    graph: Any = capture(module, example())
    before = graph.one.weight.detach().clone()
    level_channels(graph, pictures())
    grown = (graph.one.weight / before.where(before != 0, 1)).flatten(1).amax(dim=1)
    assert grown[0] < 20 < grown[1]
    assert not graph.one.weight[3].any()
    assert torch.allclose(graph(example()), module(example()), rtol=1e-4, atol=1e-2)


def test_no_picture_changes_nothing() -> None:
    assert level_channels(capture(Separable(), example()), ()) == ()


@pytest.mark.build
@pytest.mark.parametrize("scheme", ["portable", "affine"])
def test_int8_gains_what_the_small_channels_lacked(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.optimize import ptq

    step = Quantize("ptq", scheme=scheme, ranges="minmax")  # type: ignore[arg-type]

    def quality() -> tuple[float, dict[str, str]]:
        made = prepare_ptq(Separable().eval(), example(), step=step, calibration=batches(images(16)))
        board = make_board(made.graph, made.originals)
        return output_sqnr_db(board, [torch.from_numpy(array[None]) for array in images(8, seed=3)]), made.plan.why

    levelled, why = quality()
    monkeypatch.setattr(ptq, "level_channels", lambda *_, **__: ())
    plain, _ = quality()
    assert levelled > 28
    assert plain < levelled - 8
    assert any("channels levelled" in reason for reason in why.values())
    assert np.isfinite(plain)
