"""Training of a small DETR on made-up scenes, an hour on a busy core; `families_detectors.py` calls it.

With its own loss alone DETR does not learn in a budget of a desk: an AP of 0.009 after 48 epochs of 1,000 scenes. What
is exported here is a plain DETR; only its training has help:

- The backbone is that of a trained RT-DETR and stands still, so its maps are computed once for all scenes.
- While training, each cell of the encoder names its object too. K. Zong et al., "Co-DETR", arXiv:2211.12860, and for
  which cell answers Z. Tian et al., "FCOS", arXiv:1904.01355: those near an object's centre.
- Queries begin as the positions of an even grid, and look where they are: the first weights by which the decoder
  compares positions are the identity. Y. Wang et al., "Anchor DETR", arXiv:2109.07107.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import box_convert, generalized_box_iou_loss

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Reader
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.families.detection_set_loss import set_loss
from edgecv.families.detection_targets import objects
from edgecv.models.transformer_detectors import DetrGraph
from edgecv.optimize.batches import make_batches
from edgecv.optimize.ema import average_of

NEAR = 0.7
"""A cell answers for an object where its centre is within this share of half its sides."""
RATE, BATCH, DECAY = 7e-4, 48, 0.998
SHARP = 1.5
"""How strongly queries look where they are at first."""


@dataclass(frozen=True)
class Seen:
    """Maps of the backbone `(N, C, h, w)` in half precision, and the truths in pixels of the network's input."""

    maps: torch.Tensor
    truths: tuple[DetectionTruth, ...]


def look(backbone: Callable[[torch.Tensor], torch.Tensor], reader: Reader, contract: InputContract) -> Seen:
    """What the backbone makes of each picture, and of each as a mirror shows it."""
    maps, truths = [], list[DetectionTruth]()
    for inputs, found in make_batches(reader, contract, batch_size=16)(0):
        given = torch.from_numpy(inputs)
        for picture, seen in ((given, found), (given.flip(3), [_mirrored(truth, contract.size[1]) for truth in found])):
            with torch.no_grad():
                maps.append(backbone(picture).half())
            truths += seen
    return Seen(torch.cat(maps), tuple(truths))


def _mirrored(truth: DetectionTruth, width: int) -> DetectionTruth:
    boxes = truth.boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return DetectionTruth(boxes, truth.class_ids, truth.crowd, truth.area, truth.size)


class Cells(nn.Module):
    """The help: a class and a box from every cell of the encoder."""

    def __init__(self, graph: DetrGraph, classes: int, maps: tuple[int, int], size: tuple[int, int]) -> None:
        super().__init__()
        width = int(graph.get_buffer("places").shape[-1])
        self.named = nn.Linear(width, classes + 1)
        self.placed = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
        self.size = torch.tensor([size[1], size[0]], dtype=torch.float32)
        y, x = torch.meshgrid(*((torch.arange(side) + 0.5) / side for side in maps), indexing="ij")
        self.centres = torch.stack([x, y], dim=-1).reshape(-1, 2)
        self.reach = 0.5 / torch.tensor([maps[1], maps[0]])

    def loss(self, memory: torch.Tensor, truths: Sequence[DetectionTruth]) -> torch.Tensor:
        """Of the cells `(N, L, D)`: cross entropy of all, and the boxes of those that answer for an object."""
        named, placed = self.named(memory), self.placed(memory).sigmoid()
        wanted = torch.full(named.shape[:2], named.shape[2] - 1)
        mine, real = [], []
        for index, truth in enumerate(truths):
            boxes, classes = objects(truth, memory)
            boxes = boxes / self.size.repeat(2)
            if not len(boxes):
                continue
            centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * NEAR
            half = torch.maximum(half, self.reach)
            inside = ((self.centres[:, None] - centre).abs() <= half).all(dim=2)
            area, owner = half.prod(dim=1).expand_as(inside).masked_fill(~inside, math.inf).min(dim=1)
            cells = torch.isfinite(area).nonzero()[:, 0]  # of several objects the smallest
            wanted[index, cells] = classes[owner[cells]]
            mine.append(placed[index, cells])
            real.append(boxes[owner[cells]])
        weights = torch.ones(named.shape[2])
        weights[-1] = 0.3
        lost = functional.cross_entropy(named.flatten(0, 1), wanted.flatten(), weight=weights)
        if not mine:
            return lost
        found, there = torch.cat(mine), torch.cat(real)
        away = (found - box_convert(there, "xyxy", "cxcywh")).abs().sum() / len(there)
        apart = generalized_box_iou_loss(box_convert(found, "cxcywh", "xyxy"), there, reduction="mean")
        total: torch.Tensor = lost + 5.0 * away + 2.0 * apart
        return total


def train_detr(graph: DetrGraph, seen: Seen, spec: FamilySpec, size: tuple[int, int], *, epochs: int) -> None:
    """Train all but the backbone of ``graph`` in place; its weights are then a moving average."""
    high, wide = seen.maps.shape[2:]
    cells = Cells(graph, len(spec.labels), (high, wide), size)
    _begin(graph, (high, wide))
    learned = [item for name, item in graph.named_parameters() if not name.startswith("model.backbone")]
    learned += cells.parameters()
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=1e-4)
    average = average_of(graph, decay=DECAY)
    assert average is not None
    steps, started = len(seen.maps) // BATCH, time.monotonic()
    for epoch in range(epochs):
        order, total = torch.randperm(len(seen.maps)), 0.0
        for step in range(steps):
            share = (epoch * steps + step) / (epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1.0, share / 0.02 + 1e-3) * 0.5 * (1 + math.cos(math.pi * share))
            chosen = order[step * BATCH : (step + 1) * BATCH]
            truths = [seen.truths[int(index)] for index in chosen]
            memory = graph.encoded(seen.maps[chosen].float())
            stages = graph.decoded(memory, every=True)
            lost = torch.stack([set_loss(stage, truths, spec) for stage in stages]).sum() + cells.loss(memory, truths)
            optimizer.zero_grad()
            torch.autograd.backward(lost)
            nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            average.update(graph)
            total += float(lost.detach())
        print(f"detr, epoch {epoch + 1}/{epochs}: {total / steps:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    average.copy_to(graph)


def _begin(graph: DetrGraph, maps: tuple[int, int]) -> None:
    """Queries at the places of a grid, compared with those of the cells as they are."""
    model: Any = graph.model
    places = graph.get_buffer("places")[0]
    count = len(model.query_position_embeddings.weight)
    rows = round(math.sqrt(count * maps[0] / maps[1]))
    y = np.linspace(1, maps[0] - 2, rows).round().repeat(math.ceil(count / rows))[:count]
    x = np.tile(np.linspace(1, maps[1] - 2, math.ceil(count / rows)).round(), rows)[:count]
    with torch.no_grad():
        model.query_position_embeddings.weight.copy_(places[torch.from_numpy(y * maps[1] + x).long()])
        for layer in model.decoder.layers:
            for name, part in layer.encoder_attn.named_modules():
                if name.endswith(("q_proj", "k_proj")):
                    part.weight.copy_(torch.eye(len(part.weight)) * SHARP)
