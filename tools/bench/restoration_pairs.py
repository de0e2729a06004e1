"""Small and large pictures to learn super-resolution from, cut from photographs and made as Set5's pairs were made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import PIL.Image

SIDE = 128
"""Pixels of the small pictures; the large ones have twice as many."""
JUDGED_OF = 8
"""One pair in so many is not trained on."""
TRAINED = 240


def middles(paths: Sequence[Path], folder: Path, side: int) -> list[Path]:
    """The middles of the pictures that are large enough, as files in ``folder``."""
    folder.mkdir(parents=True)
    for number, path in enumerate(paths):
        image = cv2.imread(str(path))
        if image is None:
            raise SystemExit(f"{path} cannot be read")
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        if min(top, left) >= 0:
            cv2.imwrite(str(folder / f"{number:04}.png"), image[top : top + side, left : left + side])
    return sorted(folder.iterdir())


def halves(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The pictures at half their size by bicubic interpolation, under their names in ``folder``."""
    folder.mkdir(parents=True)
    for path in paths:
        image = PIL.Image.open(path)
        small = image.resize((image.width // 2, image.height // 2), PIL.Image.Resampling.BICUBIC)
        small.save(folder / path.name)
    return sorted(folder.iterdir())


def pair_settings(data: Path, out: Path) -> list[str]:
    """``--set`` values that let a recipe of super-resolution learn from pairs in ``out``, and be judged by others."""
    photographs = sorted((data / "imagenet-samples").rglob("*.[jJ]*[gG]"))
    large = middles(photographs, out / "all", 2 * SIDE)
    sets = {
        "train": [path for index, path in enumerate(large) if index % JUDGED_OF][:TRAINED],
        "validation": large[::JUDGED_OF],
    }
    settings = []
    for name, paths in sets.items():
        (out / name).mkdir()
        kept = [path.rename(out / name / path.name) for path in paths]
        halves(kept, out / f"{name}-small")
        settings.append(f"data.{name}={{kind: pairs, path: {out / f'{name}-small'}, truth: {out / name}}}")
    return settings
