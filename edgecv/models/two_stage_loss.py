"""The losses of Faster R-CNN on labels: those of torchvision, whose parts `edgecv.models.two_stage` keeps.

The exported graph shows neither the anchors' scores nor the proposals that they led to, so nothing can be learned from
its outputs; the parts can be asked as torchvision asks them in training, a batch of pictures at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.core.results import DetectionTruth
from edgecv.errors import DataError
from edgecv.models.outputs import unwrapped
from edgecv.models.two_stage import TwoStage

__all__ = ["learns_from_parts", "takes_one_picture", "two_stage_loss"]


def learns_from_parts(module: nn.Module) -> bool:
    """Whether ``module`` is a two-stage detector of boxes, for which there is `two_stage_loss`."""
    network = unwrapped(module)
    return isinstance(network, TwoStage) and not (network.roi_heads.has_mask() or network.roi_heads.has_keypoint())


def takes_one_picture(module: nn.Module) -> bool:
    """Whether the forward of ``module`` is for batches of one picture alone."""
    return isinstance(unwrapped(module), TwoStage)


def two_stage_loss(module: nn.Module, inputs: Tensor, truths: Sequence[DetectionTruth]) -> Tensor:
    """Objectness and offsets of the anchors, classes and offsets of the proposals; a scalar tensor.

    S. Ren et al., "Faster R-CNN", arXiv:1506.01497. ``inputs`` `(N, 3, H, W)`; ``truths`` one for each picture, in
    pixels of the network's input. Which anchors and proposals are looked at is drawn by torch's generator. Crowds are
    left out, and what is found in them counts as wrong, as torchvision has it.

    Raises:
        DataError: the truths are no `DetectionTruth`, or have a class without a label.
    """
    network: Any = unwrapped(module)
    targets = [_target(truth, network.classes, inputs.device) for truth in truths]
    from torchvision.models.detection.image_list import ImageList

    sizes = [network.size] * len(inputs)
    pyramid = network.backbone(inputs)
    with _asked_for_losses(network.rpn, network.roi_heads):
        proposals, first = network.rpn(ImageList(inputs, sizes), pyramid, targets)
        _, second = network.roi_heads(pyramid, proposals, sizes, targets)
    total: Tensor = sum([*first.values(), *second.values()], inputs.new_zeros(()))
    return total


def _target(truth: Any, classes: int, device: torch.device) -> dict[str, Tensor]:
    if not isinstance(truth, DetectionTruth):
        raise DataError(f"the truth of a picture is {type(truth).__name__}; detection learns from boxes")
    keep = slice(None) if truth.crowd is None else ~truth.crowd
    ids = truth.class_ids[keep]
    if len(ids) and not 0 <= ids.min() <= ids.max() < classes:
        raise DataError(f"a truth has classes {ids.tolist()}; the network knows {classes}")
    boxes = torch.from_numpy(truth.boxes[keep]).to(device)
    return {"boxes": boxes, "labels": torch.from_numpy(ids).to(device) + 1}


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
