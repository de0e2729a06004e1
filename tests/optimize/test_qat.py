from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.recipe import Quantize
from edgecv.errors import DataError, ToolchainError
from edgecv.optimize import qat
from edgecv.optimize.batches import make_batches
from edgecv.optimize.qat import quantize_qat
from edgecv.optimize.quantized import QuantizedGraph
from edgecv.optimize.training import FitResult, Hooks, Objective, TrainPlan, fit, top1_score

from .tiny_reader import CONTRACT, TinyReader

pytestmark = pytest.mark.build

STEP = Quantize("qat", epochs=9, lr=1e-2, batch_size=8)
EXAMPLE = torch.zeros(1, 1, 8, 8)


def network() -> nn.Module:
    """A classifier of TinyReader's pictures that was not trained."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, 3),
    ).eval()


def calibration() -> Any:
    return make_batches(TinyReader(), CONTRACT, batch_size=4)(0)


def train(module: nn.Module, hooks: Hooks) -> FitResult:
    return fit(
        module,
        train=make_batches(TinyReader(), CONTRACT, batch_size=STEP.batch_size, shuffle_seed=0),
        validation=None,
        objective=Objective(nn.functional.cross_entropy, top1_score),
        plan=TrainPlan(epochs=STEP.epochs, lr=STEP.lr),
        hooks=hooks,
    )


def quantise(**options: Any) -> tuple[QuantizedGraph, FitResult]:
    options = {"step": STEP, "calibration": calibration, "fit": train, **options}
    return quantize_qat(network(), EXAMPLE, **options)


def run(program: Any) -> tuple[np.ndarray, np.ndarray]:
    module, outputs, truths = program.module(), [], []
    with torch.no_grad():
        for arrays, classes in make_batches(TinyReader(), CONTRACT, batch_size=1)(0):
            outputs.append(module(torch.from_numpy(arrays)).numpy())
            truths.append(classes)
    return np.concatenate(outputs), np.concatenate(truths)


@pytest.fixture(scope="module")
def trained() -> tuple[QuantizedGraph, FitResult]:
    return quantise()


def test_the_int8_graph_learns(trained: tuple[QuantizedGraph, FitResult]) -> None:
    made, result = trained
    assert result.losses[-1] < 0.5 * result.losses[0]
    outputs, truths = run(made.program)
    assert (outputs.argmax(1) == truths).mean() > 0.9


def test_the_result_has_int8_weights_and_portable_scales(trained: tuple[QuantizedGraph, FitResult]) -> None:
    made, _ = trained
    kinds = [record.kind for record in made.plan]
    assert kinds.count("weight") == 3
    assert "float" not in kinds
    assert {record.zero_point for record in made.plan} == {0}
    assert all(record.why for record in made.plan)


def test_the_same_seed_gives_the_same_bits(trained: tuple[QuantizedGraph, FitResult]) -> None:
    again, _ = quantise()
    assert again.plan == trained[0].plan
    assert np.array_equal(run(again.program)[0], run(trained[0].program)[0])


def test_what_trains_is_what_is_deployed() -> None:
    """The last loss of the fake-quantised graph is that of the exported program."""
    seen: list[nn.Module] = []

    def untrained(module: nn.Module, hooks: Hooks) -> FitResult:
        hooks.set_mode(module, False)
        seen.append(module)
        with torch.no_grad():
            outputs = [module(torch.from_numpy(arrays)).numpy() for arrays, _ in calibration()]
        expected.append(np.concatenate(outputs))
        return FitResult(module, 0, 0, None, ())

    expected: list[np.ndarray] = []
    made, _ = quantise(fit=untrained)
    found, _ = run(made.program)
    assert np.abs(found - expected[0]).max() < 0.05 * np.abs(expected[0]).max()


def test_first_ranges_come_from_calibration_and_freeze_in_the_last_third() -> None:
    enabled: list[list[int]] = []

    def watch(module: nn.Module, hooks: Hooks) -> FitResult:
        quantisers = [part for part in module.modules() if hasattr(part, "observer_enabled")]
        assert all(float(part.scale.max()) > 0 and int(part.fake_quant_enabled) for part in quantisers)
        assert not all(float(part.scale.max()) == 1.0 for part in quantisers)
        for epoch in range(STEP.epochs):
            hooks.set_mode(module, True)
            hooks.on_epoch_start(module, epoch)
            enabled.append([int(part.observer_enabled) for part in quantisers])
        hooks.set_mode(module, False)
        assert not any(int(part.observer_enabled) for part in quantisers)
        return FitResult(module, 0, 0, None, ())

    quantise(fit=watch)
    assert [set(values) for values in enabled] == [{1}] * 6 + [{0}] * 3


def test_kept_modules_stay_float_and_still_train() -> None:
    made, result = quantise(step=Quantize("qat", epochs=9, lr=1e-2, keep_float=("7",)))
    assert [record.node for record in made.plan if record.kind == "float"] == ["linear"]
    assert result.losses[-1] < result.losses[0]


def test_an_empty_calibration_set_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        quantise(calibration=lambda: iter(()))


def test_what_torchao_refuses_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("no such pattern")

    monkeypatch.setattr(qat, "prepare_qat_pt2e", refuse)
    with pytest.raises(ToolchainError, match=r"cannot prepare Sequential .*no such pattern.*keep_float"):
        quantise()


def test_the_module_is_left_alone() -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    quantize_qat(module, EXAMPLE, step=STEP, calibration=calibration, fit=train)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
