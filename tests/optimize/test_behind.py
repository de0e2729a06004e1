from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.core.recipe import Quantize
from edgecv.optimize import observers, range_rule
from edgecv.optimize.behind import Activation, activations, best_range_behind
from edgecv.optimize.histogram import Histogram, Range, best_range
from edgecv.optimize.ptq import Prepared, prepare_ptq
from edgecv.optimize.sensitivity import output_sqnr_db
from edgecv.optimize.switches import make_board

from .quantize_nets import batches, example, images


def leaky(values: np.ndarray) -> np.ndarray:
    return np.where(values < 0, 0.05 * values, values)


def silu(values: np.ndarray) -> np.ndarray:
    result: np.ndarray = values / (1 + np.exp(-values))
    return result


def lopsided() -> np.ndarray:
    """What a convolution gives before a leaky ReLU: far below zero, little above."""
    random = np.random.default_rng(0)
    return np.concatenate([random.normal(-8, 8, 20000), random.normal(1, 1, 20000)]).astype(np.float32)


def histogram(values: np.ndarray) -> Histogram:
    made = Histogram()
    made.update(values)
    return made


def error_behind(values: np.ndarray, found: Range, activation: Activation) -> float:
    """Mean squared error behind ``activation`` of int8 values over the range ``found``."""
    step = (found.high - found.low) / 255
    zero = round(found.low / step)
    stored = (np.clip(np.round(values / step), zero, zero + 255) * step).astype(np.float64)
    return float(((activation(stored) - activation(values.astype(np.float64))) ** 2).mean())


@pytest.mark.parametrize("activation", [leaky, silu])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_error_behind_the_activation_is_less(activation: Activation, symmetric: bool) -> None:
    values = lopsided()
    plain = best_range(histogram(values), "mse", symmetric=symmetric)
    found = best_range_behind(histogram(values), activation, symmetric=symmetric)
    assert error_behind(values, found, activation) < 0.8 * error_behind(values, plain, activation)
    assert found.low < 0 < found.high
    assert not symmetric or found.low == -found.high


@pytest.mark.parametrize("symmetric", [True, False])
def test_no_range_of_a_plain_search_is_clearly_better(symmetric: bool) -> None:
    values = lopsided()
    found = best_range_behind(histogram(values), leaky, symmetric=symmetric)
    lows, highs = np.geomspace(0.5, 45, 30), np.geomspace(0.5, 45, 30)
    pairs = [(size, size) for size in highs] if symmetric else [(low, high) for low in lows for high in highs]
    best = min(error_behind(values, Range(-low, high), leaky) for low, high in pairs)
    assert error_behind(values, found, leaky) < 1.1 * best


def test_nothing_seen_gives_an_empty_range() -> None:
    assert best_range_behind(histogram(np.zeros(10, np.float32)), silu, symmetric=False) == Range(0.0, 0.0)


class Net(nn.Module):
    """A convolution whose results lie far below zero, an activation, and another convolution."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.activation = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), activation
        with torch.no_grad():
            self.first.weight[::2] *= 6
            self.first.bias[::2] = -8  # type: ignore[index]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.last(self.activation(self.first(image)))
        return made


def prepare(module: nn.Module, ranges: str, scheme: str = "portable") -> Prepared:
    step = Quantize("ptq", scheme=scheme, ranges=ranges, bias_correction=False)  # type: ignore[arg-type]
    return prepare_ptq(module.eval(), example(), step=step, calibration=batches(images(8)))


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "leaky": lambda values: functional.leaky_relu(values, 0.05),
    "prelu": nn.PReLU(8, 0.1),
    "silu": functional.silu,
    "gated": lambda values: values * torch.sigmoid(values),
    "hardswish": functional.hardswish,
    "gelu": functional.gelu,
}


@pytest.mark.build
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations_are_found_and_computed(name: str) -> None:
    prepared = prepare(Net(ACTIVATIONS[name]), "minmax")
    found = activations(prepared.graph)
    (layer,) = found  # or the clamp that guards a flat range, of the same values
    assert layer.startswith(("conv2d", "flat_guard"))
    values = np.linspace(-6, 6, 101)
    shaped = torch.from_numpy(values).float().reshape(1, 1, 1, -1).repeat(1, 8, 1, 1)
    with torch.no_grad():
        wanted = ACTIVATIONS[name](shaped)[0, 0, 0].numpy()
    np.testing.assert_allclose(found[layer](values), wanted, atol=1e-6)


@pytest.mark.build
def test_a_tensor_that_others_read_too_is_left_alone() -> None:
    both = Net(lambda values: functional.leaky_relu(values, 0.05) + values)
    assert activations(prepare(both, "minmax").graph) == {}
    assert activations(prepare(Net(functional.relu), "minmax").graph) == {}
    assert activations(prepare(Net(lambda values: values * torch.sigmoid(values * 2)), "minmax").graph) == {}


@pytest.mark.build
@pytest.mark.parametrize("scheme", ["portable", "affine"])
@pytest.mark.parametrize("ranges", ["auto", "mse"])
def test_the_network_gains_from_it(scheme: str, ranges: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def quality() -> float:
        made = prepare(Net(ACTIVATIONS["leaky"]), ranges, scheme)
        board = make_board(made.graph, made.originals)
        return output_sqnr_db(board, [torch.from_numpy(array[None]) for array in images(8)])

    found = quality()
    monkeypatch.setattr(range_rule, "activations", lambda graph: {})
    monkeypatch.setattr(observers, "activations", lambda graph: {})
    print(f"{scheme} {ranges}: {quality():.1f} -> {found:.1f} dB")
    assert found > quality() + 1
