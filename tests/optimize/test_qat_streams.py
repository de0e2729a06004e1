"""Networks that stream, trained with their rounding in place: over the frames of clips, with an int8 state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecv import backends
from edgecv.core.figures import DropFigures
from edgecv.core.protocols import Batches
from edgecv.core.recipe import Distill, Quantize
from edgecv.core.tensor import FloatArray
from edgecv.errors import DataError
from edgecv.models.reference_streaming import tsm
from edgecv.models.streaming import Unrolled, deploy_form, whole_form
from edgecv.optimize.examples import steps_of
from edgecv.optimize.export import save_program, write_onnx
from edgecv.optimize.objectives import Objective
from edgecv.optimize.ptq import quantize_ptq
from edgecv.optimize.qat import Fit, quantize_qat
from edgecv.optimize.quantized import QuantizedGraph
from edgecv.optimize.repair import Judged, Workshop, repair
from edgecv.optimize.training import FitResult, Hooks, TrainPlan, fit, top1_score

from .killed import Killed, killed_before
from .test_examples import CONTRACT, ENGINES, batches, clips, compiled, lively, small, streamed

pytestmark = pytest.mark.build

STEP = Quantize("qat", epochs=3, lr=1e-2)
COUNT = 24
LIMIT = 0.2
"""A loss that the float network of `taught` does not reach."""


def moving(seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips `(24, 15, 16, 24)` of a bright bar that stands still or moves right or left."""
    values = torch.rand(COUNT, 5, 3, 16, 24, generator=torch.Generator().manual_seed(seed)) * 0.4
    truths = torch.arange(COUNT) % 3
    for clip, truth in zip(values, truths.tolist(), strict=True):
        for frame in range(5):
            column = 12 + (0, 2, -2)[truth] * (frame - 4)
            clip[frame, :, :, column : column + 3] += 1.0
    return values.reshape(COUNT, 15, 16, 24), truths


@dataclass(frozen=True)
class Shuffled:
    """Training batches of `moving`, in an order of the epoch."""

    rank: int = 0
    size: int = 8

    @property
    def steps(self) -> int:
        return COUNT // self.size

    def share(self, rank: int, world: int) -> Shuffled:
        assert (rank, world) == (0, 1)
        return self

    def __call__(self, epoch: int) -> Iterator[tuple[FloatArray, Any]]:
        values, truths = moving()
        order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(epoch))
        for part in order.split(self.size):
            yield values[part].numpy(), truths[part].numpy()


def training(
    step: Quantize, *, checkpoint: Path | None = None, stop_at: int | None = None, teacher: nn.Module | None = None
) -> Fit:
    """The training loop, killed before epoch ``stop_at``."""
    distill = step.distill if isinstance(step.distill, Distill) else Distill(weight=0.0)

    def run(module: nn.Module, hooks: Hooks) -> FitResult:
        return fit(
            module,
            train=Shuffled(),  # type: ignore[arg-type]
            validation=None,
            objective=Objective(nn.functional.cross_entropy, top1_score, teacher, distill),
            plan=TrainPlan(epochs=step.epochs, lr=step.lr, ema=step.ema),
            hooks=killed_before(stop_at, hooks),
            checkpoint=checkpoint,
        )

    return run


def taught(module: nn.Module | None = None) -> nn.Module:
    """A network (`small`) that has begun to tell the movements apart, in float."""
    module = (module or small()).train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.3
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for epoch in range(6):
        for values, truths in Shuffled()(epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(torch.from_numpy(values)), torch.from_numpy(truths)).backward()
            optimizer.step()
    return module.eval()


def calibration(module: nn.Module) -> tuple[nn.Module, tuple[torch.Tensor, ...], Batches]:
    """The step form, its inputs and the steps of some clips."""
    form, example = deploy_form(module, CONTRACT)
    return form, example, steps_of(batches(moving()[0][:6]), form, example)


def quantise(module: nn.Module, step: Quantize, fit: Fit | None = None) -> tuple[QuantizedGraph, FitResult]:
    form, example, steps = calibration(module)
    return quantize_qat(form, example, step=step, calibration=steps, fit=fit or training(step))


