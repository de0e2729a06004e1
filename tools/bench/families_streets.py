"""Real streets for the segmentation recipe: tiles of CamVid's pictures, from which a small U-Net learns eleven classes.

The first five pictures teach it, the last of each film judge it: eight pictures make no good network (mIoU 0.32), but
what int8 costs it is that of real textures and real borders.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec, Finetune
from edgecv.data.readers import open_reader
from edgecv.models.reference_segmentation import unet
from edgecv.models.weights import save_module_state
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import TrainSet, finetune

JUDGED = ("0001TP_010230", "Seq05VD_f03180", "Seq05VD_f04020")
SIZE = (176, 240)
"""Of a tile, in pixels: a quarter of a picture."""
TAUGHT, STEPS = 4, 2
"""Places of tiles along a side of a picture that teaches (they overlap), and of one that judges."""
UNLABELLED = 11
CONTRACT = InputContract(SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, resize="stretch")


def streets_settings(data: Path, out: Path) -> list[str]:
    """``--set`` values that let the recipe scenes-unet run on tiles in ``out``, with weights that are trained first."""
    source = data / "camvid-mini"
    names = [line.split()[1].lower() for line in (source / "classes.txt").read_text(encoding="utf-8").splitlines()]
    labels = tuple(names[:UNLABELLED])
    for path in sorted((source / "images").iterdir()):
        split, places = ("test", STEPS) if path.stem in JUDGED else ("train", TAUGHT)
        for kind in ("images", "masks"):
            _cut(source / kind / path.name, out / split / kind, places)
    weights = out / "streets.safetensors"
    _train(weights, out / "train", labels)
    train = _masks(out / "train")
    return [
        "name=camvid-streets",
        f"model.weights={weights}",
        f"model.options={{num_classes: {len(labels)}}}",
        f"model.input.size=[{SIZE[0]}, {SIZE[1]}]",
        f"family.labels=[{', '.join(labels)}]",
        f"data.train={train}",
        f"data.eval={_masks(out / 'test')}",
        f"data.calibration={{source: {train}, samples: 40, select: random}}",
    ]


def _masks(folder: Path) -> str:
    return f"{{kind: masks, path: {folder / 'images'}, truth: {folder / 'masks'}, ignore_index: {UNLABELLED}}}"


def _cut(path: Path, folder: Path, places: int) -> None:
    """Tiles of a picture or mask at ``places`` x ``places`` even places, as files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SystemExit(f"{path} cannot be read")
    tops = np.linspace(0, image.shape[0] - SIZE[0], places).astype(int)
    lefts = np.linspace(0, image.shape[1] - SIZE[1], places).astype(int)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            tile = image[top : top + SIZE[0], left : left + SIZE[1]]
            cv2.imwrite(str(folder / f"{path.stem}_{row}{column}.png"), tile)


def _train(path: Path, folder: Path, labels: tuple[str, ...]) -> None:
    """Train the network on the tiles in ``folder`` and keep its weights."""
    torch.manual_seed(0)
    spec = DataSpec(kind="masks", path=str(folder / "images"), truth=str(folder / "masks"), ignore_index=UNLABELLED)
    family = FamilySpec("segmentation", labels, options={"dice": 0.3})
    tiles = TrainSet(open_reader(spec, base=folder, labels=labels), CONTRACT, family)
    step = Finetune(epochs=40, lr=5e-3, batch_size=8, augment="crop-flip")
    tuned = finetune(unet(num_classes=len(labels)), step=step, data=tiles, devices=Devices("cpu", 1, 1, "auto"))
    save_module_state(path, tuned.module)
