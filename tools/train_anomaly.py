"""Train the small networks of recipes/anomaly: ``python tools/train_anomaly.py encoder`` (student, autoencoder).

``encoder`` teaches the small U-Net where pieces of other pictures were pasted into made-up surfaces (after Li et al.,
CutPaste, arXiv:2104.04015; here pixel by pixel) and keeps its way down, which is then a feature extractor that knows
surfaces; it never sees a defect of `edgecv.vision.textures`. ``student``, after it, teaches a second one to give the
same features on good woven surfaces, ``autoencoder`` a network to repeat good wooden ones (``--epochs 16 --pictures
200``). A few minutes each on one core; weights are those of the last epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from small_weights import save_small
from torch import nn

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.progress import PlainProgress
from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec, FamilySpec, Fit
from edgecv.data.readers import open_reader
from edgecv.families.segmentation_map import MaskTruth
from edgecv.models.reference_anomaly import autoencoder, encoder, student_teacher
from edgecv.models.reference_segmentation import unet
from edgecv.optimize.batches import make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import TrainSet, family_objective
from edgecv.optimize.fit_normal import fit_normal
from edgecv.optimize.training import TrainPlan, fit
from edgecv.vision.image import Image, preprocess
from edgecv.vision.textures import TEXTURES, draw_texture

FOLDER = Path(__file__).resolve().parent.parent / "recipes/anomaly"
CONTRACT = InputContract(size=(128, 128), resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
FAMILY = FamilySpec("anomaly", ("defect",), score_threshold=0.5)
WIDTH, LEVELS = 16, 2
SURFACE = "woven"
REPEATED = "wood"
SEED = 0


class Pasted:
    """Surfaces with pieces of others pasted in; the truth is a mask of two classes. Sample i follows from i alone."""

    skipped: dict[str, str] = {}

    def __init__(self, count: int) -> None:
        self.ids: Sequence[str] = tuple(f"pasted-{number:05d}" for number in range(count))
        self.truths: Sequence[Any] = ("mask",) * count

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng([77, index])
        image = _toned(draw_texture(TEXTURES[index % len(TEXTURES)], random), random, 0.15)
        mask = np.zeros(image.shape[:2], np.uint8)
        for _ in range(int(random.integers(1, 4))):
            piece, where = _piece(image, random), _shape(mask.shape, random)
            share = float(random.uniform(0.35, 1.0)) * cv2.GaussianBlur(where.astype(np.float32), (0, 0), 0.6)
            image = (image + share[..., None] * (piece.astype(np.float32) - image)).astype(np.uint8)
            mask |= where
        return Sample(self.ids[index], image, MaskTruth(mask))

    def sha256(self, index: int) -> str:
        return self.ids[index]

    def fingerprint(self) -> str:
        return str(len(self))


def _toned(image: Image, random: np.random.Generator, spread: float) -> Image:
    return np.clip(image * random.uniform(1 - spread, 1 + spread, 3), 0, 255).astype(np.uint8)


def _piece(image: Image, random: np.random.Generator) -> Image:
    """What is pasted: another surface, the same turned and in another tone, or one colour."""
    kind = random.random()
    if kind < 0.3:
        return _toned(draw_texture(TEXTURES[int(random.integers(len(TEXTURES)))], random), random, 0.3)
    if kind < 0.7:
        turned = np.rot90(image, int(random.integers(1, 4)))
        return _toned(np.ascontiguousarray(turned), random, 0.4)
    return np.full_like(image, random.integers(0, 256, 3, dtype=np.uint8))


def _shape(size: tuple[int, ...], random: np.random.Generator) -> Any:
    """Where it is pasted: a thin stripe or a few rounded patches, uint8 `(H, W)`."""
    mask = np.zeros(size[:2], np.uint8)
    if random.random() < 0.4:
        start, end = (tuple(int(value) for value in random.integers(0, size[0], 2)) for _ in range(2))
        middle = tuple((a + b) // 2 for a, b in zip(start, end, strict=True))
        cv2.line(mask, start, middle, 1, int(random.integers(1, 4)))
        return mask
    centre = tuple(int(value) for value in random.integers(8, size[0] - 8, 2))
    axes = tuple(int(value) for value in random.integers(3, 16, 2))
    cv2.ellipse(mask, centre, axes, float(random.uniform(0, 180)), 0, 360, 1, -1)
    return mask


def train_encoder(out: Path, epochs: int, pictures: int) -> None:
    """Write the encoder's weights as float16."""
    module = unet(num_classes=2, width=WIDTH, levels=LEVELS)
    family = FamilySpec("segmentation", ("good", "pasted"), options={"dice": 0.5})
    batches = make_batches(Pasted(pictures), CONTRACT, batch_size=16, shuffle_seed=SEED, augment="crop-flip")
    _fit(module, batches, family, epochs, lr=5e-3)
    inner = encoder(width=WIDTH, levels=LEVELS)
    state = module.state_dict()
    inner.load_state_dict({name: state[name] for name in inner.state_dict()})
    save_small(out, inner)


