"""Real pictures for recipes of made-up scenes: tiles of a few, from which their small networks learn first.

Streets: five of CamVid's pictures teach a U-Net eleven classes, the last of each film judge it. A room: two frames of
Redwood's teach a U-Net distances; the third, from nearly the same place, judges it. So few make no good network (mIoU
0.32; the room is known by heart), but what int8 costs it is that of real textures and real borders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

STREETS_JUDGED = ("0001TP_010230", "Seq05VD_f03180", "Seq05VD_f04020")
STREETS_SIZE = (176, 240)
"""Of a tile, in pixels: a quarter of a picture."""
UNLABELLED = 11
ROOM_JUDGED = ("00002",)
ROOM_SIZE = (240, 320)
"""Of a tile, in pixels: a quarter of a picture, too."""
TAUGHT, JUDGING = 4, 2
"""Places of tiles along a side of a picture that teaches (they overlap), and of one that judges."""
CALIBRATED = 32
"""Of the tiles that teach."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of ``size`` with truths in ``out``/train and ``out``/test, and a network that learns from them.

    ``data`` says how they are read, but for the places.
    """

    out: Path
    data: DataSpec
    size: tuple[int, int]
    family: FamilySpec

    def cut(self, picture: Path, truth: Path, *, judges: bool) -> None:
        """Cut a picture and its truth at even places."""
        folder, places = self.out / ("test" if judges else "train"), JUDGING if judges else TAUGHT
        for source, kind in ((picture, "pictures"), (truth, "truths")):
            image = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
            if image is None:
                raise SystemExit(f"{source} cannot be read")
            (folder / kind).mkdir(parents=True, exist_ok=True)
            tops = np.linspace(0, image.shape[0] - self.size[0], places).astype(int)
            lefts = np.linspace(0, image.shape[1] - self.size[1], places).astype(int)
            for row, top in enumerate(tops):
                for column, left in enumerate(lefts):
                    tile = image[top : top + self.size[0], left : left + self.size[1]]
                    cv2.imwrite(str(folder / kind / f"{picture.stem}_{row}{column}.png"), tile)

    def spec(self, split: str) -> DataSpec:
        """How the tiles of ``split`` are read."""
        folder = self.out / split
        return replace(self.data, path=str(folder / "pictures"), truth=str(folder / "truths"))

    def settings(self, name: str) -> list[str]:
        """``--set`` values for a recipe with these tiles and a U-Net that has learned from them."""
        taught, judging = self._words("train"), self._words("test")
        return [
            f"name={name}",
            f"model.weights={self._learn()}",
            f"model.options={{num_classes: {len(self.family.labels)}}}",
            f"model.input.size=[{self.size[0]}, {self.size[1]}]",
            f"family.labels=[{', '.join(self.family.labels)}]",
            f"data.train={taught}",
            f"data.eval={judging}",
            f"data.calibration={{source: {taught}, samples: {CALIBRATED}, select: random}}",
        ]

    def _words(self, split: str) -> str:
        plain = DataSpec(self.data.kind)
        given = {key: value for key, value in vars(self.spec(split)).items() if value != getattr(plain, key)}
        return f"{{kind: {self.data.kind}, " + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}"

    def _learn(self) -> Path:
        torch.manual_seed(0)
        labels = self.family.labels
        contract = InputContract(self.size, mean=(0.5,) * 3, std=(0.25,) * 3, resize="stretch")
        tiles = TrainSet(open_reader(self.spec("train"), base=self.out, labels=labels), contract, self.family)
        step = Finetune(epochs=40, lr=5e-3, batch_size=8, augment="crop-flip")
        tuned = finetune(unet(num_classes=len(labels)), step=step, data=tiles, devices=Devices("cpu", 1, 1, "auto"))
        save_module_state(self.out / "learned.safetensors", tuned.module)
        return self.out / "learned.safetensors"


def streets_settings(data: Path, out: Path) -> list[str]:
    """``--set`` values that let the recipe scenes-unet run on streets in ``out``."""
    source = data / "camvid-mini"
    names = [line.split()[1].lower() for line in (source / "classes.txt").read_text(encoding="utf-8").splitlines()]
    family = FamilySpec("segmentation", tuple(names[:UNLABELLED]), options={"dice": 0.3})
    tiles = Tiles(out, DataSpec("masks", ignore_index=UNLABELLED), STREETS_SIZE, family)
    for path in sorted((source / "images").iterdir()):
        tiles.cut(path, source / "masks" / path.name, judges=path.stem in STREETS_JUDGED)
    return tiles.settings("camvid-streets")


def room_settings(data: Path, out: Path) -> list[str]:
    """``--set`` values that let the recipe scenes-depth run on a room in ``out``."""
    source = data / "depth-mini/redwood"
    family = FamilySpec("depth", ("depth",), head="log", options={"min_m": 0.5, "max_m": 20.0})
    tiles = Tiles(out, DataSpec("depth", depth_unit="mm"), ROOM_SIZE, family)
    for path in sorted((source / "color").iterdir()):
        tiles.cut(path, source / "depth" / f"{path.stem}.png", judges=path.stem in ROOM_JUDGED)
    return tiles.settings("redwood-room")
