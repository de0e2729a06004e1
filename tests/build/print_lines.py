"""Lines of printed digits as a data set of kind text: enough for a small network to learn to read."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)


def print_line(random: np.random.Generator) -> tuple[np.ndarray, str]:
    """A gray picture 32 x 96 of three to five digits in some font, size and place, and what stands there."""
    words = "".join(random.choice(list("0123456789"), int(random.integers(3, 6))))
    image = np.full((32, 96), int(random.integers(150, 256)), np.uint8)
    place = (int(random.integers(2, 10)), int(random.integers(22, 28)))
    size, ink, thick = float(random.uniform(0.65, 0.8)), int(random.integers(0, 90)), int(random.integers(1, 3))
    cv2.putText(image, words, place, FONTS[int(random.integers(3))], size, ink, thick, cv2.LINE_AA)
    noisy: np.ndarray = np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    return noisy, words


def write_lines(folder: Path, count: int, *, seed: int) -> None:
    """``count`` pictures and their labels.csv."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "text"])
        for number in range(count):
            image, words = print_line(random)
            cv2.imwrite(str(folder / f"{number:04d}.png"), image)
            table.writerow([f"{number:04d}.png", words])
