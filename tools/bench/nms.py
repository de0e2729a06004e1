"""Non-maximum suppression: ours beside OpenCV's and torchvision's, on the same boxes in one run.

Boxes are clustered around objects, as a detector gives them, or scattered all over the picture, which is
the worst case. Each is given its boxes as it wants them (OpenCV: x, y, width, height; torchvision: tensors
that exist already). All run on one thread and must keep the same rows. Prints milliseconds (median) and
exits with 1 where rows differ, or where ours is slower than OpenCV (by more than the 10 % that runs differ
by), or from 1,000 boxes on slower than torchvision (below that the calls of numpy themselves cost more
than torchvision's C++).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.vision.boxes import nms

Floats = npt.NDArray[np.float32]
THRESHOLD = 0.45


def boxes_of(kind: str, count: int, rng: np.random.Generator) -> Floats:
    """Boxes `(count, 4)` in a picture of 640 x 640: ``clustered``, 20 for each object, or ``scattered``."""
    objects = max(1, count // 20) if kind == "clustered" else count
    middles = rng.uniform(0, 640, (objects, 2))
    sizes = np.exp(rng.normal(4.0 if kind == "clustered" else 3.3, 0.7, (objects, 2)))
    if kind == "clustered":
        which = rng.integers(0, objects, count)
        middles = middles[which] + rng.normal(0, 0.08, (count, 2)) * sizes[which]
        sizes = sizes[which] * np.exp(rng.normal(0, 0.12, (count, 2)))
    return np.concatenate([middles - sizes / 2, middles + sizes / 2], axis=1).astype(np.float32)


def timed(ways: dict[str, Callable[[], Any]], *, seconds: float) -> tuple[dict[str, float], dict[str, list[int]]]:
    """Median milliseconds of each way, taken in turns, and the rows that each keeps."""
    kept = {name: np.asarray(way()).tolist() for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times["ours"]) < 5:
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) * 1e3 for name, values in times.items()}, kept


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row of the table")
    options = parser.parse_args()
    import torch
    from torchvision.ops import nms as torch_nms

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(f"{'boxes':24} {'kept':>6} {'ours ms':>9} {'OpenCV ms':>10} {'torchvision ms':>15}")
    held = True
    for kind in ("clustered", "scattered"):
        for count in options.counts:
            rng = np.random.default_rng(count)
            boxes, scores = boxes_of(kind, count, rng), rng.uniform(0.01, 1, count).astype(np.float32)
            sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
            tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
            ways: dict[str, Callable[[], Any]] = {
                "ours": lambda: nms(boxes, scores, iou_threshold=THRESHOLD),  # noqa: B023 - called in this round
                "opencv": lambda: cv2.dnn.NMSBoxes(sides, scores, 0.0, THRESHOLD),  # type: ignore[arg-type] # noqa: B023
                "torch": lambda: torch_nms(*tensors, THRESHOLD),  # noqa: B023
            }
            ms, kept = timed(ways, seconds=options.seconds)
            same = kept["ours"] == kept["opencv"] == kept["torch"]
            fast = ms["ours"] <= 1.1 * ms["opencv"] and (count < 1_000 or ms["ours"] <= ms["torch"])
            held = held and same and fast
            note = ("" if same else "  OTHER ROWS") + ("" if fast else "  SLOWER")
            print(
                f"{kind + ' ' + format(count, ','):24} {len(kept['ours']):6} {ms['ours']:9.3f} {ms['opencv']:10.3f} "
                f"{ms['torch']:15.3f}{note}"
            )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
