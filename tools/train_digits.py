"""Train the digits network and write its weights: ``python tools/train_digits.py``.

Makes recipes/classification/digits.safetensors from scikit-learn's digits, in a minute on one core. The weights
are those of the last epoch; the test split is only looked at afterwards.
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
from edgecv.models.reference import digits_cnn
from edgecv.optimize.batches import make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import class_score, family_objective
from edgecv.optimize.training import TrainPlan, fit

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CONTRACT = InputContract(size=(32, 32), color="gray", mean=(0.0,), std=(1.0,), resize="stretch")
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "recipes" / "classification" / "digits.safetensors")
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    family = FamilySpec(kind="classification", labels=LABELS)
    module = digits_cnn()
    train = open_reader(DataSpec(kind="sklearn-digits", split="train"), base=ROOT, labels=LABELS)
    batches = make_batches(train, CONTRACT, batch_size=64, shuffle_seed=SEED, augment="crop")
    plan = TrainPlan(epochs=arguments.epochs, lr=3e-3, weight_decay=1e-3, seed=SEED, devices=Devices("cpu"))
    objective = family_objective(family, label_smoothing=0.05)
    progress = PlainProgress()
    fit(module, train=batches, validation=None, objective=objective, plan=plan, progress=progress)
    save_small(arguments.out, module)

    test = open_reader(DataSpec(kind="sklearn-digits", split="test"), base=ROOT, labels=LABELS)
    inputs, truths = next(make_batches(test, CONTRACT, batch_size=len(test))(0))
    with torch.no_grad():
        top1 = class_score(family)(module(torch.from_numpy(inputs)), torch.from_numpy(truths))
    size = arguments.out.stat().st_size
    progress.line(f"{arguments.out.name}: {size} bytes, top-1 {top1:.4f} on {len(test)} test pictures")


if __name__ == "__main__":
    main()
