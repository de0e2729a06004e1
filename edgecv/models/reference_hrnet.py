"""HRNet for keypoints: timm's network, kept at a quarter of the input's size, and one convolution behind it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from timm.models.hrnet import HighResolutionNetFeatures, cfg_cls
from torch import nn

__all__ = ["hrnet_pose"]

_STAGES = ("stage2", "stage3", "stage4")


def hrnet_pose(
    *,
    keypoints: int = 17,
    name: str = "hrnet_w32",
    width: int | None = None,
    stem: int | None = None,
    blocks: int | None = None,
    channels: int = 3,
) -> nn.Module:
    """Keypoints of one person: `(N, channels, H, W)` float32 -> maps `(N, keypoints, H / 4, W / 4)`, head heatmap.

    The network of Sun et al., arXiv:1902.09212: branches at a quarter, an eighth, ... of the size run beside each
    other, and each exchange sums all of them at each size. ``name`` is an HRNet of timm; ``width`` (channels of the
    finest branch; each coarser one has twice as many), ``stem`` (channels of its first convolution and of the first
    stage's blocks) and ``blocks`` (in each branch) make it smaller than that. H and W are multiples of 32.

    The names of the layers are those of the authors' pose networks, so that their state dicts load.

    Raises:
        ValueError: timm has no such HRNet, or a number is below 1.
    """
    if name not in cfg_cls:
        raise ValueError(f"name is {name!r}; allowed are {', '.join(cfg_cls)}")
    for key, value in (("width", width), ("stem", stem), ("blocks", blocks)):
        if value is not None and value < 1:
            raise ValueError(f"{key} is {value}; at least 1 is needed")
    plan = deepcopy(cfg_cls[name])
    if stem is not None:
        plan["stem_width"] = stem
        plan["stage1"]["num_channels"] = (stem,)
    for stage in _STAGES:
        branches = plan[stage]["num_branches"]
        if width is not None:
            plan[stage]["num_channels"] = tuple(width * 2**branch for branch in range(branches))
        if blocks is not None:
            plan[stage]["num_blocks"] = (blocks,) * branches
    return _HrnetPose(plan, keypoints, channels)


class _HrnetPose(HighResolutionNetFeatures):
    def __init__(self, plan: dict[str, Any], keypoints: int, channels: int) -> None:
        super().__init__(plan, in_chans=channels, feature_location="", out_indices=(1,))
        last = self.stage4[-1]
        last.fuse_layers = last.fuse_layers[:1]  # of the last exchange, only the finest map is used
        self.final_layer = nn.Conv2d(plan["stage4"]["num_channels"][0], keypoints, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.final_layer(super().forward(inputs)[0])
