from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.recipe import Quantize
from edgecv.optimize.ptq import Prepared, prepare_ptq, quantize_ptq
from edgecv.optimize.sensitivity import output_sqnr_db
from edgecv.optimize.switches import make_board

from .quantize_nets import batches, example, images

pytestmark = pytest.mark.build

STEP = Quantize("ptq", ranges="mse")


def network() -> nn.Module:
    """Redundant inputs (all channels of the picture are nearly alike), so that errors of weights can cancel."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.Conv2d(16, 8, 3, stride=2, groups=2)
    with torch.no_grad():
        first.weight.copy_(first.weight[:, :1].repeat(1, 3, 1, 1))
        second.weight[:, 0, 0, 0] *= 150  # the others have few steps left
    return nn.Sequential(first, nn.ReLU6(), second, nn.Flatten(), nn.Linear(8 * 49, 5))


def prepare(step: Quantize) -> Prepared:
    return prepare_ptq(network(), example(), step=step, calibration=batches(images(48)))


def sqnr(prepared: Prepared) -> float:
    board = make_board(prepared.graph, prepared.originals)
    return output_sqnr_db(board, [torch.from_numpy(array[None]) for array in images(16, seed=3)])


def test_learned_rounding_beats_the_nearest_on_new_pictures() -> None:
    learned = prepare(replace(STEP, adaround=("2",)))
    assert [item.layer for item in learned.learned] == ["2"]
    assert learned.learned[0].learned < 0.8 * learned.learned[0].nearest
    assert sqnr(learned) > sqnr(prepare(STEP)) + 1


def test_every_weight_moves_by_less_than_a_step_and_only_in_named_layers() -> None:
    plain, learned = prepare(STEP), prepare(replace(STEP, adaround=("2", "4")))
    one, other = make_board(plain.graph, plain.originals), make_board(learned.graph, learned.originals)
    for layer in one.layers:
        before, after = one.constants[layer.weight][0], other.constants[layer.weight][0]
        assert before.plain is not None
        assert after.quantized is not None
        assert torch.equal(before.plain, after.plain)
        step = before.plain.abs().flatten(1).amax(dim=1).reshape(-1, *[1] * (before.plain.ndim - 1)) / 127
        moved = ((after.quantized - before.plain) / step).abs()
        assert float(moved.max()) < 1.001
        assert (float(moved.max()) > 0.51) == (layer.name in ("2", "4"))


def test_the_snapped_program_keeps_what_was_learned_and_is_repeatable() -> None:
    step = replace(STEP, adaround=("*",))
    made = [quantize_ptq(network(), example(), step=step, calibration=batches(images(8))) for _ in range(2)]
    outputs = [item.program.module()(example()).detach().numpy() for item in made]
    assert np.array_equal(*outputs)
    prepared = prepare_ptq(network(), example(), step=step, calibration=batches(images(8)))
    board = make_board(prepared.graph, prepared.originals)
    assert np.abs(board.run(example())[0].numpy() - outputs[0]).max() <= 1.01 * max(
        switch.scale for switch in board.switches.values()
    )
