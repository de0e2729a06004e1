from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.recipe import Quantize
from edgecv.errors import DataError
from edgecv.optimize.graph import QUANTIZE
from edgecv.optimize.ptq import Prepared, prepare_ptq
from edgecv.optimize.range_rule import RULES, RangeChoice, choose_ranges
from edgecv.optimize.sensitivity import output_sqnr_db
from edgecv.optimize.switches import make_board

from .quantize_nets import batches, example, images, residual

pytestmark = pytest.mark.build

STEP = Quantize("ptq")


def prepare(module: nn.Module, step: Quantize, arrays: np.ndarray) -> Prepared:
    return prepare_ptq(module, example(), step=step, calibration=batches(arrays))


def quality(prepared: Prepared, arrays: np.ndarray) -> float:
    board = make_board(prepared.graph, prepared.originals)
    return output_sqnr_db(board, [torch.from_numpy(array[None]) for array in arrays])


def rare() -> np.ndarray:
    """Pictures of which every fourth is 20 times larger: the answer lies in those."""
    arrays = images(32)
    arrays[::4] *= 20
    return arrays


def test_rare_large_pictures_are_not_cut() -> None:
    """The mean of the ranges would cut them; that is what ruins detectors of rare objects."""
    prepared = prepare(residual(), STEP, rare())
    assert prepared.ranges is not None
    assert prepared.ranges.rule != "mean-minmax"
    assert prepared.ranges.sqnr_db["mean-minmax"] < prepared.ranges.sqnr_db[prepared.ranges.rule] - 3
    cut = quality(prepare(residual(), replace(STEP, ranges="mean-minmax"), rare()), rare())
    assert quality(prepared, rare()) > cut + 3


def test_a_broken_pixel_is_cut() -> None:
    arrays = images(64)
    arrays[5, 0, 3, 3] = 3000.0
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, 4, 3))
    prepared = prepare(module, STEP, arrays)
    assert prepared.ranges is not None
    assert prepared.ranges.rule != "minmax"
    assert (
        quality(prepared, images(8, seed=3))
        > quality(prepare(module, replace(STEP, ranges="minmax"), arrays), images(8, seed=3)) + 6
    )


@pytest.mark.parametrize("scheme", ["portable", "affine"])
def test_the_choice_stands_in_the_graph_and_in_the_plan(scheme: str) -> None:
    step = replace(STEP, scheme=scheme)  # type: ignore[arg-type]
    prepared, again = (prepare(residual(), step, images(16)) for _ in range(2))
    assert prepared.ranges is not None
    assert prepared.ranges == again.ranges
    assert set(prepared.ranges.sqnr_db) == set(RULES)
    assert all(f"range by {prepared.ranges.rule}" in why for why in prepared.plan.why.values())
    nodes = [
        [node.args[1:3] for node in item.graph.graph.nodes if node.target is QUANTIZE[0]] for item in (prepared, again)
    ]
    assert nodes[0] == nodes[1]
    assert scheme == "affine" or {zero for _, zero in nodes[0]} == {0}
    owners = {node.name: owner.name for node, owner in prepared.plan.outputs.items()}
    scales = {node.args[0].name: node.args[1] for node in prepared.graph.graph.nodes if node.target is QUANTIZE[0]}
    assert all(scales[name] == scales[owner] for name, owner in owners.items() if name in scales and owner in scales)


def test_the_reason_names_all_rules() -> None:
    choice = RangeChoice("minmax", {"mean-minmax": 0.4, "minmax": 18.9, "mse": 17.0})
    assert choice.why == "ranges minmax (18.9 dB at the outputs; mean-minmax 0.4, mse 17.0)"


def test_an_output_that_is_always_zero_does_not_decide() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = residual()

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            made = self.body(image)
            return made, made * 0.0

    prepared = prepare(Two().eval(), STEP, images(16))
    assert prepared.ranges is not None
    assert 15 < prepared.ranges.sqnr_db[prepared.ranges.rule] < 60


def test_without_pictures_nothing_can_be_chosen() -> None:
    prepared = prepare(residual(), STEP, images(8))
    with pytest.raises(DataError, match="empty"):
        choose_ranges(prepared.graph, prepared.plan, (), count=0, symmetric=True)
