"""Train a small network on made-up movements and write its weights: ``python tools/train_motions.py [--network NAME]``.

Makes the weights that recipes/video/scenes-motions.yaml starts from, and with ``--network stream`` and ``--network
tsm`` those of scenes-stream.yaml and scenes-tsm.yaml, in some minutes on one core. They are those of the last epoch,
stored as float16; the test clips are only looked at afterwards.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from small_weights import save_small
from torch import nn

from edgecv import families
from edgecv.core.contract import Clip, InputContract
from edgecv.core.progress import PlainProgress
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.data.readers import open_reader
from edgecv.models.reference_streaming import tsm, x3d_stream
from edgecv.models.reference_video import r2plus1d
from edgecv.optimize.batches import make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import family_objective
from edgecv.optimize.training import TrainPlan, fit
from edgecv.vision.image import preprocess
from edgecv.vision.motions import MOVEMENTS

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
CLIP, STREAM = Clip(frames=8, fps=8.0), Clip(frames=12, fps=8.0, stream=True)
CONTRACT = InputContract(size=(48, 64), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), clip=CLIP)
FAMILY = FamilySpec("video", MOVEMENTS)
SEED = 0


def build_tsm(frames: int, classes: int) -> nn.Module:
    """The network of scenes-tsm.yaml, which says how small its backbone is."""
    recipe = yaml.safe_load((RECIPES / "video" / "scenes-tsm.yaml").read_text(encoding="utf-8"))
    return tsm(frames=frames, num_classes=classes, **recipe["model"]["options"])


NETWORKS: dict[str, tuple[Clip, Callable[[int, int], nn.Module]]] = {
    "motions": (CLIP, lambda frames, classes: r2plus1d(frames=frames, height=CONTRACT.size[0], num_classes=classes)),
    "stream": (STREAM, lambda frames, classes: x3d_stream(frames=frames, num_classes=classes)),
    "tsm": (STREAM, build_tsm),
}
"""The clips of each network, and what builds it for so many frames and classes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=list(NETWORKS), default="motions")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--clips", type=int, default=1400)
    arguments = parser.parse_args()
    clip, build = NETWORKS[arguments.network]
    out = arguments.out or RECIPES / "video" / f"scenes-{arguments.network}.safetensors"
    contract, progress = replace(CONTRACT, clip=clip), PlainProgress()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    module = build(clip.frames, len(MOVEMENTS))
    spec = DataSpec(kind="scenes-motions", split="train", limit=arguments.clips)
    train = open_reader(spec, base=RECIPES, labels=FAMILY.labels, clip=clip)
    batches = make_batches(train, contract, batch_size=32, shuffle_seed=SEED, augment="crop", cache_mb=600)
    plan = TrainPlan(epochs=arguments.epochs, lr=6e-3, weight_decay=1e-3, seed=SEED, devices=Devices("cpu"))
    fit(module, train=batches, validation=None, objective=family_objective(FAMILY), plan=plan, progress=progress)
    save_small(out, module)
    module.eval()

    spec = DataSpec(kind="scenes-motions", split="test", limit=450)
    test, judge = open_reader(spec, base=RECIPES, labels=FAMILY.labels, clip=clip), families.get("video")
    metric = judge.metric(FAMILY, "top1")
    for index in range(len(test)):
        sample = test[index]
        with torch.no_grad():
            scores = module(torch.from_numpy(preprocess(sample.image, contract)[None])).numpy()
        metric.update(judge.decode([scores], FAMILY, contract), sample.truth)
    figures = metric.compute()
    extras = "".join(f", {name} {value:.4f}" for name, value in figures.extras.items())
    size = out.stat().st_size
    progress.line(f"{out.name}: {size} bytes; on {len(test)} test clips top1 {figures.value:.4f}{extras}")


if __name__ == "__main__":
    main()
