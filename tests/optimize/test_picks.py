"""Networks that pick their best rows are compared on the same rows, whatever int8 does to their order."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecv.core.recipe import Quantize
from edgecv.optimize.picks import Picks, remembered, repeated
from edgecv.optimize.ptq import Prepared, prepare_ptq
from edgecv.optimize.sensitivity import output_sqnr_db
from edgecv.optimize.switches import make_board

from .quantize_nets import batches, example, images

VALUES = torch.tensor([[3.0, 1.0, 2.0], [5.0, 6.0, 4.0]])
PICTURES = [torch.from_numpy(array[None]) for array in images(8, seed=3)]


class Picker(nn.Module):
    """The features of the 16 cells with the highest scores, best first, `(1, 16, 8)`."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.score = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = self.features(inputs).flatten(2).transpose(1, 2)
        best = torch.topk(self.score(rows).amax(-1), 16, dim=1).indices
        return functional.embedding(best.reshape(-1), rows.reshape(-1, 8)).view(1, 16, 8)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    torch.manual_seed(0)
    step = Quantize("ptq", ranges="auto")
    return prepare_ptq(Picker().eval(), example(), step=step, calibration=batches(images(16)))


def free_sqnr_db(prepared: Prepared) -> float:
    """Signal to noise if every run picks for itself."""
    board = make_board(prepared.graph, prepared.originals)
    signal = noise = 0.0
    for picture in PICTURES:
        board.turn(())
        (wanted,) = board.run(picture)
        board.turn(None)
        (found,) = board.run(picture)
        signal, noise = signal + float(wanted.square().sum()), noise + float((wanted - found).square().sum())
    return 10 * math.log10(signal / noise)


@pytest.mark.build
def test_signal_to_noise_is_of_the_same_rows(prepared: Prepared) -> None:
    board = make_board(prepared.graph, prepared.originals)
    assert free_sqnr_db(prepared) < 15, "int8 does not change the order here"
    assert output_sqnr_db(board, PICTURES) > 25


@pytest.mark.build
def test_the_rules_of_ranges_are_compared_on_the_same_rows(prepared: Prepared) -> None:
    assert prepared.ranges is not None
    assert prepared.ranges.sqnr_db[prepared.ranges.rule] > 25


@pytest.mark.build
def test_a_network_that_runs_freely_picks_for_itself(prepared: Prepared) -> None:
    """Also behind a comparison: what is judged by the metric is the int8 network as it is."""
    board = make_board(prepared.graph, prepared.originals)
    output_sqnr_db(board, PICTURES)
    with torch.no_grad():
        assert torch.equal(board.run(PICTURES[0])[0], prepared.graph(PICTURES[0]))


@pytest.mark.parametrize("options", [{"k": 2}, {"k": 1, "dim": 0}])
def test_a_choice_is_made_again(options: dict[str, int]) -> None:
    with remembered() as chosen:
        values, rows = torch.topk(VALUES, **options)
    with repeated(chosen):
        again, same = torch.topk(-VALUES, **options)
    torch.testing.assert_close(again, -values)
    torch.testing.assert_close(same, rows)
    assert not torch.equal(torch.topk(-VALUES, **options)[1], rows)


def test_an_order_is_made_again() -> None:
    with remembered() as chosen:
        wanted = [VALUES.argsort(dim=1), VALUES.sort(dim=0, stable=True)[1], VALUES.sort(descending=True)[1]]
    with repeated(chosen):
        found = [(-VALUES).argsort(dim=1), (-VALUES).sort(dim=0, stable=True)[1], (-VALUES).sort(descending=True)[1]]
    torch.testing.assert_close(found, wanted)


def test_gradients_flow_to_the_rows_that_were_taken() -> None:
    with remembered() as chosen:
        torch.topk(VALUES, 1)
    given = (-VALUES).requires_grad_()
    with repeated(chosen):
        torch.topk(given, 1).values.sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(given.grad, torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


def test_what_does_not_fit_is_chosen_as_ever() -> None:
    with remembered() as chosen:
        torch.topk(VALUES, 1)
    with repeated(chosen):
        assert torch.topk(VALUES, 2).indices.tolist() == [[0, 2], [1, 0]]
        assert torch.topk(VALUES, 1).indices.tolist() == [[0], [1]], "no choice is left"


def test_networks_that_choose_nothing_are_looked_at_once() -> None:
    picks = Picks()
    with picks.chosen():
        VALUES.amax(dim=1)
    with picks.chosen():
        torch.topk(VALUES, 2)
    with picks.taken():
        assert torch.equal(torch.topk(-VALUES, 2)[1], (-VALUES).topk(2)[1])


def test_each_run_of_the_first_network_is_the_choice_for_the_next_of_the_second() -> None:
    picks = Picks()
    for values in (VALUES, VALUES.flip(1)):
        with picks.chosen():
            rows = torch.topk(values, 2)[1]
        with picks.taken():
            assert torch.equal(torch.topk(-values, 2)[1], rows)


def test_nothing_is_looked_at_where_it_is_not_wanted() -> None:
    picks = Picks(wanted=False)
    with picks.chosen():
        rows = torch.topk(VALUES, 2)[1]
    with picks.taken():
        assert not torch.equal(torch.topk(-VALUES, 2)[1], rows)
