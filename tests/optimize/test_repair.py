"""Every rung has a network that needs it: the rungs before fail, and it mends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.core.plain import to_plain
from edgecv.core.recipe import Quantize
from edgecv.measure.gate import judge_drop
from edgecv.models.reference import cifar_resnet20
from edgecv.optimize.ptq import quantize_ptq
from edgecv.optimize.repair import Judged, Repair, Workshop, acceptable, repair

from .quantize_nets import batches, example, images, residual, sqnr_db
from .test_engines_agree import read_cifar
from .test_observers import one_sided, spoiled

pytestmark = pytest.mark.build

STEP = Quantize("ptq", repair="ptq")


def quality(module: nn.Module, *, wanted_db: float) -> Callable[[nn.Module], Judged]:
    """A metric that reaches 1 where every picture has ``wanted_db`` of signal to noise; a drop above 0.02 fails."""
    pictures = [torch.from_numpy(array[None]) for array in images(24, seed=3)]
    with torch.no_grad():
        wanted = [module(picture).numpy() for picture in pictures]

    def judge(candidate: nn.Module) -> Judged:
        found = [candidate(picture).detach().numpy() for picture in pictures]
        pairs = zip(wanted, found, strict=True)
        scores = [min(1.0, max(0.0, sqnr_db(one, other)) / wanted_db) for one, other in pairs]
        return Judged(float(np.mean(scores)), judge_drop([1.0] * len(scores), scores, max_drop=0.02))

    return judge


def climb(module: nn.Module, step: Quantize, *, wanted_db: float, arrays: np.ndarray | None = None) -> Repair:
    calibration = batches(images(32) if arrays is None else arrays)
    workshop = Workshop(module, example(), calibration, quality(module, wanted_db=wanted_db))
    made, found = repair(workshop, step)
    print([(rung.rung, rung.before, rung.after, rung.kept) for rung in found.rungs], found.last.value)
    # The settings alone give the same network again.
    settings = replace(step, **found.settings)
    again = quantize_ptq(module, example(), step=settings, calibration=calibration)
    with torch.no_grad():
        assert torch.equal(again.program.module()(example()), made.program.module()(example()))
    return found


def kept(found: Repair) -> list[str]:
    return [rung.rung for rung in found.rungs if rung.kept]


def test_nothing_is_tried_where_nothing_is_lost() -> None:
    found = climb(residual(), STEP, wanted_db=5)
    assert (found.outcome, found.rungs, found.settings) == ("not-needed", (), {})


@pytest.mark.parametrize("lost", [0.005, 0.5])
def test_the_gate_is_asked_once_whether_anything_is_needed(lost: float) -> None:
    """A judge without labels refuses what the gate's labels allow; its rungs are judged by it alone."""
    module, asked = residual(), []

    def gate(candidate: nn.Module) -> Judged:
        asked.append(candidate)
        return Judged(1 - lost, judge_drop([1.0] * 8, [1.0 - lost] * 8, max_drop=0.02))

    judge = quality(module, wanted_db=300)
    _, found = repair(Workshop(module, example(), batches(images(16)), judge, gate=gate), STEP)
    assert len(asked) == 1
    assert found.gate is not None
    assert found.gate.drop.drop == pytest.approx(lost)
    assert (found.outcome == "not-needed") == (lost < 0.02)
    assert bool(found.rungs) == (lost > 0.02)
    _, found = repair(Workshop(module, example(), batches(images(16)), quality(module, wanted_db=5), gate=gate), STEP)
    assert (found.outcome, found.gate, len(asked)) == ("not-needed", None, 1), "where the judge is content nobody asks"


def test_off_tries_nothing() -> None:
    found = climb(residual(), replace(STEP, repair="off"), wanted_db=90)
    assert (found.outcome, found.rungs) == ("not-mended", ())


def test_a_broken_pixel_needs_another_observer() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, 4, 3))
    found = climb(module, replace(STEP, ranges="minmax"), wanted_db=18, arrays=spoiled())
    assert (found.outcome, found.mended_by, kept(found)) == ("mended", "observer", ["observer"])
    assert set(found.settings) == {"ranges"}
    assert found.rungs[0].before < 0.5 < 0.97 < (found.rungs[0].after or 0)


def test_one_sided_rounding_needs_bias_correction() -> None:
    found = climb(one_sided(), replace(STEP, ranges="mse", bias_correction=False), wanted_db=15)
    assert (found.outcome, found.mended_by) == ("mended", "bias correction")
    assert found.settings["bias_correction"] is True


def test_spread_channels_need_equalisation() -> None:
    torch.manual_seed(0)
    one, two = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3)
    factors = 2.0 ** torch.linspace(-7, 7, 16).round()
    with torch.no_grad():
        one.weight *= factors.reshape(-1, 1, 1, 1)
        one.bias *= factors  # type: ignore[operator]
        two.weight /= factors.reshape(1, -1, 1, 1)
    found = climb(nn.Sequential(one, nn.ReLU(), two), STEP, wanted_db=22)
    assert (found.outcome, found.mended_by, found.settings) == ("mended", "equalisation", {"equalize": True})


