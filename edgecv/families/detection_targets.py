"""What detectors are trained towards on one picture: its objects as tensors, and which rows a crowd takes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecv.core.results import DetectionTruth
from edgecv.families.detection_rows import Size, like

__all__ = ["SMALLEST", "cross_entropy", "logits_of", "objects", "one_hot", "outside_crowds", "size_of"]

SMALLEST = 1e-6
"""Probabilities keep so far from 0 and 1."""


def size_of(truths: Sequence[DetectionTruth]) -> Size:
    """(Height, width) of the network's input, in whose pixels the truths are."""
    size = truths[0].size
    assert size is not None
    return size


def objects(truth: DetectionTruth, boxes: Any) -> tuple[Any, Any]:
    """Boxes `(G, 4)` and classes `(G,)` of what is to be found, on the device of ``boxes``."""
    import torch

    keep = slice(None) if truth.crowd is None else ~truth.crowd
    return like(boxes, truth.boxes[keep]), torch.from_numpy(truth.class_ids[keep]).to(boxes.device)


def outside_crowds(truth: DetectionTruth, places: Any) -> Any:
    """`(M,)`: 0 for rows whose place `(M, 2)`, x and y in pixels, lies in a crowd, else 1."""
    import torch

    if truth.crowd is None or not truth.crowd.any():
        return torch.ones_like(places[:, 0])
    many = like(places, truth.boxes[truth.crowd])
    inside = ((places[:, None] >= many[None, :, :2]) & (places[:, None] <= many[None, :, 2:])).all(dim=2)
    return (~inside.any(dim=1)).float()


def one_hot(owner: Any, classes: Any, columns: int) -> Any:
    """`(M, columns)`: 1 for the class of the object ``owner`` `(M,)` that a row answers for (-1 for none), else 0."""
    import torch

    wanted = torch.zeros((len(owner), columns), device=owner.device)
    rows = torch.nonzero(owner >= 0)[:, 0]
    wanted[rows, classes[owner[rows]]] = 1.0
    return wanted


def logits_of(values: Any, *, shares: bool) -> Any:
    """``values`` before a sigmoid; ``shares`` says that they have gone through it already."""
    import torch

    return torch.logit(values.float(), eps=SMALLEST) if shares else values.float()


def cross_entropy(shares: Any, wanted: Any) -> Any:
    """Of probabilities, value by value. (torch's own is not allowed in half precision.)"""
    sure = shares.float().clamp(SMALLEST, 1.0 - SMALLEST)
    return -(wanted * sure.log() + (1.0 - wanted) * (1.0 - sure).log())
