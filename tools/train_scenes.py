"""Train a small network on made-up scenes and write its weights: ``python tools/train_scenes.py masks``.

Makes the weights that recipes/segmentation/scenes-unet.yaml (masks), recipes/depth/scenes-depth.yaml (depth),
recipes/detection/scenes-yolo.yaml (boxes), recipes/instance/scenes-yoloseg.yaml (instances),
recipes/embedding/scenes-identities.yaml (identities) or recipes/restoration/scenes-denoise.yaml (noisy) start from, in
some minutes on one core. They are those of the last epoch; the test scenes are only looked at afterwards.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from small_weights import save_small

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.kinds import DataKind
from edgecv.core.progress import PlainProgress
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.core.steps import AugmentName
from edgecv.data.readers import open_reader
from edgecv.data.tiled import as_inputs
from edgecv.models.reference_detection import yolo11_like
from edgecv.models.reference_embedding import embedding_cnn
from edgecv.models.reference_instance import yolo_seg
from edgecv.models.reference_restoration import dncnn
from edgecv.models.reference_segmentation import unet
from edgecv.optimize.batches import make_batches
from edgecv.optimize.distill import tensors_of
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import family_objective
from edgecv.optimize.objectives import Objective
from edgecv.optimize.training import TrainPlan, fit
from edgecv.vision.image import preprocess
from edgecv.vision.scenes import LABELS

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
CONTRACT = InputContract(size=(120, 160), resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SEED = 0


@dataclass(frozen=True)
class Task:
    """What is learned: the network, the family, the scenes that teach it, and how long it takes.

    ``ema`` averages the weights over the steps.
    """

    family: FamilySpec
    data: DataKind
    network: Callable[[], torch.nn.Module]
    augment: AugmentName
    file: str = "scenes-unet.safetensors"
    contract: InputContract = CONTRACT
    scenes: int = 300
    epochs: int = 20
    ema: float = 0.0
    batch: int = 12
    tests: int = 100
    lr: float = 5e-3


TASKS = {
    # In a hazy scene the distance of the ground follows from its height in the picture, so nothing is moved.
    "depth": Task(FamilySpec("depth", ("depth",), head="log"), "scenes-depth", partial(unet, num_classes=1), "none"),
    "boxes": Task(
        FamilySpec("detection", LABELS, head="yolo", score_threshold=0.01, iou_threshold=0.65, max_detections=100),
        "scenes-boxes",
        partial(yolo11_like, num_classes=len(LABELS)),
        "crop-flip",
        "scenes-yolo.safetensors",
        replace(CONTRACT, size=(160, 192)),
        scenes=700,
        epochs=40,
        ema=0.998,
    ),
    # Mask AP 0.679, AP50 0.909 on the 100 test scenes.
    "instances": Task(
        FamilySpec("instance", LABELS, head="prototypes", score_threshold=0.01, iou_threshold=0.6, max_detections=100),
        "scenes-instances",
        partial(yolo_seg, num_classes=len(LABELS)),
        "crop-flip",
        "scenes-yoloseg.safetensors",
        replace(CONTRACT, size=(128, 160)),
        scenes=500,
        epochs=24,
        ema=0.995,
    ),
    "identities": Task(
        FamilySpec("embedding", ("plaque",), options={"temperature": 0.1}),
        "scenes-identities",
        embedding_cnn,
        "crop",
        "scenes-identities.safetensors",
        replace(CONTRACT, size=(64, 64)),
        scenes=3000,
        epochs=30,
        ema=0.99,
        batch=128,
        tests=500,
    ),
    "noisy": Task(
        FamilySpec("restoration", ("picture",)),
        "scenes-noisy",
        dncnn,
        "none",
        "scenes-denoise.safetensors",
        InputContract(size=(64, 64)),
        scenes=400,
        epochs=20,
        ema=0.98,
        batch=8,
    ),
    "masks": Task(
        FamilySpec("segmentation", ("background", *LABELS), options={"dice": 0.3}),
        "scenes-masks",
        partial(unet, num_classes=1 + len(LABELS)),
        "crop-flip",
    ),
}


def train(task: Task, module: torch.nn.Module, *, objective: Objective | None = None) -> None:
    """Train ``module`` in place on the task's scenes, on one core: by the family's loss or by ``objective``."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    spec = DataSpec(kind=task.data, split="train", limit=task.scenes)
    train = as_inputs(open_reader(spec, base=RECIPES, labels=task.family.labels), task.family, task.contract)
    batches = make_batches(train, task.contract, batch_size=task.batch, shuffle_seed=SEED, augment=task.augment)
    plan = TrainPlan(task.epochs, lr=task.lr, weight_decay=1e-4, seed=SEED, devices=Devices("cpu"), ema=task.ema)
    aim = objective or family_objective(task.family)
    fit(module, train=batches, validation=None, objective=aim, plan=plan, progress=PlainProgress())


def judged(task: Task, module: torch.nn.Module) -> str:
    """The family's figures of a network on test scenes, in words."""
    family = task.family
    test = open_reader(DataSpec(kind=task.data, split="test", limit=task.tests), base=RECIPES, labels=family.labels)
    judge = families.get(family.kind)
    metric = judge.metric(family, judge.METRICS[0])
    for index in range(len(test)):
        sample = test[index]
        size = (sample.image.shape[0], sample.image.shape[1])
        # What works in tiles takes a whole picture here, where nothing is compiled for one size.
        contract = (
            task.contract if families.tiling(family, task.contract) is None else replace(task.contract, size=size)
        )
        with torch.no_grad():
            outputs = module(torch.from_numpy(preprocess(sample.image, contract)[None]))
        values = [tensor.numpy() for tensor in tensors_of(outputs)]
        metric.update(judge.decode(values, family, contract, picture=size), sample.truth)
    figures = metric.compute()
    others = {name: value for name, value in figures.extras.items() if name != figures.metric}
    extras = "".join(f", {name} {value:.4f}" for name, value in others.items())
    return f"on {len(test)} test scenes {figures.metric} {figures.value:.4f}{extras}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--out", type=Path, help="default: beside the recipe")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--scenes", type=int)
    arguments = parser.parse_args()
    task = TASKS[arguments.task]
    task = replace(task, epochs=arguments.epochs or task.epochs, scenes=arguments.scenes or task.scenes)
    torch.manual_seed(SEED)
    module = task.network()
    train(task, module)
    out = arguments.out or RECIPES / task.family.kind / task.file
    save_small(out, module)
    told = judged(task, module)
    print(f"{out.name}: {out.stat().st_size} bytes; {told}")


if __name__ == "__main__":
    main()
