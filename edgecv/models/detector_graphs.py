"""torchvision's one-stage detectors as plain graphs: a picture of fixed size in, raw boxes and scores out.

torchvision's own forward resizes, normalises and picks boxes, with shapes that depend on what is in the picture. Here
only the networks are left; the input contract does what stood before them, and the family's heads (`ssd`, `retinanet`,
`fcos`) what stood behind. The names of the weights are torchvision's, so its state dicts fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edgecv.errors import ModelError

__all__ = ["DETECTOR_OPTIONS", "RawDetector", "raw_detector"]

DETECTOR_OPTIONS = ("norm_eps",)
"""Settings of our own among ``model.options`` of a detector; the rest goes to torchvision's constructor."""

_OUTPUTS = {
    "SSD": ("bbox_regression", "cls_logits"),
    "RetinaNet": ("bbox_regression", "cls_logits"),
    "FCOS": ("bbox_regression", "cls_logits", "bbox_ctrness"),
}


class RawDetector(nn.Module):
    """Backbone and head of a detector: `(N, 3, H, W)` float32, normalised -> the head's tensors `(N, P, ...)`.

    P are all cells (of the finest map first, row by row), for each cell its anchors. Box offsets are as wide as 4,
    class logits as the classes (with torchvision's class 0, the background), FCOS's centre-ness as 1.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.outputs = outputs

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.backbone(inputs)
        maps = [features] if isinstance(features, torch.Tensor) else list(features.values())
        found = self.head(maps)
        return tuple(found[name] for name in self.outputs)


def raw_detector(model: nn.Module, *, options: Mapping[str, Any], source: str) -> nn.Module:
    """The raw network of one of torchvision's SSD, RetinaNet and FCOS; any other ``model`` as it is.

    Of ``options`` only ``norm_eps`` counts: the epsilon of all batch norms (torchvision's first COCO weights of
    RetinaNet were made with frozen norms whose epsilon is 0).

    Raises:
        ModelError: ``norm_eps`` is given and is no number of at least 0, or the model is no such detector.
    """
    outputs = _OUTPUTS.get(type(model).__name__) if hasattr(model, "anchor_generator") else None
    if outputs is None:
        if options:
            raise ModelError(f"model.options {', '.join(options)} are for detectors; {source} is none of those")
        return model
    eps = options.get("norm_eps")
    if eps is not None:
        _set_eps(model, eps)
    backbone, head = model.get_submodule("backbone"), model.get_submodule("head")
    return RawDetector(backbone, head, outputs)


def _set_eps(model: nn.Module, eps: Any) -> None:
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps < 1:
        raise ModelError(f"model.options.norm_eps is {eps!r}; allowed is a number from 0 to below 1, such as 0.0")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = float(eps)
