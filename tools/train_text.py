"""Train the reader and the finder of text on made-up print: ``python tools/train_text.py words`` (or pages).

Makes the weights that recipes/text/scenes-words.yaml and recipes/text/scenes-textdet.yaml start from, in float16, on
one core. They are those of the last epoch; the test samples are only looked at afterwards. They depend on
OpenCV's fonts, which are others in OpenCV 5 (used here) than before. On 300 test samples: words 0.963 exact, pages
hmean 0.905 (precision 0.891, recall 0.920).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
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
from edgecv.models.reference_text import ctc_cnn
from edgecv.models.reference_textdet import text_finder
from edgecv.optimize.batches import make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.objectives import family_objective
from edgecv.optimize.training import TrainPlan, fit
from edgecv.vision.image import preprocess
from edgecv.vision.printed import LETTERS

FOLDER = Path(__file__).resolve().parent.parent / "recipes" / "text"
SEED = 0


@dataclass(frozen=True)
class Task:
    """What is learned, from how many samples of which data, how often."""

    family: FamilySpec
    data: DataKind
    contract: InputContract
    network: Callable[[], torch.nn.Module]
    out: str
    samples: int
    epochs: int
    batch_size: int
    lr: float
    augment: AugmentName


TASKS = {
    "words": Task(
        FamilySpec("text", tuple(LETTERS), head="ctc"),
        "scenes-words",
        InputContract(size=(32, 128), color="gray", mean=(0.5,), std=(0.25,), resize="letterbox"),
        lambda: ctc_cnn(num_classes=1 + len(LETTERS), width=12),
        "scenes-words.safetensors",
        5000,
        16,
        32,
        4e-3,
        "none",
    ),
    "pages": Task(
        FamilySpec("text-detection", ("text",), head="db", options={"shrink": 0.6}),
        "scenes-text",
        InputContract(size=(192, 256), mean=(0.5,) * 3, std=(0.25,) * 3, resize="stretch"),
        text_finder,
        "scenes-textdet.safetensors",
        400,
        9,
        8,
        4e-3,
        "crop",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--out", type=Path, help="default: beside the recipe")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--samples", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    task, progress = TASKS[arguments.task], PlainProgress()
    module = task.network()
    spec = DataSpec(kind=task.data, split="train", limit=arguments.samples or task.samples)
    train = open_reader(spec, base=FOLDER, labels=task.family.labels)
    batches = make_batches(
        train, task.contract, batch_size=task.batch_size, shuffle_seed=SEED, augment=task.augment, cache_mb=1000.0
    )
    epochs = arguments.epochs or task.epochs
    plan = TrainPlan(epochs=epochs, lr=task.lr, weight_decay=1e-4, seed=SEED, devices=Devices("cpu"))
    objective = family_objective(task.family)
    fit(module, train=batches, validation=None, objective=objective, plan=plan, progress=progress)
    out = arguments.out or FOLDER / task.out
    save_small(out, module)
    progress.line(judged(task, module))
    progress.line(f"{out.name}: {out.stat().st_size} bytes")


def judged(task: Task, module: torch.nn.Module) -> str:
    """The network's figures on 300 test samples, in words."""
    test = open_reader(DataSpec(kind=task.data, split="test", limit=300), base=FOLDER, labels=task.family.labels)
    judge = families.get(task.family.kind)
    metric = judge.metric(task.family, judge.METRICS[0])
    module.eval()
    for sample in (test[index] for index in range(len(test))):
        with torch.no_grad():
            values = module(torch.from_numpy(preprocess(sample.image, task.contract)[None])).numpy()
        size = (sample.image.shape[0], sample.image.shape[1])
        metric.update(judge.decode([values], task.family, task.contract, picture=size), sample.truth)
    figures = metric.compute()
    extras = "".join(f", {name} {value:.4f}" for name, value in figures.extras.items())
    return f"on {figures.samples} test samples {figures.metric} {figures.value:.4f}{extras}"


if __name__ == "__main__":
    main()
