from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.protocols import CompileSource
from edgecv.core.recipe import Distill, Quantize
from edgecv.errors import DataError, ToolchainError
from edgecv.measure.ladder import compiler_limits, sqnr_db
from edgecv.optimize import qat
from edgecv.optimize.batches import make_batches
from edgecv.optimize.export import save_program, write_onnx
from edgecv.optimize.features import TAPS
from edgecv.optimize.live_norm import LiveNorm
from edgecv.optimize.objectives import Objective
from edgecv.optimize.qat import quantize_qat
from edgecv.optimize.quantized import QuantizedGraph
from edgecv.optimize.sparsity import pattern_mask
from edgecv.optimize.training import FitResult, Hooks, TrainPlan, fit, top1_score

from .killed import Killed, killed_before
from .test_engines_agree import ENGINES, Exported
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


LEARNED = dataclasses.replace(STEP, step_sizes="learned", ema=0.9, freeze_norms=0.4)


def train_with(step: Quantize, *, checkpoint: Path | None = None, stop_at: int | None = None) -> Any:
    """`train` with the step's average, a checkpoint, and a kill before epoch ``stop_at``."""

    def run_fit(module: nn.Module, hooks: Hooks) -> FitResult:
        return fit(
            module,
            train=make_batches(TinyReader(), CONTRACT, batch_size=STEP.batch_size, shuffle_seed=0),
            validation=make_batches(TinyReader(), CONTRACT, batch_size=20).fixed(),
            objective=Objective(nn.functional.cross_entropy, top1_score),
            plan=TrainPlan(epochs=step.epochs, lr=step.lr, ema=step.ema),
            hooks=killed_before(stop_at, hooks),
            checkpoint=checkpoint,
        )

    return run_fit


@pytest.fixture(scope="module")
def learned() -> tuple[QuantizedGraph, FitResult]:
    return quantise(step=LEARNED, fit=train_with(LEARNED))


def test_learned_steps_norms_and_average_train_and_deploy_what_was_validated(
    learned: tuple[QuantizedGraph, FitResult],
) -> None:
    made, result = learned
    outputs, truths = run(made.program)
    assert (outputs.argmax(1) == truths).mean() > 0.9
    # What was validated is the average in the graph that trains; what is deployed gives its loss again.
    deployed = nn.functional.cross_entropy(torch.from_numpy(outputs), torch.from_numpy(truths)).item()
    validated = result.history[result.best_epoch].validation_loss
    assert deployed == pytest.approx(validated, rel=0.05, abs=0.01)


def test_learned_scales_leave_what_was_observed(
    learned: tuple[QuantizedGraph, FitResult], trained: tuple[QuantizedGraph, FitResult]
) -> None:
    assert [record.node for record in learned[0].plan] == [record.node for record in trained[0].plan]
    assert {record.zero_point for record in learned[0].plan} == {0}
    pairs = zip(learned[0].plan, trained[0].plan, strict=True)
    assert all(one.scale_max != other.scale_max for one, other in pairs)


@pytest.mark.parametrize("engine", ENGINES)
def test_learned_steps_lose_no_more_in_an_engine_than_the_ladder_allows(
    tmp_path: Path, learned: tuple[QuantizedGraph, FitResult], engine: str
) -> None:
    save_program(learned[0].program, tmp_path / "model.pt2")
    write_onnx(learned[0].program, tmp_path / "model.onnx")
    exported = Exported(learned[0], CompileSource("int8", tmp_path / "model.onnx", tmp_path / "model.pt2"))
    arrays = np.concatenate([batch for batch, _ in calibration()])
    reference, found = exported.run_torch(arrays), exported.run(engine, arrays, tmp_path)
    least_db, least_agreement = compiler_limits("int8")
    assert sqnr_db([reference], [found]) >= least_db
    assert (reference.argmax(1) == found.argmax(1)).mean() >= least_agreement


@pytest.mark.parametrize("killed_at", [2, 7])
def test_a_killed_training_goes_on_and_gives_the_same_graph(
    tmp_path: Path, learned: tuple[QuantizedGraph, FitResult], killed_at: int
) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        quantise(step=LEARNED, fit=train_with(LEARNED, checkpoint=path, stop_at=killed_at))
    made, result = quantise(step=LEARNED, fit=train_with(LEARNED, checkpoint=path))
    assert result.history == learned[1].history
    assert made.plan == learned[0].plan
    assert np.array_equal(run(made.program)[0], run(learned[0].program)[0])


