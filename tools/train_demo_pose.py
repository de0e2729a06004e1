"""Train the small pose network on made-up persons and write its weights: ``python tools/train_demo_pose.py``.

Makes recipes/pose/scenes-pose.safetensors (fp16), in under four minutes of one core. The weights are those of the last
epoch; the test scenes are only looked at afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from small_weights import save_small

from edgecv.core.contract import InputContract
from edgecv.core.progress import PlainProgress
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.data.readers import open_reader
from edgecv.families import pose
from edgecv.models.reference_pose import simple_pose
from edgecv.optimize.batches import make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import family_objective
from edgecv.optimize.training import TrainPlan, fit
from edgecv.vision.image import preprocess

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = InputContract(size=(128, 96), resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
FAMILY = FamilySpec(kind="pose", labels=("person",), head="heatmap", options={"refine": "taylor", "sigma": 1.5})
ASPECT = 0.75
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "recipes" / "pose" / "scenes-pose.safetensors")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--scenes", type=int, default=1500)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    module = simple_pose()
    spec = DataSpec(kind="scenes-keypoints", split="train", limit=arguments.scenes, crop=ASPECT)
    train = open_reader(spec, base=ROOT, labels=FAMILY.labels)
    batches = make_batches(train, CONTRACT, batch_size=16, shuffle_seed=SEED, augment="crop-flip")
    plan = TrainPlan(epochs=arguments.epochs, lr=4e-3, weight_decay=1e-4, seed=SEED, devices=Devices(arguments.device))
    progress = PlainProgress()
    fit(module, train=batches, validation=None, objective=family_objective(FAMILY), plan=plan, progress=progress)
    save_small(arguments.out, module)

    test = open_reader(
        DataSpec(kind="scenes-keypoints", split="test", limit=200, crop=ASPECT), base=ROOT, labels=FAMILY.labels
    )
    metric = pose.metric(FAMILY, "oks_ap")
    for index in range(len(test)):
        sample = test[index]
        with torch.no_grad():
            maps = module(torch.from_numpy(preprocess(sample.image, CONTRACT)[None])).numpy()
        size = (sample.image.shape[0], sample.image.shape[1])
        metric.update(pose.decode([maps], FAMILY, CONTRACT, picture=size), sample.truth)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in metric.compute().extras.items())
    progress.line(f"{arguments.out.name}: {arguments.out.stat().st_size} bytes; on {len(test)} test persons {shown}")


if __name__ == "__main__":
    main()
