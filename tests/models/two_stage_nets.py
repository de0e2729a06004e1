"""Small two-stage networks with random weights whose features are alive, as those of trained ones are."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torchvision.models.detection import FasterRCNN

from edgecv.models.reference_two_stage import KEYPOINTS, Kind, small_rcnn
from edgecv.models.two_stage import FixedShapes, TwoStage

__all__ = ["CLASSES", "KEYPOINTS", "SIDE", "fixed", "network", "picture"]

SIDE = 96
CLASSES: dict[Kind, int] = {"faster": 4, "mask": 4, "keypoint": 2}


def picture(seed: int, *, side: int = SIDE) -> torch.Tensor:
    """Smooth coloured noise `(1, 3, side, side)`."""
    grain = np.random.default_rng(seed).normal(0, 1.2, (6, 5, 3)).astype(np.float32)
    large = cv2.resize(grain, (side, side), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(np.ascontiguousarray(large.transpose(2, 0, 1)[np.newaxis]))


def network(kind: Kind, *, side: int = SIDE, classes: int | None = None, **options: Any) -> FasterRCNN:
    """The small network of `edgecv.models.reference_two_stage`, as torchvision runs it; evaluation mode."""
    torch.manual_seed(0)
    made: FasterRCNN = small_rcnn(kind, num_classes=classes or CLASSES[kind], **options)
    enliven(made, side=side)
    return made.eval()


def enliven(made: FasterRCNN, *, side: int) -> None:
    """Set the norms to the pictures, and let scores and boxes differ from place to place."""
    made.backbone.train()
    with torch.no_grad():
        for batch in range(4):
            made.backbone(torch.cat([picture(100 + 4 * batch + place, side=side) for place in range(4)]))
        for name, parameter in made.named_parameters():
            if "rpn.head" in name and "weight" in name:
                parameter.mul_(4)
            elif "cls_score.weight" in name:
                parameter.mul_(3)
    made.eval()


def fixed(
    kind: Kind = "faster",
    num_classes: int | None = None,
    candidates: int = 48,
    proposals: int = 24,
    detections: int = 6,
) -> TwoStage:
    """A small network in fixed shapes; for recipes with a ``python:`` source."""
    shapes = FixedShapes(candidates=candidates, proposals=proposals, detections=detections)
    return TwoStage(network(kind, classes=num_classes), size=(SIDE, SIDE), shapes=shapes).eval()