def answers(made: QuantizedGraph, module: nn.Module, values: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return whole_form(made.program.module(), deploy_form(module, CONTRACT)[1], CONTRACT)(values)


def scales(made: QuantizedGraph) -> dict[str, tuple[float, int]]:
    return {record.node: (record.scale_max, record.zero_point) for record in made.plan}


@dataclass(frozen=True)
class Trained:
    """A float network, what post-training quantisation makes of it, and what training does."""

    module: nn.Module
    plain: QuantizedGraph
    made: QuantizedGraph
    result: FitResult
    folder: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    module, folder = taught(), tmp_path_factory.mktemp("trained")
    form, example, steps = calibration(module)
    plain = quantize_ptq(form, example, step=Quantize("ptq", ranges="minmax"), calibration=steps)
    made, result = quantise(module, STEP)
    save_program(made.program, folder / "program.pt2")
    write_onnx(made.program, folder / "model.onnx", log=folder / "log")
    return Trained(module, plain, made, result, folder)


@pytest.mark.xdist_group("streams")
def test_the_int8_graph_learns_more_than_post_training_keeps(trained: Trained) -> None:
    assert trained.result.losses[-1] < 0.5 * trained.result.losses[0]
    values, truths = moving(seed=4)
    losses = [
        float(nn.functional.cross_entropy(answers(made, trained.module, values), truths))
        for made in (trained.made, trained.plain)
    ]
    assert losses[0] < 0.6 * losses[1]


@pytest.mark.xdist_group("streams")
def test_it_becomes_int8_where_post_training_makes_it_int8(trained: Trained) -> None:
    rules = [sorted(item.why.partition(";")[0] for item in made.plan) for made in (trained.made, trained.plain)]
    assert rules[0] == rules[1]
    assert "float" not in {item.kind for item in trained.made.plan}


@pytest.mark.xdist_group("streams")
def test_before_training_the_ranges_are_those_of_whole_clips(trained: Trained) -> None:
    """The answers of a clip's first frames are small, and those of the last one are not cut."""
    values, truths = moving()

    def untrained(graph: nn.Module, hooks: Hooks) -> FitResult:
        hooks.set_mode(graph, False)
        return FitResult(graph, 0, 0, None, ())

    made, _ = quantise(trained.module, STEP, untrained)
    found, known = scales(made)["linear"][0], scales(trained.plain)["linear"][0]
    assert 0.5 * known < found < 1.1 * known
    with torch.no_grad():
        wanted = nn.functional.cross_entropy(trained.module(values), truths)
    assert nn.functional.cross_entropy(answers(made, trained.module, values), truths) < 2 * wanted


@pytest.mark.parametrize("step_sizes", ["observed", "learned"])
@pytest.mark.parametrize("scheme", ["portable", "affine"])
def test_a_state_has_one_scale_where_it_goes_in_and_where_it_comes_out(scheme: Any, step_sizes: Any) -> None:
    made, _ = quantise(small(), replace(STEP, epochs=1, scheme=scheme, step_sizes=step_sizes))
    found = scales(made)
    for number in range(3):
        assert found[f"state_{number}"] == found[f"slice_{number + 1}"]
        assert found[f"state_{number}"][0] > 1e-4


def test_what_trains_is_what_is_deployed() -> None:
    """Clips at once through the graph that trains give what the exported steps give."""
    module, seen = small(), list[torch.Tensor]()

    def untrained(graph: nn.Module, hooks: Hooks) -> FitResult:
        assert isinstance(graph, Unrolled)
        hooks.set_mode(graph, False)
        with torch.no_grad():
            seen.append(graph(clips(4)))
            assert (graph(clips(4)[2:]) - seen[0][2:]).abs().max() < 1e-5, "each clip has a state of its own"
        return FitResult(graph, 0, 0, None, ())

    made, _ = quantise(module, STEP, untrained)
    found = answers(made, module, clips(4))
    assert (found - seen[0]).abs().max() < 0.1 * found.std()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.xdist_group("streams")
def test_all_engines_answer_as_torch_and_hand_the_state_over_without_loss(trained: Trained, engine: str) -> None:
    values = moving(seed=5)[0][:6]
    wanted = answers(trained.made, trained.module, values).numpy()
    file = compiled(trained.folder, engine, "int8")
    found = streamed(trained.folder, engine, file, values)
    assert np.abs(found - wanted).max() < 0.05 * wanted.std()
    steps = [scales(trained.made)[f"state_{number}"][0] for number in range(3)]
    if engine == "litert":
        assert {spec.dtype for spec in (*file.inputs, *file.outputs)} == {"int8"}
        for one, other, scale in zip(file.inputs[1:], file.outputs[1:], steps, strict=True):
            assert one.quantization == other.quantization
            assert one.quantization is not None
            assert one.quantization.scale == pytest.approx(scale)
        return
    loaded = backends.get(engine).load(trained.folder / engine / file.model, options=file.options, threads=1)
    state = [np.zeros(spec.shape, np.float32) for spec in file.inputs[1:]]
    for frame in values[0].split(3):
        state = loaded.run([frame[None].numpy(), *state])[1:]
    loaded.close()
    for item, scale in zip(state, steps, strict=True):
        levels = item / np.float32(scale)
        assert np.abs(levels - np.rint(levels)).max() < 1e-3, "on the grid of what goes in"
        assert 1 < np.abs(levels).max() < 127.5


def test_a_shift_network_trains_too() -> None:
    torch.manual_seed(2)
    options = {"channels": [4, 4, 4, 4], "stem_width": 4}
    module = taught(lively(tsm(frames=5, backbone="timm:resnet10t", num_classes=3, parts=4, options=options)))
    made, result = quantise(module, replace(STEP, freeze_norms=0.67, lr=3e-3))
    assert result.losses[-1] < result.losses[0]
    assert "float" not in {record.kind for record in made.plan}
    found = scales(made)
    example = deploy_form(module, CONTRACT)[1]
    assert len(example) == 1 + 4
    with torch.no_grad():
        _, *state = made.program.module()(clips(1)[:, :3], *example[1:])
    for number, item in enumerate(state):
        levels = item / found[f"state_{number}"][0]
        assert (levels - levels.round()).abs().max() < 1e-3, "what comes out lies on the grid of what goes in"


LEARNED = replace(STEP, step_sizes="learned", ema=0.9, freeze_norms=0.67)


def test_a_killed_training_goes_on_and_gives_the_same_graph(tmp_path: Path) -> None:
    module, path = small(), tmp_path / "run.pt"
    whole, _ = quantise(module, LEARNED)
    with pytest.raises(Killed):
        quantise(module, LEARNED, training(LEARNED, checkpoint=path, stop_at=2))
    made, result = quantise(module, LEARNED, training(LEARNED, checkpoint=path))
    assert result.epochs_run == LEARNED.epochs
    assert made.plan == whole.plan
    assert all(torch.equal(value, whole.program.state_dict[name]) for name, value in made.program.state_dict.items())


def test_features_are_compared_at_the_last_frame() -> None:
    module, teacher = small(), small()
    step = replace(STEP, distill=Distill(weight=1.0, features=("mix",)), epochs=2, lr=1e-3)
    made, result = quantise(module, step, training(step, teacher=teacher))
    assert result.losses[-1] < result.losses[0]
    assert not any("feature_tap" in node.name for node in made.program.graph.nodes)


def test_the_ladder_ends_with_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.optimize.repair.RUNGS", ())
    form, example, steps = calibration(taught())
    values, truths = moving(seed=4)

    def judge(candidate: nn.Module) -> Judged:
        with torch.no_grad():
            found = whole_form(candidate, example, CONTRACT)(values)
        loss = float(nn.functional.cross_entropy(found, truths))
        return Judged(-loss, DropFigures(loss - LIMIT, None, 0.0, "fail" if loss > LIMIT else "pass"))

    def train(wanted: Quantize) -> tuple[QuantizedGraph, nn.Module]:
        made, _ = quantize_qat(form, example, step=wanted, calibration=steps, fit=training(wanted))
        return made, made.program.module()

    step = Quantize("ptq", ranges="minmax", repair="full", epochs=3, lr=1e-2)
    _, found = repair(Workshop(form, example, steps, judge, train=train), step)
    assert found.rungs[-1].rung == "quantisation-aware training"
    assert found.rungs[-1].kept


def test_clips_of_another_size_are_refused() -> None:
    form, example = deploy_form(small(), CONTRACT)
    steps = steps_of(batches(torch.rand(1, 15, 8, 8)), form, example)
    with pytest.raises(DataError, match=r"\(3, 8, 8\)"):
        quantize_qat(form, example, step=STEP, calibration=steps, fit=training(STEP))
