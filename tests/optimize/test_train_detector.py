"""Detectors from ONNX files learn from their float self: no labels, fine-tuning and QAT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec, FamilySpec, Finetune, ModelSpec, Quantize
from edgecv.data.scenes import open_scenes
from edgecv.models.load import build_model
from edgecv.models.transformer_detectors import detector_graph
from edgecv.optimize.batches import make_batches
from edgecv.optimize.finetune import TrainSet, finetune
from edgecv.optimize.objectives import train_objective
from edgecv.optimize.qat import quantize_qat
from edgecv.optimize.training import FitResult, Hooks, TrainPlan, fit
from tests.models.transformer_nets import tiny

pytestmark = pytest.mark.build

LABELS = tuple(str(index) for index in range(80))


@dataclass
class Pictures:
    """The first pictures of a folder, without labels."""

    paths: Sequence[Path]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> Sequence[str]:
        return [path.name for path in self.paths]

    @property
    def truths(self) -> Sequence[Any]:
        return [None] * len(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(id=self.paths[index].name, image=cv2.imread(str(self.paths[index])), truth=None)

    def sha256(self, index: int) -> str:
        return self.paths[index].name

    def fingerprint(self) -> str:
        return str(len(self.paths))


@dataclass(frozen=True)
class Detector:
    """A network from a file with what training needs."""

    module: nn.Module
    data: TrainSet

    @property
    def example(self) -> torch.Tensor:
        return torch.zeros(1, 3, *self.data.contract.size)


def detector(shared_data: Path, name: str, *, count: int) -> Detector:
    paths = sorted((shared_data / "imagenet-samples").glob("*.JPEG"))[:count]
    files = {
        "fastestdet": ("fastestdet/FastestDet.onnx", 352, (0.0, 1.0)),
        "yolox": ("yolox_nano/yolox_nano.onnx", 416, (0.0, 255.0)),
    }
    file, side, limits = files[name]
    contract = InputContract(size=(side, side), color="bgr", range=limits)
    family = FamilySpec("detection", LABELS, head=name, score_threshold=0.05)
    spec = ModelSpec(f"onnx:{shared_data / 'models' / file}", contract)
    module = build_model(spec, family=family, base=shared_data, seed=0)
    return Detector(module.eval(), TrainSet(Pictures(paths), contract, family))


def test_a_damaged_detector_finds_back_to_its_outputs(shared_data: Path) -> None:
    whole = detector(shared_data, "fastestdet", count=10)
    student = detector(shared_data, "fastestdet", count=0).module
    torch.manual_seed(0)
    with torch.no_grad():
        for value in student.parameters():
            if value.ndim > 1:
                value.add_(0.1 * value.std() * torch.randn_like(value))
    step = Finetune(epochs=4, lr=1e-3, batch_size=2, distill=1.0, validation=0.2)
    result = finetune(student, step=step, data=whole.data, teacher=whole.module)
    assert result.score_name == "minus_distance"
    assert result.losses[-1] < 0.7 * result.losses[0]


@pytest.mark.parametrize("name", ["fastestdet", "yolox"])
def test_a_detector_trains_quantised_without_labels(shared_data: Path, name: str) -> None:
    made = detector(shared_data, name, count=4)
    kept = ("Conv_41", "Conv_44", "Conv_47", "Conv_70") if name == "yolox" else ()  # too wide for a scale per tensor
    step = Quantize(
        "qat", scheme="affine", epochs=1, lr=1e-5, batch_size=2, distill=1.0, step_sizes="learned", keep_float=kept
    )
    teacher = detector(shared_data, name, count=0).module
    objective = train_objective(
        made.data.family, made.data.contract, made.data.reader.truths, teacher=teacher, distill=step.distill
    )

    def train(module: nn.Module, hooks: Hooks) -> FitResult:
        batches = make_batches(made.data.reader, made.data.contract, batch_size=2, shuffle_seed=0)
        plan = TrainPlan(epochs=1, lr=step.lr)
        return fit(module, train=batches, validation=batches.fixed(), objective=objective, plan=plan, hooks=hooks)

    calibration = make_batches(made.data.reader, made.data.contract, batch_size=1).fixed()
    quantised, result = quantize_qat(made.module, made.example, step=step, calibration=calibration, fit=train)
    assert result.score_name == "minus_distance"
    inputs = torch.from_numpy(next(iter(calibration()))[0])
    with torch.no_grad():
        expected, found = made.module(inputs).numpy(), quantised.program.module()(inputs).numpy()
    assert sum(record.kind == "weight" for record in quantised.plan) > 50
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_choice_of_queries_and_every_layer_learn(share: float) -> None:
    """The answer alone would leave RT-DETR's scores of queries, and the classes of its first layer, as they are."""
    size, labels = (64, 96), ("disc", "box", "triangle")
    family = FamilySpec("detection", labels, head="detr", score_threshold=0.05)
    reader = open_scenes(DataSpec("scenes-boxes", split="train", limit=8), labels=labels)
    student, teacher = (detector_graph(tiny("RTDetrForObjectDetection"), size) for _ in range(2))
    before = {name: value.clone() for name, value in student.named_parameters()}
    step = Finetune(epochs=1, lr=1e-3, batch_size=3, distill=share, validation=0.25)
    data = TrainSet(reader, InputContract(size=size), family)
    finetune(student, step=step, data=data, teacher=teacher if share else None)
    kept = {name for name, value in student.named_parameters() if torch.equal(value, before[name])}
    assert kept == {"model.denoising_class_embed.weight"}
    assert not isinstance(student(torch.zeros(1, 3, *size))[0], tuple), "it answers as ever"
