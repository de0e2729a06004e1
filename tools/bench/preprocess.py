"""Pre-processing side by side: a camera frame of 1280 x 720 to the input of a network, float and int8.

Ours against ultralytics' own path (its LetterBox, then what its predictor does with the picture), and against the
usual cv2.resize with numpy. All letterbox to the same size; what int8 needs is quantised in numpy by the other two.
One process, medians of blocks in turn, as threads of one tool that still spin must not stand in the way of the next.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from others import environment

from edgecv.core.contract import InputContract
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.vision.preprocessor import Preprocessor

SCALE = Quantization(1 / 255, -128)
BLOCK = 20
LIMITS = {"ultralytics": 3.0, "cv2 + numpy": 2.0}


def ours(size: int, spec: TensorSpec) -> Callable[[np.ndarray], object]:
    """edgecv, into the engine's own buffer."""
    fill = Preprocessor(InputContract(size=(size, size), resize="letterbox"), spec)
    buffer = np.zeros(spec.shape, spec.dtype)
    return lambda image: fill.into(image, buffer)


def quantised(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Float values as the network's input type."""
    if spec.dtype == "float32":
        return values
    return np.clip(np.round(values / SCALE.scale) + SCALE.zero_point, -128, 127).astype(np.int8)


def ultralytics(size: int, spec: TensorSpec) -> Callable[[np.ndarray], object]:
    """LetterBox, then stack, BGR to RGB, channels first, contiguous, torch, float, / 255: as its predictor does."""
    import torch
    from ultralytics.data.augment import LetterBox

    letterbox = LetterBox((size, size), auto=False, stride=32)

    def run(image: np.ndarray) -> object:
        stacked = np.stack([letterbox(image=image)])[..., ::-1].transpose((0, 3, 1, 2))
        tensor = torch.from_numpy(np.ascontiguousarray(stacked)).float()
        tensor /= 255
        if spec.dtype == "float32":
            return tensor
        values = quantised(tensor.numpy(), spec)
        return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if spec.layout == "NHWC" else values

    return run


def usual(size: int, spec: TensorSpec) -> Callable[[np.ndarray], object]:
    """cv2.resize, copyMakeBorder, cvtColor, then float numpy and transpose."""

    def run(image: np.ndarray) -> object:
        ratio = min(size / image.shape[0], size / image.shape[1])
        width, height = round(image.shape[1] * ratio), round(image.shape[0] * ratio)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        top, left = (size - height) // 2, (size - width) // 2
        border = (top, size - height - top, left, size - width - left)
        whole = cv2.copyMakeBorder(small, *border, cv2.BORDER_CONSTANT, value=(114, 114, 114))
        values = cv2.cvtColor(whole, cv2.COLOR_BGR2RGB).astype(np.float32) / 255.0
        if spec.layout == "NCHW":
            values = values.transpose(2, 0, 1)
        return quantised(np.ascontiguousarray(values[np.newaxis]), spec)

    return run


def block(run: Callable[[np.ndarray], object], frames: list[np.ndarray]) -> list[float]:
    """Milliseconds of each of `BLOCK` runs in a row; those before it bring back what the tool before pushed out."""
    spent = []
    for turn in range(-5, BLOCK):
        started_s = time.perf_counter()
        run(frames[turn % len(frames)])
        if turn >= 0:
            spent.append((time.perf_counter() - started_s) * 1000)
    return spent


def main() -> int:
    """Make the environment and run this file in it; there, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        with tempfile.TemporaryDirectory() as name:
            python = environment(Path(name) / "venv", "ultralytics", "ultralytics-thop")
            settings = {"YOLO_CONFIG_DIR": name, "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"}
            command = [python, __file__, "--inside", "--runs", str(options.runs)]
            return subprocess.run(command, check=False, env={**os.environ, **settings}).returncode
    frames = [np.random.default_rng(seed).integers(0, 256, (720, 1280, 3), dtype=np.uint8) for seed in range(4)]
    holds = True
    print(f"{'input':24} {'edgecv ms':>10} {'ultralytics':>12} {'cv2 + numpy':>12}   faster by")
    for size in (320, 640):
        for spec in (
            TensorSpec("x", (1, 3, size, size), "float32", "NCHW"),
            TensorSpec("x", (1, 3, size, size), "int8", "NCHW", SCALE),
            TensorSpec("x", (1, size, size, 3), "int8", "NHWC", SCALE),
        ):
            tools = {
                "edgecv": ours(size, spec),
                "ultralytics": ultralytics(size, spec),
                "cv2 + numpy": usual(size, spec),
            }
            spent: dict[str, list[float]] = {name: [] for name in tools}
            for _ in range(options.runs // BLOCK):
                for name, run in tools.items():
                    spent[name] += block(run, frames)
            medians = {name: median(values) for name, values in spent.items()}
            ratios = {name: medians[name] / medians["edgecv"] for name in LIMITS}
            holds &= all(ratios[name] >= limit for name, limit in LIMITS.items())
            shown = ", ".join(f"{ratio:.1f}x" for ratio in ratios.values())
            title = f"{size} {spec.dtype} {spec.layout}"
            figures = f"{medians['edgecv']:10.2f} {medians['ultralytics']:12.2f} {medians['cv2 + numpy']:12.2f}"
            print(f"{title:24} {figures}   {shown}", flush=True)
    print(f"at least 3 and 2 times as fast: {'yes' if holds else 'NO'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
