"""The losses of Faster, Mask and Keypoint R-CNN on labels: torchvision's, whose parts `edgecv.models.two_stage` keeps.

The exported graph shows neither the anchors' scores nor the proposals that they led to, so nothing can be learned from
its outputs; the parts can be asked as torchvision asks them in training, a batch of pictures at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecv.core.results import DetectionTruth
from edgecv.errors import DataError
from edgecv.families.instance_truth import InstanceTruth
from edgecv.families.pose_truth import PoseTruth
from edgecv.models.outputs import unwrapped
from edgecv.models.two_stage import TwoStage

__all__ = ["is_two_stage", "two_stage_loss"]


def is_two_stage(module: nn.Module) -> bool:
    """Whether ``module`` is a two-stage network: there is `two_stage_loss`, and its forward takes one picture alone."""
    return isinstance(unwrapped(module), TwoStage)


def two_stage_loss(module: nn.Module, inputs: Tensor, truths: Sequence[Any]) -> Tensor:
    """Objectness and offsets of the anchors, classes and offsets of the proposals, and what is drawn in them; a scalar.

    S. Ren et al., "Faster R-CNN", arXiv:1506.01497; K. He et al., "Mask R-CNN", arXiv:1703.06870. ``inputs``
    `(N, 3, H, W)`; ``truths`` one for each picture, in pixels of the network's input: `DetectionTruth`, for networks
    with masks `InstanceTruth`, for those with keypoints `PoseTruth`. Which anchors and proposals are looked at is drawn
    by torch's generator. Crowds are left out, and what is found in them counts as wrong, as torchvision has it.

    Raises:
        DataError: the truths are of another kind, or have a class that the network does not know, or keypoints of
            another number.
    """
    network: Any = unwrapped(module)
    targets = [_target(truth, network, inputs.device) for truth in truths]
    from torchvision.models.detection.image_list import ImageList

    sizes = [network.size] * len(inputs)
    pyramid = network.backbone(inputs)
    with _asked_for_losses(network.rpn, network.roi_heads), _plain_heatmaps(network.roi_heads):
        proposals, first = network.rpn(ImageList(inputs, sizes), pyramid, targets)
        _, second = network.roi_heads(pyramid, proposals, sizes, targets)
    total: Tensor = sum([*first.values(), *second.values()], inputs.new_zeros(()))
    return total


def _target(truth: Any, network: Any, device: torch.device) -> dict[str, Tensor]:
    """What torchvision's parts want to know of a picture."""
    heads = network.roi_heads
    kinds: tuple[tuple[type[Any], str], ...] = (
        (InstanceTruth, "boxes with masks"),
        (PoseTruth, "persons with keypoints"),
        (DetectionTruth, "boxes"),
    )
    wanted, form = kinds[0 if heads.has_mask() else 1 if heads.has_keypoint() else 2]
    if not isinstance(truth, wanted):
        raise DataError(f"the truth of a picture is {type(truth).__name__}; this network learns from {form}")
    # A box without an area has no offsets that could be learned.
    keep = (truth.boxes[:, 2:] > truth.boxes[:, :2]).all(axis=1)
    if truth.crowd is not None:
        keep &= ~truth.crowd
    ids = np.zeros(int(keep.sum()), np.int64) if isinstance(truth, PoseTruth) else truth.class_ids[keep]
    if len(ids) and not 0 <= ids.min() <= ids.max() < network.classes:
        raise DataError(f"a truth has classes {ids.tolist()}; the network knows {network.classes}")
    told = {"boxes": truth.boxes[keep], "labels": ids + 1}
    if isinstance(truth, InstanceTruth):
        told["masks"] = truth.select(keep).masks().view(np.uint8)
    elif isinstance(truth, PoseTruth):
        told["keypoints"] = _keypoints(truth.keypoints[keep], heads)
    return {name: torch.from_numpy(np.ascontiguousarray(values)).to(device) for name, values in told.items()}


def _keypoints(found: Any, heads: Any) -> Any:
    known = int(heads.keypoint_predictor.out_channels)
    if len(found) and found.shape[1] != known:
        raise DataError(f"a truth has {found.shape[1]} keypoints; the network knows {known}")
    return found.reshape(-1, known, 3)


@contextmanager
def _asked_for_losses(*parts: nn.Module) -> Iterator[None]:
    """torchvision's parts give losses when they are in training; what is inside of them stays in its mode."""
    modes = [part.training for part in parts]
    for part in parts:
        part.training = True
    try:
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


@contextmanager
def _plain_heatmaps(heads: Any) -> Iterator[None]:
    """torchvision's keypoint loss takes a view of the heatmaps, which networks with the channels last do not allow."""
    if not heads.has_keypoint():
        yield
        return
    hook = heads.keypoint_predictor.register_forward_hook(lambda _module, _inputs, maps: maps.contiguous())
    try:
        yield
    finally:
        hook.remove()
