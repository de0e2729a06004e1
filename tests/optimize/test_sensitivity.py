from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgecv.core.plain import from_plain, to_plain
from edgecv.core.recipe import Quantize
from edgecv.optimize.ptq import Prepared, prepare_ptq
from edgecv.optimize.sensitivity import Sensitivity, output_sqnr_db, sensitivity
from edgecv.optimize.switches import make_board

from .quantize_nets import batches, example, images, residual

pytestmark = pytest.mark.build

PICTURES = [torch.from_numpy(array[None]) for array in images(8, seed=3)]


def spoiled() -> nn.Module:
    """`residual` whose second layer makes one channel 200 times larger, which the next sum carries on."""
    module = residual()
    with torch.no_grad():
        module.body[1].weight[3] *= 200  # type: ignore[index]
    return module


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare_ptq(residual(), example(), step=Quantize("ptq"), calibration=batches(images(16)))


def test_the_board_is_the_float_network_when_all_is_off(prepared: Prepared) -> None:
    board = make_board(prepared.graph, prepared.originals)
    board.turn(())
    with torch.no_grad():
        wanted = residual()(PICTURES[0])
    assert torch.allclose(board.run(PICTURES[0])[0], wanted, atol=1e-5)


def test_the_board_is_the_quantised_graph_when_all_is_on(prepared: Prepared) -> None:
    board = make_board(prepared.graph, prepared.originals)
    with torch.no_grad():
        wanted = prepared.graph(PICTURES[0])
    assert torch.allclose(board.run(PICTURES[0])[0], wanted, atol=1e-5)


def test_rows_are_layers_sorted_by_noise(prepared: Prepared) -> None:
    table = sensitivity(prepared, PICTURES)
    names = {row.layer for row in table.rows if row.kind != "activation"}
    assert names == {"stem.0", "body.0", "gate", "head"}
    values = [row.sqnr_db for row in table.rows]
    assert values == sorted(values)
    assert all(value > table.sqnr_db for value in values)
    assert (table.pictures, table.metric, table.float_value) == (8, "", None)


def test_each_row_is_the_network_with_only_that_layer_rounded(prepared: Prepared) -> None:
    row = next(row for row in sensitivity(prepared, PICTURES).rows if row.layer == "head")
    board = make_board(prepared.graph, prepared.originals)
    wanted, found = [], []
    for picture in PICTURES:
        board.turn(())
        wanted.append(board.run(picture)[0])
        board.turn(row.tensors)
        found.append(board.run(picture)[0])
    signal, noise = torch.cat(wanted), torch.cat(wanted) - torch.cat(found)
    decibels = 10 * math.log10(float(signal.double().square().sum() / noise.double().square().sum()))
    assert row.sqnr_db == pytest.approx(decibels, abs=1e-6)


def test_a_spoiled_layer_stands_first() -> None:
    made = prepare_ptq(spoiled(), example(), step=Quantize("ptq"), calibration=batches(images(16)))
    rows = [row for row in sensitivity(made, PICTURES).rows if row.kind != "activation"]
    assert {rows[0].layer, rows[1].layer} >= {"body.0"}


def test_metric_and_times(prepared: Prepared) -> None:
    with torch.no_grad():
        wanted = [residual()(picture) for picture in PICTURES]

    def score(module: nn.Module) -> float:
        found = [module(picture) for picture in PICTURES]
        return -float(sum((one - other).abs().sum() for one, other in zip(wanted, found, strict=True)))

    table = sensitivity(prepared, PICTURES, score=score, metric="l1", latency_ms={"stem.0": 3.0, "head": 1.0})
    rows = {row.layer: row for row in table.rows}
    assert (rows["stem.0"].latency_share, rows["head"].latency_share) == (0.75, 0.25)
    assert rows["gate"].latency_ms is None
    assert table.float_value == pytest.approx(0, abs=1e-3)
    assert table.int8_value is not None
    assert table.int8_value < -0.01
    assert all(row.metric_drop is not None and row.metric_drop >= -1e-3 for row in table.rows)


def test_the_table_survives_json(prepared: Prepared) -> None:
    table = sensitivity(prepared, PICTURES[:1])
    assert from_plain(Sensitivity, to_plain(table)) == table


def test_several_outputs_count_by_the_worst() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.one(image) * 1000, self.two(image)

    step = Quantize("ptq", keep_float=("one",))
    made = prepare_ptq(Two(), example(), step=step, calibration=batches(images(4)))
    board = make_board(made.graph, made.originals)
    assert len(board.run(PICTURES[0])) == 2
    assert 20 < output_sqnr_db(board, PICTURES) < 45
