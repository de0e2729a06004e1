"""The moving average of weights: its formula, what it leaves alone, and that it trains and resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from edgecv.optimize.ema import average_of
from edgecv.optimize.training import Hooks

from .test_training import PLAN, Killed, run, same_weights
from .tiny_reader import tiny_net

EMA = dataclasses.replace(PLAN, ema=0.9)


def test_no_decay_is_no_average() -> None:
    assert average_of(nn.Linear(1, 1), decay=0.0) is None


def test_the_average_follows_its_formula_and_starts_fast() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = average_of(module, decay=0.5)
    assert average is not None
    expected = module.weight.item()
    for number, value in enumerate([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(module)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * value
        assert float(average.values["weight"]) == pytest.approx(expected)
    assert decay == 0.5


def test_it_is_applied_for_a_while_or_for_good() -> None:
    module = nn.BatchNorm1d(2)
    average = average_of(module, decay=0.9)
    assert average is not None
    with torch.no_grad():
        module.running_mean.fill_(3.0)
        module.num_batches_tracked.fill_(7)
    with average.applied(module):
        assert module.running_mean.tolist() == [0.0, 0.0]
        assert int(module.num_batches_tracked) == 7  # counts and switches are the module's own
    assert module.running_mean.tolist() == [3.0, 3.0]
    average.copy_to(module)
    assert module.running_mean.tolist() == [0.0, 0.0]


def test_a_range_that_had_seen_nothing_is_replaced() -> None:
    module = nn.Module()
    module.register_buffer("low", torch.tensor([float("inf")]))
    average = average_of(module, decay=0.9)
    assert average is not None
    module.low.fill_(-1.0)
    average.update(module)
    assert average.values["low"].tolist() == [-1.0]


def test_training_gives_the_average_back() -> None:
    plain, averaged = run(tiny_net(), validation=None), run(tiny_net(), EMA, validation=None)
    assert plain.losses == averaged.losses  # the average does not change what trains
    assert not same_weights(plain.module, averaged.module)


def test_what_is_validated_is_the_average() -> None:
    plain, averaged = run(tiny_net()), run(tiny_net(), EMA)
    assert [item.loss for item in plain.history] == [item.loss for item in averaged.history]
    assert plain.history[0].validation_loss != averaged.history[0].validation_loss
    assert averaged.best_score is not None
    assert averaged.best_score > 0.5


@pytest.mark.parametrize("validated", [True, False])
def test_a_killed_run_goes_on_with_its_average(tmp_path: Path, validated: bool) -> None:
    options = {} if validated else {"validation": None}
    whole = run(tiny_net(), EMA, **options)

    def kill(module: nn.Module, epoch: int) -> None:
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run(tiny_net(), EMA, checkpoint=tmp_path / "run.pt", hooks=Hooks(on_epoch_start=kill), **options)
    resumed = run(tiny_net(seed=9), EMA, checkpoint=tmp_path / "run.pt", **options)
    assert same_weights(whole.module, resumed.module)
    assert resumed.history == whole.history
