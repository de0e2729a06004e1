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
from edgecv.optimize.pixel_grid import avoid_pixel_ties, pixel_range
from edgecv.optimize.ptq import Prepared, prepare_ptq, quantize_ptq

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


def centred() -> np.ndarray:
    """Pictures prepared with a mean of 0.5 and a std of 0.25: pixels 0 and 255 become -2 and 2."""
    drawn = np.random.default_rng(1).integers(0, 256, size=(16, *example().shape[1:]))
    return ((drawn / 255 - 0.5) / 0.25).astype(np.float32)


def all_pixels() -> np.ndarray:
    """The 256 values that such pictures have."""
    return ((np.arange(256) / 255 - 0.5) / 0.25).astype(np.float32)


@pytest.mark.build
@pytest.mark.parametrize("ranges", ["auto", "minmax"])
def test_no_pixel_of_a_centred_picture_lies_between_two_steps(ranges: str) -> None:
    """The widest range has one step a pixel value there, 4 / 255, and 0 between pixels 127 and 128: all are ties."""
    step = replace(STEP, ranges=ranges)  # type: ignore[arg-type]
    made = quantize_ptq(residual(), example(), step=step, calibration=batches(centred()))
    scale = made.plan[0].scale_max
    assert scale == pytest.approx(4 / 255, rel=0.005)
    exact = all_pixels().astype(np.float64) / scale
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 5e-4
    divided = np.round(all_pixels() / np.float32(scale))
    multiplied = np.round(all_pixels() * (np.float32(1) / np.float32(scale)))
    assert np.array_equal(divided, multiplied), "engines round apart"


@pytest.mark.build
def test_all_that_shares_the_scale_moves_with_it() -> None:
    torch.manual_seed(0)
    module = Joined().eval()
    module.one.weight.data.mul_(1e-3)
    made = quantize_ptq(module, example(), step=STEP, calibration=batches(centred()))
    scales = [item.scale_max for item in made.plan if item.kind == "activation"]
    assert scales[:3] == [scales[0]] * 3, "the input, what is joined to it, and both together"
    assert scales[0] > 4 / 255


@pytest.mark.build
def test_values_that_are_no_pixels_move_nothing() -> None:
    made = prepare_ptq(residual(), example(), step=STEP, calibration=batches(centred()))
    before = input_step(made)
    many = np.random.default_rng(0).uniform(-2, 2, size=(1, 3, 32, 32)).astype(np.float32)
    assert avoid_pixel_ties(made.graph, [many]) == 0
    assert avoid_pixel_ties(made.graph, [np.float32([0.0, before[0]])]) == 0, "they lie on steps"
    assert avoid_pixel_ties(made.graph, []) == 0
    assert input_step(made) == before
    assert avoid_pixel_ties(made.graph, [np.float32([1.5 * before[0]])]) == 1
    assert before[0] < input_step(made)[0] <= before[0] * 1.004
