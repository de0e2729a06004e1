"""What networks with prototypes are trained towards: boxes and classes as detectors are, and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgecv.core.recipe import FamilySpec
from edgecv.errors import DataError, ModelError
from edgecv.families.detection_loss import Owned, yolo_loss
from edgecv.families.instance_heads import layout
from edgecv.families.instance_truth import InstanceTruth

__all__ = ["instance_loss", "mask_loss", "trains"]

_MASK_WEIGHT = 2.5
_HEAD = "prototypes"


def trains(spec: FamilySpec) -> bool:
    """Whether there is a loss on labels for ``spec.head``."""
    return spec.head == _HEAD


def instance_loss(outputs: Any, truths: Sequence[InstanceTruth], spec: FamilySpec) -> Any:
    """The loss of a detector with head ``yolo`` on the boxes and classes, and `mask_loss`; a scalar tensor.

    ``outputs`` are torch tensors, batch first; ``truths`` one for each picture, in pixels of the network's input.

    Raises:
        ModelError: networks of this head are trained elsewhere, or the outputs do not fit it.
        DataError: the truths are no `InstanceTruth`.
    """
    if not trains(spec):
        raise ModelError(
            f"edgecv has no loss on labels for head {spec.head!r}; set distill: 1.0 to learn from the original "
            f"network, or use head {_HEAD}"
        )
    for truth in truths:
        if not isinstance(truth, InstanceTruth):
            raise DataError(f"the truth of a picture is {type(truth).__name__}; instance needs data with masks")
    tensors = list(outputs.values()) if isinstance(outputs, dict) else list(outputs)
    found = layout([tuple(tensor.shape) for tensor in tensors], len(spec.labels))
    if found is None:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise ModelError(f"the outputs have shapes {shapes}; head {_HEAD} with {len(spec.labels)} labels does not fit")
    rows, planes = tensors[found.rows], tensors[found.prototypes]
    rows = rows if rows.shape[1] == found.width else rows.transpose(1, 2)
    planes = planes if found.first else planes.movedim(-1, 1)
    stop = 4 + len(spec.labels)
    boxes = [truth.as_boxes() for truth in truths]
    detected, owned = yolo_loss([rows[:, :stop]], boxes, replace(spec, head="yolo"))
    return detected + _MASK_WEIGHT * _masks_lost(rows[:, stop:].float(), planes.float(), truths, owned)


def _masks_lost(coefficients: Any, planes: Any, truths: Sequence[InstanceTruth], owned: Sequence[Owned]) -> Any:
    """`mask_loss` of the cells that learn an object, mean over them, by how well each fits its object."""
    import torch

    lost, weights = [planes.new_zeros(())], planes.new_zeros(())
    for index, (truth, learned) in enumerate(zip(truths, owned, strict=True)):
        real = truth.select(~truth.crowd)
        if not len(real):
            continue
        masks = torch.from_numpy(real.masks().astype(np.float32)).to(planes.device)
        boxes = planes.new_tensor(real.boxes)
        each = mask_loss(coefficients[index, :, learned.cells].T, planes[index], masks, boxes, learned.owners)
        lost.append((each * learned.weights).sum())
        weights = weights + learned.weights.sum()
    return sum(lost[1:], lost[0]) / weights.clamp_min(1.0)


def mask_loss(coefficients: Any, planes: Any, masks: Any, boxes: Any, owner: Any) -> Any:
    """Cross entropy of the mask of each row within its true box, over the box's area; `(P,)`.

    Bolya et al., YOLACT, arXiv:1904.02689. ``coefficients`` `(P, M)`, ``planes`` `(M, h, w)`, true ``masks``
    `(G, H, W)` 0 or 1, ``boxes`` `(G, 4)` in pixels of the masks, ``owner`` `(P,)` the object of each row. A place of
    the planes is to give the share of its pixels that the object covers.
    """
    from torch.nn import functional

    high, wide = planes.shape[1:]
    scale = boxes.new_tensor([wide / masks.shape[2], high / masks.shape[1]]).repeat(2)
    shares = functional.adaptive_avg_pool2d(masks[:, None], (high, wide))[:, 0]
    # A box that is smaller than a place still has the places that it touches.
    sides = boxes * scale
    low, up = sides[:, :2].floor(), sides[:, 2:].ceil()
    inner = _between(wide, low[:, 0], up[:, 0])[:, None, :] * _between(high, low[:, 1], up[:, 1])[:, :, None]
    logits = (coefficients @ planes.flatten(1)).unflatten(1, (high, wide))
    each = functional.binary_cross_entropy_with_logits(logits, shares[owner], reduction="none") * inner[owner]
    return each.sum(dim=(1, 2)) / inner.sum(dim=(1, 2)).clamp_min(1.0)[owner]


def _between(count: int, low: Any, high: Any) -> Any:
    """`(G, count)`: 1 for the places between ``low`` and ``high`` `(G,)`."""
    places = low.new_tensor(np.arange(count) + 0.5)
    return ((places > low[:, None]) & (places < high[:, None])).to(low.dtype)
