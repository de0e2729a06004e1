"""Train the small U-Net on made-up scenes and write its weights: ``python tools/train_scenes_unet.py``.

Makes recipes/segmentation/scenes-unet.safetensors, in a few minutes on one core. The weights are those of the last
epoch; the test scenes are only looked at afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from edgecv.core.contract import InputContract
from edgecv.core.progress import PlainProgress
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.data.readers import open_reader
from edgecv.families import segmentation
from edgecv.models.reference_segmentation import unet
from edgecv.models.weights import save_module_state
from edgecv.optimize.batches import make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import family_objective
from edgecv.optimize.training import TrainPlan, fit
from edgecv.vision.image import preprocess

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("background", "disc", "box", "triangle", "person")
CONTRACT = InputContract(size=(120, 160), resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "recipes" / "segmentation" / "scenes-unet.safetensors")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--scenes", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    family = FamilySpec(kind="segmentation", labels=LABELS, options={"dice": 0.3})
    module = unet(num_classes=len(LABELS))
    train = open_reader(DataSpec(kind="scenes-masks", split="train", limit=arguments.scenes), base=ROOT, labels=LABELS)
    batches = make_batches(train, CONTRACT, batch_size=12, shuffle_seed=SEED, augment="crop-flip")
    plan = TrainPlan(epochs=arguments.epochs, lr=5e-3, weight_decay=1e-4, seed=SEED, devices=Devices("cpu"))
    progress = PlainProgress()
    fit(module, train=batches, validation=None, objective=family_objective(family), plan=plan, progress=progress)
    save_module_state(arguments.out, module)

    test = open_reader(DataSpec(kind="scenes-masks", split="test", limit=100), base=ROOT, labels=LABELS)
    metric = segmentation.metric(family, "miou")
    for index in range(len(test)):
        sample = test[index]
        with torch.no_grad():
            scores = module(torch.from_numpy(preprocess(sample.image, CONTRACT)[None])).numpy()
        size = (sample.image.shape[0], sample.image.shape[1])
        metric.update(segmentation.decode([scores], family, CONTRACT, picture=size), sample.truth)
    figures = metric.compute()
    shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.extras.items())
    progress.line(f"{arguments.out.name}: {arguments.out.stat().st_size} bytes; on {len(test)} test scenes {shown}")


if __name__ == "__main__":
    main()
