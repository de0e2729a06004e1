"""Networks for clips that want their frames on an axis of their own, behind the one form of input that edgecv uses."""

from __future__ import annotations

import torch
from torch import nn

from edgecv.core.contract import InputContract

__all__ = ["ClipInputs", "for_clips"]


class ClipInputs(nn.Module):
    """A network around ``model`` that takes clips as `(N, T * C, H, W)` and passes them on with an axis of frames:
    `(N, T, C, H, W)`, or with ``channels_first`` `(N, C, T, H, W)`."""

    def __init__(self, model: nn.Module, *, frames: int, channels: int, channels_first: bool) -> None:
        super().__init__()
        self.model, self.frames, self.channels = model, frames, channels
        self.channels_first = channels_first

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        split = clips.reshape(-1, self.frames, self.channels, clips.shape[2], clips.shape[3])
        return self.model(split.transpose(1, 2) if self.channels_first else split)


def for_clips(module: nn.Module, contract: InputContract) -> nn.Module:
    """``module`` as a network that takes the frames' channels one after another, whatever its own form of clips is."""
    clip = contract.clip
    if clip is None or clip.layout == "stacked":
        return module
    first = clip.layout == "CTHW"
    return ClipInputs(module, frames=clip.frames, channels=contract.channels, channels_first=first).eval()