class Halves(nn.Module):
    """A tensor whose halves are 64 times apart, as are the weights that make and read them: nothing to even out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.side = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 4, 3), nn.Conv2d(8, 4, 3)
        with torch.no_grad():
            for values in (self.one.weight[8:], self.one.bias[8:], self.side.weight):  # type: ignore[index]
                values /= 64
            self.side.bias.zero_()  # type: ignore[union-attr]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        large, small = functional.leaky_relu(self.one(image), 0.1).chunk(2, dim=1)
        return torch.cat([torch.tanh(self.two(large)), torch.tanh(64 * 64 * self.side(small))], dim=1)


def test_channels_of_unlike_size_need_levelling() -> None:
    found = climb(Halves(), replace(STEP, ranges="minmax"), wanted_db=26)
    assert (found.outcome, found.mended_by) == ("mended", "equalisation")
    assert found.settings["level"] == 1.0


def test_a_layer_that_int8_cannot_hold_stays_float() -> None:
    """One picture element is 2,000 times larger than the rest, always, and both matter: no 8 bits hold them."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Conv2d(3, 8, 3, padding=1)
            self.wide = nn.Conv2d(8, 8, 1, bias=False)
            self.last = nn.Conv2d(8, 4, 3)
            self.tail = nn.Conv2d(4, 4, 1)
            with torch.no_grad():
                self.wide.weight[:4] *= 3000

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            mixed = torch.sinh(torch.asinh(self.wide(self.body(image))))
            squeezed = torch.asinh(mixed)
            return self.tail(self.last(squeezed))

    found = climb(Wide(), STEP, wanted_db=28)
    assert (found.outcome, found.mended_by) == ("mended", "float layers")
    assert "wide" in found.settings["keep_float"]


noted: list[str] = []


def graded(drops: dict[str, float]) -> Callable[[nn.Module], Judged]:
    """A judge that knows each network by what `noted` wrote down when it was prepared; 0.02 may be lost."""

    def judge(candidate: nn.Module) -> Judged:
        scores = [1 - drops[noted[-1]]] * 40
        return Judged(scores[0], judge_drop([1.0] * len(scores), scores, max_drop=0.02))

    return judge


class Noting(Workshop):
    """Writes down what is prepared, so that a judge may answer by it."""

    def prepare(self, step: Quantize):  # type: ignore[no-untyped-def]
        noted.append("float" if step.keep_float else "even" if step.equalize else "plain")
        return super().prepare(step)


@pytest.mark.parametrize(
    ("even", "float_", "rung", "value"),
    [(0.019, 0.009, "float layers", 0.991), (0.019, 0.015, "equalisation", 0.981), (0.009, 0.0, "equalisation", 0.991)],
)
def test_the_climb_goes_on_until_half_of_the_limit_is_left(even: float, float_: float, rung: str, value: float) -> None:
    """Right at the limit other pictures would refuse it; where no rung brings more, the first within it stays."""
    judge = graded({"plain": 0.05, "even": even, "float": float_})
    step = replace(STEP, ranges="minmax")
    _, found = repair(Noting(residual(), example(), batches(images(16)), judge), step)
    assert (found.outcome, found.mended_by) == ("mended", rung)
    assert found.last.value == pytest.approx(value)
    assert kept(found) == [rung]
    assert ("keep_float" in found.settings) == (rung == "float layers")


def test_what_cannot_be_mended_is_said_and_every_rung_tells() -> None:
    found = climb(residual(), STEP, wanted_db=300)
    assert (found.outcome, found.mended_by) == ("not-mended", "")
    assert not acceptable(found.last)
    assert all(rung.seconds > 0 and rung.what for rung in found.rungs)
    to_plain(found)


def test_training_is_the_last_rung() -> None:
    module, tried = residual(), []

    def train(step: Quantize):  # type: ignore[no-untyped-def]
        tried.append(step.method)
        made = quantize_ptq(module, example(), step=replace(step, method="ptq"), calibration=batches(images(8)))
        return made, module

    judge = quality(module, wanted_db=300)
    workshop = Workshop(module, example(), batches(images(16)), judge, train=train)
    made, found = repair(workshop, replace(STEP, repair="full"))
    assert tried == ["qat"]
    assert found.mended_by == "quantisation-aware training"
    assert found.settings["method"] == "qat"
    assert made.plan


def test_resnet20_with_spread_channels_comes_back_within_a_point(shared_data: Path) -> None:
    """The collapse test: the same function in float, hopeless in plain int8."""
    module = cifar_resnet20()
    weights = shared_data / "models" / "resnet20_cifar10" / "resnet20-12fca82f.th"
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    module.eval()
    calibration, _ = read_cifar(shared_data / "cifar10-mini" / "train", count=100)
    arrays, truths = read_cifar(shared_data / "cifar10-mini" / "test", count=500)
    pictures = [torch.from_numpy(array[None]) for array in arrays]

    def scores(candidate: nn.Module) -> list[float]:
        with torch.no_grad():
            found = [int(candidate(picture).argmax()) for picture in pictures]
        return [float(one == truth) for one, truth in zip(found, truths, strict=True)]

    reference = scores(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for stage in (module.layer1, module.layer2, module.layer3):
            for block in stage:  # type: ignore[union-attr]
                factors = 2.0 ** torch.randint(-6, 7, (block.bn1.num_features,), generator=generator).float()
                block.bn1.weight *= factors
                block.bn1.bias *= factors
                block.conv2.weight /= factors.reshape(1, -1, 1, 1)
    assert np.mean(scores(module)) == pytest.approx(np.mean(reference), abs=0.002)

    def judge(candidate: nn.Module) -> Judged:
        found = scores(candidate)
        return Judged(float(np.mean(found)), judge_drop(reference, found, max_drop=0.01))

    _, found = repair(Workshop(module, torch.from_numpy(calibration[:1]), batches(calibration), judge), STEP)
    assert found.first.value < np.mean(reference) - 0.3
    assert found.last.value >= np.mean(reference) - 0.01
    assert (found.outcome, found.mended_by) == ("mended", "equalisation")
    assert found.settings["equalize"] is True
