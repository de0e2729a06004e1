"""Networks that need one rung of the ladder: scales of sums, learned rounding, SmoothQuant, a head left float."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections, DetectionTruth
from edgecv.measure.gate import judge_parts
from edgecv.optimize.ptq import prepare_ptq
from edgecv.optimize.repair import Judged, Workshop, repair
from edgecv.optimize.repair_rungs import Scene, rank_for_float
from edgecv.optimize.switches import make_board

from .quantize_nets import batches, example, images, sqnr_db
from .test_repair import STEP, climb, kept
from .test_split import Uneven

pytestmark = pytest.mark.build


class Halves(nn.Module):
    """Layer ``sums`` adds up 48 channels that are nearly alike with weights of a bit less than half a step.

    Each is rounded to 0, and the sum of all that is lost goes with the signal, so no bias can make up for it. Every
    channel has one large weight in another row, so that there is nothing to even out either.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.sums = nn.Conv2d(3, 48, 1), nn.Conv2d(48, 48, 1, bias=False)
        self.last = nn.Conv2d(48, 6, 3, stride=2)
        with torch.no_grad():
            self.mix.weight.copy_((1 + 0.05 * torch.randn(48, 3, 1, 1)) / 3)
            self.mix.bias.zero_()  # type: ignore[union-attr]
            steps = 0.45 + 0.02 * torch.rand(48, 48)
            self.sums.weight.copy_(steps.fill_diagonal_(127.0)[:, :, None, None] / 127)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.sums(torch.relu(self.mix(image)))))


class SmallBesideLarge(nn.Module):
    """What one layer reads is also added to a tensor that is some hundred times as large."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.small, self.large = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 16, 3)
        self.read, self.whole = nn.Conv2d(16, 6, 3, stride=2), nn.Conv2d(16, 6, 3, stride=2)
        with torch.no_grad():
            self.large.weight *= 200
            self.read.weight *= 200

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        small = torch.relu(self.small(image))
        return torch.cat([self.read(small), self.whole(torch.relu(self.large(image)) + small)], dim=1)


class Tokens(nn.Module):
    """A linear layer that reads tokens, whose channels a LayerNorm made 2,000 times as large as others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.norm = nn.Conv2d(3, 24, 4, stride=4), nn.LayerNorm(24)
        self.read, self.head = nn.Linear(24, 20), nn.Linear(20, 6)
        with torch.no_grad():
            factors = 2.0 ** torch.linspace(-5, 6, 24).round()
            self.norm.weight.copy_(factors)
            self.norm.bias.copy_(factors * 0.3)
            self.read.weight /= factors
            self.read.bias += 0.5

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(image).flatten(2).transpose(1, 2)
        return self.head(torch.relu(self.read(self.norm(tokens))).mean(dim=1))


class OutlierHead(nn.Module):
    """A detector, `(N, 3, 16, 16)` -> logits `(N, 64, 4)` and boxes `(N, 64, 4)` in shares of the picture.

    Beside two classes and "nothing" stands a class that is never there: its logit is near -2,000.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU())
        self.boxes, self.logits = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1)
        with torch.no_grad():
            self.logits.weight *= 12
            self.logits.bias.copy_(torch.tensor([0.0, 0.0, -2000.0, 1.5]))  # type: ignore[union-attr]
        places = (torch.arange(8.0) * 2 + 1) / 16
        self.register_buffer("places", torch.stack(torch.meshgrid(places, places, indexing="xy"))[None])

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(image)
        moved = torch.tanh(self.boxes(features))
        boxes = torch.cat([self.places + 0.05 * moved[:, :2], 0.3 + 0.1 * moved[:, 2:]], dim=1)  # type: ignore[operator]
        return self.logits(features).flatten(2).transpose(1, 2), boxes.flatten(2).transpose(1, 2)


def test_rounding_errors_that_add_up_need_learned_rounding() -> None:
    found = climb(Halves(), STEP, wanted_db=24)
    assert (found.outcome, found.mended_by) == ("mended", "learned rounding")
    assert found.settings["adaround"] == ("sums",)
    assert kept(found) == ["learned rounding"]


def test_a_small_tensor_added_to_a_large_one_needs_its_own_scale() -> None:
    found = climb(SmallBesideLarge(), STEP, wanted_db=22)
    assert (found.outcome, found.mended_by) == ("mended", "sum scales")
    assert found.settings == {"sums": "own"}


def test_channels_that_a_norm_spreads_need_smooth_quant() -> None:
    found = climb(Tokens(), STEP, wanted_db=19)
    assert (found.outcome, found.mended_by) == ("mended", "smooth quant")
    assert found.settings == {"smooth_quant": True}


def test_channels_that_a_silu_holds_apart_need_scales_of_their_own() -> None:
    found = climb(Uneven(), STEP, wanted_db=24)
    assert (found.outcome, found.mended_by) == ("mended", "split channels")
    assert found.settings == {"split": ("each",)}


def test_a_smoothed_network_is_the_same_in_float() -> None:
    """Moving outliers renames the weights; their biases must still be found."""
    module = Tokens().eval()
    step = replace(STEP, smooth_quant=True)
    prepared = prepare_ptq(module, example(), step=step, calibration=batches(images(16)))
    board = make_board(prepared.graph, prepared.originals)
    board.turn(())
    for array in images(4, seed=3):
        picture = torch.from_numpy(array[None])
        with torch.no_grad():
            assert sqnr_db(module(picture).numpy(), board.run(picture)[0].numpy()) > 80


class Unlike(nn.Module):
    """``large`` rounds badly, for the sake of a channel that nobody reads; ``small`` gives a hundredth of the rest."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.large, self.small = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 5, 3)
        with torch.no_grad():
            self.large.weight[0] *= 500

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.large(image)[:, 1:] + 0.01 * self.small(image)


