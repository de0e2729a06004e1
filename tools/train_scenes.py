"""Train the small U-Net on made-up scenes and write its weights: ``python tools/train_scenes.py masks`` (or depth).

Makes the weights that recipes/segmentation/scenes-unet.yaml or recipes/depth/scenes-depth.yaml start from, in a few
minutes on one core. They are those of the last epoch; the test scenes are only looked at afterwards.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.kinds import DataKind
from edgecv.core.progress import PlainProgress
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.data.readers import open_reader
from edgecv.models.reference_segmentation import unet
from edgecv.models.weights import save_module_state
from edgecv.optimize.batches import Augment, make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import family_objective
from edgecv.optimize.training import TrainPlan, fit
from edgecv.vision.image import preprocess
from edgecv.vision.scenes import LABELS

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
CONTRACT = InputContract(size=(120, 160), resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SEED = 0


@dataclass(frozen=True)
class Task:
    """What is learned: the family, the scenes that teach it, and the planes that the network gives."""

    family: FamilySpec
    data: DataKind
    planes: int
    augment: Augment


TASKS = {
    # In a hazy scene the distance of the ground follows from its height in the picture, so nothing is moved.
    "depth": Task(FamilySpec("depth", ("depth",), head="log"), "scenes-depth", 1, "none"),
    "masks": Task(
        FamilySpec("segmentation", ("background", *LABELS), options={"dice": 0.3}),
        "scenes-masks",
        1 + len(LABELS),
        "crop-flip",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--out", type=Path, help="default: beside the recipe")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--scenes", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    task, progress = TASKS[arguments.task], PlainProgress()
    family, module = task.family, unet(num_classes=task.planes)
    spec = DataSpec(kind=task.data, split="train", limit=arguments.scenes)
    train = open_reader(spec, base=RECIPES, labels=family.labels)
    batches = make_batches(train, CONTRACT, batch_size=12, shuffle_seed=SEED, augment=task.augment)
    plan = TrainPlan(epochs=arguments.epochs, lr=5e-3, weight_decay=1e-4, seed=SEED, devices=Devices("cpu"))
    fit(module, train=batches, validation=None, objective=family_objective(family), plan=plan, progress=progress)
    out = arguments.out or RECIPES / family.kind / "scenes-unet.safetensors"
    save_module_state(out, module)

    test = open_reader(DataSpec(kind=task.data, split="test", limit=100), base=RECIPES, labels=family.labels)
    judge = families.get(family.kind)
    metric = judge.metric(family, judge.METRICS[0])
    for index in range(len(test)):
        sample = test[index]
        with torch.no_grad():
            values = module(torch.from_numpy(preprocess(sample.image, CONTRACT)[None])).numpy()
        size = (sample.image.shape[0], sample.image.shape[1])
        metric.update(judge.decode([values], family, CONTRACT, picture=size), sample.truth)
    figures = metric.compute()
    extras = "".join(f", {name} {value:.4f}" for name, value in figures.extras.items())
    told = f"on {len(test)} test scenes {figures.metric} {figures.value:.4f}{extras}"
    progress.line(f"{out.name}: {out.stat().st_size} bytes; {told}")


if __name__ == "__main__":
    main()
