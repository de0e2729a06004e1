"""Pruning by measured latency: the plan, what is learned from measuring, and a whole network on a real engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.progress import SilentProgress
from edgecv.core.recipe import FamilySpec, Prune
from edgecv.errors import ModelError
from edgecv.models.reference import digits_cnn
from edgecv.optimize.latency_probe import EngineProbe
from edgecv.optimize.latency_table import make_table
from edgecv.optimize.prune import prune
from edgecv.optimize.prune_graph import Prunable
from edgecv.optimize.prune_latency import LatencyGoal, LatencyPlanner, allowed_widths, fitted_counts
from edgecv.optimize.prune_layers import LayerShape, NetLayer
from edgecv.optimize.prune_plan import Limits, Scored
from edgecv.optimize.prune_rounds import outputs_apart

from .test_latency_table import Blocks, blocks, host

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TEN = FamilySpec(kind="classification", labels=tuple("abcdefghij"))
GRAY = InputContract(size=(32, 32), color="gray", mean=(0.0,), std=(1.0,))
SLOW = LayerShape("conv", 64, 64, (32, 32), (3, 3), (1, 1), (1, 1))
QUICK = LayerShape("conv", 64, 64, (8, 8), (3, 3), (1, 1), (1, 1))


class Whole(Blocks):
    """Times whole networks too: their layers and 0.1 ms besides, of which ``hidden`` tells the table nothing."""

    def __init__(self, *, hidden: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.networks = hidden, 0

    def networks_ms(self, modules: Sequence[nn.Module], example: torch.Tensor) -> list[float]:
        from edgecv.optimize.prune_layers import _calls

        self.networks += len(modules)
        return [0.1 + (1 + self.hidden) * sum(blocks(shape) for _, shape in _calls(item, example)) for item in modules]


def group(name: str, scores: list[float]) -> Scored:
    return Scored(Prunable("", name, tuple((index,) for index in range(len(scores)))), torch.tensor(scores))


def planner(slow: list[float], quick: list[float], *, round_to: int = 8) -> LatencyPlanner:
    scored = [group("slow", slow), group("quick", quick)]
    limits = Limits(round_to, 0.8, {item.key: 64 for item in scored})
    layers = [
        NetLayer("slow", SLOW, (), ((("", "slow"), 64),)),
        NetLayer("quick", QUICK, (), ((("", "quick"), 64),)),
    ]
    table = make_table(layers, allowed_widths(scored, limits), meter=Blocks())
    return LatencyPlanner.of(scored, limits, table, network_ms=table.total_cost({}) + 1.0)


def test_channels_go_where_they_cost_the_most_time() -> None:
    plan = planner([1.0] * 64, [1.0] * 64)
    now_ms = plan.predicted_ms((0, 0))
    assert plan.plan(now_ms, scope="global") == (0, 0)
    counts = plan.plan(1.0 + (now_ms - 1.0) * 0.7, scope="global")
    assert counts == (32, 0)
    assert plan.lost(counts) == 32.0
    same = plan.plan(1.0 + (now_ms - 1.0) * 0.7, scope="uniform")
    assert same is not None
    assert min(same) > 0
    assert plan.lost(same) > plan.lost(counts)


def test_importance_can_outweigh_time() -> None:
    plan = planner([1000.0] * 64, [0.001] * 64)
    full_ms = plan.table.layer_cost(1, {})
    assert plan.plan(plan.predicted_ms((0, 0)) - full_ms * 0.4, scope="global") == (0, 32)


def test_widths_between_two_blocks_are_not_taken() -> None:
    """An engine that computes 16 channels at once gains nothing from 56 or 40."""
    plan = planner([1.0] * 64, [1.0] * 64)
    for share in (0.95, 0.85, 0.6, 0.4):
        counts = plan.plan(1.0 + (plan.predicted_ms((0, 0)) - 1.0) * share, scope="global")
        assert counts is not None
        assert all(count % 16 == 0 for count in counts), (share, counts)


def test_what_cannot_be_reached_is_none() -> None:
    plan = planner([1.0] * 64, [1.0] * 64)
    assert plan.plan(plan.least_ms(), scope="global") == (48, 48)
    assert plan.plan(plan.least_ms() * 0.99, scope="global") is None
    assert plan.plan(plan.least_ms() * 0.99, scope="uniform") is None


@pytest.mark.parametrize("real", [0.7, 1.0, 1.5])
def test_a_wrong_prediction_is_corrected_by_measuring(real: float) -> None:
    """Cuts save ``real`` times what the table says."""
    plan = planner([float(index) for index in range(64)], [float(index) for index in range(64)], round_to=1)
    before_ms = plan.predicted_ms((0, 0))

    def measure(counts: tuple[int, ...]) -> float:
        return before_ms - real * (before_ms - plan.predicted_ms(counts))

    wanted_ms = 1.0 + (before_ms - 1.0) * 0.72
    found = fitted_counts(plan, wanted_ms=wanted_ms, scope="global", measure=measure, progress=SilentProgress())
    assert found is not None
    assert found[1] == measure(found[0]) <= wanted_ms * 1.01
    if real > 1:
        first = plan.plan(wanted_ms, scope="global")
        assert first is not None
        assert plan.lost(found[0]) <= plan.lost(first)


def digits() -> nn.Module:
    torch.manual_seed(0)
    return digits_cnn().eval()


def run(step: Prune, meter: Any) -> Any:
    return prune(digits(), step=step, contract=GRAY, family=TEN, goal=LatencyGoal("made-up", meter))


@pytest.mark.parametrize(("steps", "hidden"), [(1, 0.0), (2, 0.3)])
def test_a_whole_network_meets_its_time(steps: int, hidden: float) -> None:
    meter = Whole(hidden=hidden)
    result = run(Prune(speedup=1.4, by="latency", steps=steps, round_to=4), meter)
    assert result.latency is not None
    assert result.latency.met
    assert result.latency.before_ms / result.latency.after_ms >= 1.38
    assert result.latency.after_ms == pytest.approx(meter.networks_ms([result.module], torch.zeros(1, 1, 32, 32))[0])
    assert result.layers["head"] == (10, 10)
    assert result.latency.to_dict()["target"] == "made-up"
    same = run(Prune(latency_ms=result.latency.wanted_ms, steps=steps, round_to=4), Whole(hidden=hidden))
    assert same.latency is not None
    assert same.layers == result.layers


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Prune(speedup=40.0, by="latency"), "on made-up cannot be reached: .* at the least"),
        (Prune(latency_ms=1000.0), "latency_ms 1000 is met without pruning"),
        (Prune(ratio=0.5, by="latency"), "needs a target that can be measured here, and speedup or latency_ms"),
        (Prune(latency_ms=1.0, speedup=2.0), "exactly one of"),
    ],
)
def test_what_cannot_be_done_is_explained(step: Prune, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        run(step, Whole())


@pytest.mark.build
@pytest.mark.parametrize("speedup", [1.4, 2.0])
def test_a_cut_by_latency_never_changes_the_outputs_more_than_an_even_one(speedup: float) -> None:
    """At 1.4 the sum of the channels' importance is a bad guess: the even cut does less harm, and is taken."""
    scans = load_digits()
    pictures = np.stack([cv2.resize(item.astype(np.float32) / 16, (32, 32))[None] for item in scans.images[:64]])
    network = digits_cnn()
    network.load_state_dict(load_file(RECIPES / "classification/digits.safetensors"))

    def batches() -> Any:
        return iter([(pictures, scans.target[:64].astype(np.int64))])

    found = {}
    for scope in ("global", "uniform"):
        result = prune(
            network,
            step=Prune(speedup=speedup, by="latency", scope=scope, round_to=4, max_layer_ratio=0.9, repair=False),
            contract=GRAY,
            family=TEN,
            batches=batches,
            goal=LatencyGoal("made-up", Whole()),
        )
        assert result.latency is not None
        assert result.latency.met
        found[scope] = outputs_apart(network.eval(), result.module, batches)
    assert found["global"] <= found["uniform"] * (1 + 1e-6)


def test_a_real_engine_gets_faster() -> None:
    meter = EngineProbe(host("onnxruntime"))
    result = prune(
        digits(),
        step=Prune(speedup=1.25, by="latency"),
        contract=GRAY,
        family=TEN,
        goal=LatencyGoal("host-onnxruntime", meter),
    )
    assert result.latency is not None
    before_ms, after_ms = meter.networks_ms([digits(), result.module], torch.zeros(1, 1, 32, 32))
    assert before_ms / after_ms > 1.1
    assert abs(result.latency.error) < 0.5