def test_a_layer_that_adds_no_noise_is_not_kept_float_for_being_cheap() -> None:
    """DETR's ladder kept the layer of its classes float, a hundredth of the noise, and stopped at the limit."""
    found = prepare_ptq(Unlike().eval(), example(), step=STEP, calibration=batches(images(16)))
    pictures = [torch.from_numpy(array[None]) for array in images(16)]
    times = {"large": 1e9, "small": 1.0}
    scene = Scene(found, 0.0, lambda: pictures, times, lambda step: 0.0, found.graph)
    noise = {row.layer: 10 ** (-row.sqnr_db / 10) for row in scene.table().rows if row.kind != "activation"}
    assert noise["small"] / times["small"] > noise["large"] / times["large"], "by cost alone it would come first"
    assert rank_for_float(scene) == ("large", "small")


FAMILY = FamilySpec("detection", ("one", "other", "never"), head="detr", score_threshold=0.05)
CONTRACT = InputContract((16, 16))


def detector_judge(module: nn.Module) -> Callable[[nn.Module], Judged]:
    """AP50 against what the float network is sure of; one point may be lost."""
    pictures = [torch.from_numpy(array[None]) for array in images(32, seed=5)]

    def answers(candidate: nn.Module) -> list[Detections]:
        with torch.no_grad():
            raw = [[output.numpy() for output in candidate(picture)] for picture in pictures]
        return [families.get("detection").decode(outputs, FAMILY, CONTRACT) for outputs in raw]

    wanted = answers(module)
    truths = [DetectionTruth(one.boxes[one.scores > 0.5], one.class_ids[one.scores > 0.5]) for one in wanted]
    assert sum(len(truth.boxes) for truth in truths) > 60

    def scored(results: list[Detections]):  # type: ignore[no-untyped-def]
        metric = families.get("detection").metric(FAMILY, "ap50")
        for one, truth in zip(results, truths, strict=True):
            metric.update(one, truth)
        return metric

    reference = scored(wanted).parts()

    def judge(candidate: nn.Module) -> Judged:
        metric = scored(answers(candidate))
        return Judged(metric.compute().value, judge_parts(reference, metric.parts(), max_drop=0.01, resamples=1000))

    return judge


def test_a_detector_with_outlier_logits_comes_back_within_a_point() -> None:
    """The collapse test: the classes' logits have no int8 steps left beside the one that is far away."""
    module = OutlierHead().eval()
    judge = detector_judge(module)
    before = judge(module).value
    _, found = repair(Workshop(module, example(), batches(images(32)), judge), STEP)
    print(before, [(rung.rung, rung.what, rung.before, rung.after, rung.kept) for rung in found.rungs])
    assert found.first.value < before - 0.2
    assert found.last.value >= before - 0.01
    assert (found.outcome, found.mended_by) == ("mended", "float layers")
    assert "logits" in found.settings["keep_float"]
    assert np.isfinite(found.rungs[-1].seconds)
