"""A real surface for the anomaly recipes: tiles of a wooden floor, cut from frames of a video in which nobody walks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

VIDEO = "videos/one-by-one-person-detection.mp4"
EVERY, SIDE, TILES = 20, 96, 200
ROWS = (260, 432)
COLUMNS = (0, 370)
UNLIKE = 6.0
"""A tile that differs so much from the floor's usual picture shows a person or a shadow."""


def floor_settings(data: Path, out: Path) -> list[str]:
    """``--set`` values that let an anomaly recipe run on tiles in ``out``, where half of the test tiles are spoiled."""
    film = _frames(data / VIDEO)
    usual = np.median(film, axis=0)
    random = np.random.default_rng(0)
    # What is judged was filmed after what is learned from.
    for split, frames in zip(("train", "test"), np.array_split(film, 2), strict=True):
        (out / split).mkdir(parents=True)
        made = 0
        while made < TILES:
            top, start = (
                int(random.integers(ROWS[0], ROWS[1] - SIDE)),
                int(random.integers(COLUMNS[0], COLUMNS[1] - SIDE)),
            )
            area = np.s_[top : top + SIDE, start : start + SIDE]
            tile = frames[random.integers(len(frames))][area]
            if np.abs(tile - usual[area]).mean() < UNLIKE:
                cv2.imwrite(str(out / split / f"{made:03d}.png"), tile)
                made += 1
    train = f"{{kind: defects, path: {out / 'train'}, split: train}}"
    return [
        "name=wooden-floor",
        f"data.train={train}",
        f"data.eval={{kind: defects, path: {out / 'test'}}}",
        f"data.calibration={{source: {train}, samples: 64, select: random}}",
    ]


def _frames(path: Path) -> np.ndarray:
    """Every 20th frame, uint8 `(N, H, W, 3)`."""
    video = cv2.VideoCapture(str(path))
    found = []
    number = 0
    while video.grab():
        if number % EVERY == 0:
            found.append(video.retrieve()[1])
        number += 1
    return np.stack(found)
