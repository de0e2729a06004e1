"""Splitting what a depthwise convolution reads: the same network, finer scales, and what is left alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from edgecv.core.recipe import Quantize
from edgecv.errors import ModelError
from edgecv.optimize.capture import capture
from edgecv.optimize.examples import pictures
from edgecv.optimize.graph import groups_of
from edgecv.optimize.ptq import quantize_ptq
from edgecv.optimize.split import Part, find_splits, split_channels

from .quantize_nets import batches, example, images, sqnr_db, targets
from .test_engines_agree import ENGINES, export

CHANNELS = 16


class Uneven(nn.Module):
    """Channels of 0.02 to 20 behind a SiLU, which a depthwise convolution brings to one size: `(N, 3, 16, 16)` ->
    `(N, 6, 14, 14)`.

    ``also`` is what else reads the tensor.
    """

    def __init__(self, act: nn.Module | None = None, also: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.make, self.act, self.also = nn.Conv2d(3, CHANNELS, 1), act or nn.SiLU(), also
        self.each = nn.Conv2d(CHANNELS, CHANNELS, 3, groups=CHANNELS)
        self.mix = nn.Conv2d(CHANNELS, 6, 1)
        sizes = 10.0 ** torch.linspace(-1.7, 1.3, CHANNELS)[torch.randperm(CHANNELS)]
        with torch.no_grad():
            self.make.weight *= sizes[:, None, None, None]
            self.make.bias.copy_(-sizes)  # type: ignore[union-attr]
            self.each.weight /= sizes[:, None, None, None]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = self.act(self.make(image))
        found = self.mix(self.act(self.each(made)))
        return found if self.also is None else found + self.also(made)


class WithSum(Uneven):
    """The depthwise result is added to something, channel by channel."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = self.act(self.make(image))
        return self.mix(self.act(self.each(made)) + made[:, :, 1:-1, 1:-1])


class MoreChannels(Uneven):
    """Behind the activation stand channels of 0 that no layer makes."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Conv2d(3, CHANNELS - 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = nn.functional.pad(self.act(self.make(image)), (0, 0, 0, 0, 1, 1))
        found: torch.Tensor = self.mix(self.act(self.each(made)))
        return found


class Chained(nn.Module):
    """What mixes the parts of one split makes the channels of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Uneven(), Uneven()
        self.second.make = nn.Conv2d(CHANNELS, CHANNELS, 1)
        with torch.no_grad():
            self.second.make.weight.copy_(self.first.make.weight.repeat(1, 6, 1, 1)[:, :CHANNELS])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = self.first.act(self.first.each(self.first.act(self.first.make(image))))
        found: torch.Tensor = self.second(made)
        return found


def split(module: nn.Module, layers: tuple[str, ...] = ("*",)) -> tuple[GraphModule, tuple[Part, ...]]:
    graph = capture(module.eval(), example())
    return graph, split_channels(graph, seen(), layers=layers, symmetric=False)


def seen() -> Any:
    return pictures(batches(images(16)), limit=16, shape=(3, 16, 16))


def widths(graph: GraphModule) -> list[tuple[int, int]]:
    """Outputs and groups of each convolution, in order."""
    nodes = [node for node in graph.graph.nodes if node.target is torch.ops.aten.conv2d.default]
    return [(node.meta["val"].shape[1], groups_of(node)) for node in nodes]