def test_norms_follow_the_batches_at_first_and_are_gone_at_the_end() -> None:
    live: list[set[bool]] = []

    def watch(module: nn.Module, hooks: Hooks) -> FitResult:
        norms = [part for part in module.modules() if isinstance(part, LiveNorm)]
        for epoch in range(STEP.epochs):
            hooks.set_mode(module, True)
            assert hooks.on_epoch_start is not None
            hooks.on_epoch_start(module, epoch)
            live.append({part.live for part in norms})
        hooks.set_mode(module, False)
        assert not any(part.live for part in norms)
        return FitResult(module, 0, 0, None, ())

    made, _ = quantise(step=LEARNED, fit=watch)
    assert live == [{True}] * 4 + [{False}] * 5
    names = {getattr(node.target, "__name__", "") for node in made.program.graph.nodes}
    assert not any("batch_norm" in name for name in names)


def test_zeros_of_sparse_weights_are_zeros_in_the_deployed_graph() -> None:
    module = network()
    with torch.no_grad():
        module[3].weight.mul_(pattern_mask(module[3].weight))
    zeros = module[3].weight == 0
    made, _ = quantize_qat(
        module, EXAMPLE, step=LEARNED, calibration=calibration, fit=train_with(dataclasses.replace(LEARNED, epochs=2))
    )
    weight = made.program.state_dict["3.weight"]
    assert bool((weight[zeros] == 0).all())
    assert float((weight[~zeros] != 0).float().mean()) > 0.9


def test_features_are_distilled_into_the_graph() -> None:
    teacher = network()
    distill = Distill(weight=1.0, features=("4",))
    step = dataclasses.replace(STEP, epochs=2, distill=distill)

    def run_fit(module: nn.Module, hooks: Hooks) -> FitResult:
        assert TAPS in module.meta
        return fit(
            module,
            train=make_batches(TinyReader(), CONTRACT, batch_size=8, shuffle_seed=0),
            validation=None,
            objective=Objective(nn.functional.cross_entropy, None, teacher, distill),
            plan=TrainPlan(epochs=2, lr=1e-3),
            hooks=hooks,
        )

    made, result = quantise(step=step, fit=run_fit)
    assert result.losses[-1] < result.losses[0]
    assert not any("feature_tap" in node.name for node in made.program.graph.nodes)


def uneven() -> nn.Module:
    """A classifier with a depthwise layer behind a SiLU whose channels are 0.05 to 5 in size, with batch norms."""
    torch.manual_seed(0)
    norm, spatial = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False)
    sizes = 10.0 ** torch.linspace(-1.3, 0.7, 8)[torch.randperm(8)]
    with torch.no_grad():
        norm.weight.copy_(sizes)
        spatial.weight /= sizes.reshape(-1, 1, 1, 1)
    mixed = [nn.SiLU(), nn.Conv2d(8, 8, 1), nn.SiLU(), nn.Flatten(), nn.Linear(128, 3)]
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), norm, nn.SiLU(), spatial, nn.BatchNorm2d(8), *mixed
    ).eval()


def test_parts_of_split_layers_train_with_their_norms() -> None:
    step = dataclasses.replace(STEP, split=("3",), freeze_norms=0.4)
    norms: list[int] = []

    def watch(module: nn.Module, hooks: Hooks) -> FitResult:
        norms.extend(len(part.mean) for part in module.modules() if isinstance(part, LiveNorm))
        return train(module, hooks)

    made, result = quantize_qat(uneven(), EXAMPLE, step=step, calibration=calibration, fit=watch)
    count = len(norms) // 2
    assert 2 <= count <= 4
    assert sum(norms) == 16  # each part has the norm of its channels
    weights = [record.node for record in made.plan if record.kind == "weight"]
    assert len(weights) == 2 * count + 2
    assert result.losses[-1] < 0.5 * result.losses[0]
    outputs, truths = run(made.program)
    assert (outputs.argmax(1) == truths).mean() > 0.9