def train_student(out: Path, epochs: int, pictures: int, teacher: Path) -> None:
    """Write the weights of both, with the map's scale, as float16."""
    from safetensors.torch import load_file

    module = student_teacher(width=WIDTH, levels=LEVELS)
    module.get_submodule("teacher").load_state_dict({name: value.float() for name, value in load_file(teacher).items()})
    reader = open_reader(DataSpec("textures", split="train", only=SURFACE, limit=pictures), base=FOLDER, labels=())
    batches = make_batches(reader, CONTRACT, batch_size=16, shuffle_seed=SEED, augment="none")
    _fit(module, batches, FAMILY, epochs, lr=5e-3)
    fit_normal(module.eval(), step=Fit(), data=TrainSet(reader, CONTRACT, FAMILY), seed=SEED)
    save_small(out, module)


def train_autoencoder(out: Path, epochs: int, pictures: int) -> None:
    """Write its weights, with the map's scale, as float16."""
    module = autoencoder(width=8, levels=3)
    reader = open_reader(DataSpec("textures", split="train", only=REPEATED, limit=pictures), base=FOLDER, labels=())
    batches = make_batches(reader, CONTRACT, batch_size=16, shuffle_seed=SEED, augment="none")
    _fit(module, batches, FAMILY, epochs, lr=5e-3)
    fit_normal(module.eval(), step=Fit(), data=TrainSet(reader, CONTRACT, FAMILY), seed=SEED)
    save_small(out, module)


def _fit(module: nn.Module, batches: Any, family: FamilySpec, epochs: int, *, lr: float) -> None:
    plan = TrainPlan(epochs=epochs, lr=lr, weight_decay=1e-4, seed=SEED, devices=Devices("cpu"))
    objective = family_objective(family)
    fit(module, train=batches, validation=None, objective=objective, plan=plan, progress=PlainProgress())


def judge(module: nn.Module, only: str | None) -> str:
    """The metric on test surfaces, in words."""
    test = open_reader(DataSpec("textures", split="test", only=only, limit=200), base=FOLDER, labels=())
    judged = families.get("anomaly")
    metric = judged.metric(FAMILY, "auroc")
    for index in range(len(test)):
        sample = test[index]
        with torch.no_grad():
            values = module.eval()(torch.from_numpy(preprocess(sample.image, CONTRACT)[None])).numpy()
        metric.update(judged.decode([values], FAMILY, CONTRACT, picture=sample.image.shape[:2]), sample.truth)
    figures = metric.compute()
    extras = "".join(f", {name} {value:.4f}" for name, value in figures.extras.items())
    return f"{only}: {figures.metric} {figures.value:.4f}{extras}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("encoder", "student", "autoencoder"))
    parser.add_argument("--out", type=Path, help="default: beside the recipes")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    FOLDER.mkdir(exist_ok=True)
    if arguments.task == "encoder":
        out = arguments.out or FOLDER / "surfaces-encoder.safetensors"
        train_encoder(out, arguments.epochs, arguments.pictures)
    elif arguments.task == "autoencoder":
        out = arguments.out or FOLDER / "wood-autoencoder.safetensors"
        train_autoencoder(out, arguments.epochs, arguments.pictures)
    else:
        out = arguments.out or FOLDER / "woven-student.safetensors"
        train_student(out, arguments.epochs, arguments.pictures, FOLDER / "surfaces-encoder.safetensors")
    PlainProgress().line(f"{out.name}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