@pytest.mark.parametrize(
    "module",
    [
        Uneven(),
        Uneven(nn.Hardswish()),
        Uneven(nn.ReLU6()),
        Uneven(also=nn.Conv2d(CHANNELS, 6, 3)),
        Chained(),
    ],
    ids=["silu", "hardswish", "relu6", "shared", "twice"],
)
def test_the_network_stays_the_same(module: nn.Module) -> None:
    graph, parts = split(module)
    assert len(parts) >= 4
    for array in images(3, seed=5):
        with torch.no_grad():
            wanted, found = module(torch.from_numpy(array[None])), graph(torch.from_numpy(array[None]))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_channels_are_cut_by_size_into_parts_that_cover_them() -> None:
    module = Uneven()
    graph, parts = split(module)
    makers = [part for part in parts if part.whole == parts[0].whole]
    assert 2 <= len(makers) <= 4
    assert sorted(torch.cat([part.channels for part in makers]).tolist()) == list(range(CHANNELS))
    assert {len(part.channels) % 4 for part in makers} == {0}  # engines like whole quarters
    sizes = module.make.bias.detach().abs()  # type: ignore[union-attr]
    means = [float(sizes[part.channels].mean()) for part in makers]
    assert all(after > 2 * before for before, after in itertools.pairwise(means))
    # Nothing is computed twice: the parts have as many channels as the whole had.
    counts = widths(graph)
    assert sum(outputs for outputs, groups in counts if groups > 1) == CHANNELS
    assert sum(outputs for outputs, groups in counts) == 2 * CHANNELS + 6
    assert targets(graph).count("cat") == 1


def test_what_others_read_is_kept_whole() -> None:
    graph, _ = split(Uneven(also=nn.Conv2d(CHANNELS, 6, 3)))
    assert (CHANNELS, 1) in widths(graph)


@pytest.mark.parametrize(
    ("module", "layers"),
    [(WithSum(), ("*",)), (Uneven(nn.Tanh()), ("*",)), (MoreChannels(), ("*",)), (Uneven(), ())],
    ids=["sum behind", "not made of such", "a pad adds channels", "not named"],
)
def test_other_layers_are_left_alone(module: nn.Module, layers: tuple[str, ...]) -> None:
    graph, parts = split(module, layers)
    assert (parts, targets(graph).count("cat")) == ((), 0)


def test_a_name_that_fits_no_depthwise_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="split: 'mix' fits no depthwise layer; the first are each"):
        split(Uneven(), ("each", "mix"))


def test_channels_of_one_size_are_not_split() -> None:
    module = Uneven()
    with torch.no_grad():
        module.make.weight.copy_(torch.ones(CHANNELS, 3, 1, 1))
        module.make.bias.zero_()  # type: ignore[union-attr]
        module.each.weight.fill_(1.0)
    assert split(module)[1] == ()


def test_the_gain_is_told_by_layer() -> None:
    graph = capture(Uneven().eval(), example())
    before = targets(graph)
    gains = find_splits(graph, seen(), symmetric=True)
    assert list(gains) == ["each"]
    assert 0.75 < gains["each"] < 1
    assert targets(graph) == before


def quantised(module: nn.Module, step: Quantize) -> np.ndarray:
    made = quantize_ptq(module, example(), step=step, calibration=batches(images(32)))
    return run(made.program.module(), images(8, seed=7))


def run(module: nn.Module, arrays: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([module(torch.from_numpy(array[None])).numpy() for array in arrays])


@pytest.mark.build
@pytest.mark.parametrize("scheme", ["affine", "portable"])
def test_small_channels_survive_int8(scheme: Any) -> None:
    module = Uneven().eval()
    wanted = run(module, images(8, seed=7))
    plain = sqnr_db(wanted, quantised(module, Quantize("ptq", scheme=scheme)))
    parted = sqnr_db(wanted, quantised(module, Quantize("ptq", scheme=scheme, split=("each",))))
    print(plain, parted)
    assert parted > plain + 6


@pytest.mark.build
def test_the_plan_tells_of_the_parts() -> None:
    step = Quantize("ptq", split=("each",))
    made = quantize_ptq(Uneven().eval(), example(), step=step, calibration=batches(images(8)))
    reasons = [record.why for record in made.plan if "channels of conv2d, split by size" in record.why]
    assert sum(int(why.split("; ")[1].split()[0]) for why in reasons) == CHANNELS


@pytest.mark.build
@pytest.mark.parametrize("scheme", ["affine", "portable"])
def test_engines_give_the_same_numbers(scheme: Any, tmp_path: Path) -> None:
    exported = export(Uneven().eval(), images(32), tmp_path, scheme=scheme, split=("each",))
    arrays = images(8, seed=7)
    wanted = exported.run_torch(arrays)
    for engine in ENGINES:
        np.testing.assert_allclose(exported.run(engine, arrays, tmp_path), wanted, rtol=0, atol=1e-5)
