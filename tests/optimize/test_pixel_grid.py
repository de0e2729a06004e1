from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.recipe import Quantize
from edgecv.optimize.graph import QUANTIZE
from edgecv.optimize.histogram import Range
from edgecv.optimize.pixel_grid import pixel_range
from edgecv.optimize.ptq import Prepared, prepare_ptq

from .quantize_nets import batches, example, residual

PLAIN = InputContract(size=(16, 16))
BYTES = InputContract(size=(16, 16), range=(0.0, 255.0))
STEP = Quantize("ptq", scheme="affine")


@pytest.mark.parametrize(
    ("contract", "wanted"),
    [
        (PLAIN, Range(0.0, 1.0)),
        (BYTES, Range(0.0, 255.0)),
        (replace(PLAIN, mean=(127 / 255,) * 3, std=(128 / 255,) * 3), Range(-127 / 128, 1.0)),
        (replace(PLAIN, range=(1.0, 0.0)), Range(0.0, 1.0)),
    ],
)
def test_the_range_of_a_picture_follows_the_contract(contract: InputContract, wanted: Range) -> None:
    found = pixel_range(contract)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize(
    "contract",
    [
        replace(PLAIN, mean=(0.5, 0.4, 0.5)),
        replace(PLAIN, std=(0.5, 0.4, 0.5)),
        replace(PLAIN, mean=(0.5,) * 3),  # 0 lies between pixels 127 and 128
        replace(PLAIN, range=(0.1, 1.0)),  # 0 is no pixel
    ],
)
def test_there_is_no_exact_step_for_other_inputs(contract: InputContract) -> None:
    assert pixel_range(contract) is None


def dark() -> np.ndarray:
    """Calibration pictures without a bright pixel."""
    drawn = np.random.default_rng(0).integers(0, 200, size=(16, *example().shape[1:]))
    return (drawn / 255).astype(np.float32)


def prepared(step: Quantize, *, module: nn.Module | None = None) -> Prepared:
    pixels = pixel_range(PLAIN)
    return prepare_ptq(module or residual(), example(), step=step, calibration=batches(dark()), pixels=pixels)


def input_step(made: Prepared) -> tuple[float, int]:
    """Scale and zero point of the input."""
    (node,) = [
        node for node in made.graph.graph.nodes if node.target is QUANTIZE[0] and node.args[0].op == "placeholder"
    ]
    return node.args[1], node.args[2]


@pytest.mark.build
@pytest.mark.parametrize("ranges", ["auto", "mean-minmax", "mse"])
def test_every_pixel_value_is_exact(ranges: str) -> None:
    made = prepared(replace(STEP, ranges=ranges))  # type: ignore[arg-type]
    scale, zero = input_step(made)
    assert scale == pytest.approx(1 / 255)
    assert zero == -128
    values = torch.arange(256) / 255
    assert torch.fake_quantize_per_tensor_affine(values, scale, zero, -128, 127).sub(values).abs().max() < 1e-6
    assert [why for why in made.plan.why.values() if why.endswith("one step a pixel value")]


@pytest.mark.build
def test_without_zero_points_the_input_is_ranged_like_all_others() -> None:
    made = prepared(replace(STEP, scheme="portable"))
    assert input_step(made)[0] < 0.8 / 127
    assert not [why for why in made.plan.why.values() if why.endswith("one step a pixel value")]


class Joined(nn.Module):
    """The input is concatenated with what a layer makes of it: both have one scale."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(7, 4, 3)
        self.one.weight.data.mul_(40)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Pictures `(N, 3, H, W)`."""
        joined: torch.Tensor = self.two(torch.cat([values, self.one(values)], dim=1))
        return joined


@pytest.mark.build
def test_an_input_that_shares_its_scale_keeps_the_shared_one() -> None:
    torch.manual_seed(0)
    made = prepared(STEP, module=Joined().eval())
    assert input_step(made)[0] > 2 / 255
