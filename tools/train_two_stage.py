"""Train the small Faster R-CNN of recipes/detection/scenes-faster-rcnn.yaml on made-up scenes, by torchvision's losses.

``python tools/train_two_stage.py --out recipes/detection/scenes-faster-rcnn.safetensors``: some minutes on one core.
Nothing is downloaded; weights are stored in half precision. The recipe's comment says what they reach.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_weights import save_small
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec
from edgecv.data.scenes import open_scenes
from edgecv.models.reference_two_stage import small_rcnn
from edgecv.vision.image import geometry, preprocess
from edgecv.vision.scenes import LABELS

SIZE = (128, 160)
CONTRACT = InputContract(size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)


def samples(count: int) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Pictures `(3, 128, 160)` with boxes and labels (from 1) in pixels of the network's input."""
    made = []
    for sample in open_scenes(DataSpec("scenes-boxes", split="train", limit=count), labels=LABELS):
        place = geometry(sample.image.shape[:2], CONTRACT)
        boxes = np.asarray(sample.truth.boxes, dtype=np.float32)
        corners = boxes.reshape(-1, 2, 2)
        moved = np.stack([place.to_network(corners[:, 0]), place.to_network(corners[:, 1])], axis=1).reshape(-1, 4)
        fits = ((moved[:, 2:] - moved[:, :2]) > 1).all(axis=1)
        truth = {
            "boxes": torch.from_numpy(moved[fits].astype(np.float32)),
            "labels": torch.from_numpy(np.asarray(sample.truth.class_ids)[fits].astype(np.int64) + 1),
        }
        made.append((torch.from_numpy(preprocess(sample.image, CONTRACT)), truth))
    return made


def mirrored(picture: torch.Tensor, truth: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The same from right to left."""
    boxes = truth["boxes"].clone()
    boxes[:, 0::2] = SIZE[1] - boxes[:, [2, 0]]
    return picture.flip(2), {**truth, "boxes": boxes}


def train(net: Any, data: list[Any], *, steps: int, batch: int, rate: float) -> None:
    """AdamW with a warm-up and a cosine, torchvision's own four losses."""
    random = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    for step in range(steps):
        share = min((step + 1) / 50, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        chosen = [data[index] for index in random.integers(0, len(data), batch)]
        chosen = [mirrored(*item) if random.random() < 0.5 else item for item in chosen]
        losses = net([item[0] for item in chosen], [dict(item[1]) for item in chosen])
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        if step % 50 == 0:
            print(step, {name: round(float(value.detach()), 3) for name, value in losses.items()}, flush=True)


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.manual_seed(0)
    net = small_rcnn(
        "faster", num_classes=len(LABELS) + 1, rpn_batch_size_per_image=128, box_batch_size_per_image=64,
        rpn_pre_nms_top_n_train=200, rpn_post_nms_top_n_train=100,
    )  # fmt: skip
    # The contract has normalised the pictures, and they have the network's size.
    net.transform = GeneralizedRCNNTransform(SIZE[0], SIZE[1], [0.0] * 3, [1.0] * 3, size_divisible=1)
    net.train()
    data = samples(given.pictures)
    print(f"{sum(item.numel() for item in net.parameters())} parameters, {len(data)} pictures", flush=True)
    train(net, data, steps=given.steps, batch=given.batch, rate=given.rate)
    save_small(given.out, net)


if __name__ == "__main__":
    main()
