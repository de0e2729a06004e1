"""A memory of what patches of good pictures look like, and how far a picture's patches are from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from edgecv.errors import ModelError

__all__ = ["GoodPictures", "MemoryBank", "bounded", "coreset"]

GoodPictures = Callable[[], Iterator[torch.Tensor]]
"""Starts one pass over good pictures: batches `(N, C, H, W)` float32."""

_PROJECTED = 32
_LEAST_SPREAD = 1.0
"""Channels that vary less than the mean one are not made louder: int8 noise would be, too. Wood, 100 pictures: AUROC
0.975 at a tenth, 1.000 at 1; what int8 loses on woven ones falls from 1.8 to 0.8 points."""
_BLUR = (1.0, 4.0, 6.0, 4.0, 1.0)


class MemoryBank(nn.Module):
    """Distance of each patch to the nearest one that is remembered: maps of a few stages -> `(N, 1, 2 h, 2 w)`.

    A patch is the local mean (3 x 3) of all stages' features at one place, brought to the first stage's size `(h, w)`
    (Roth et al., PatchCore, arXiv:2106.08265), each channel with mean 0 over good patches and a spread of 1
    at most. The squared distances to all ``size`` remembered patches b are one convolution, |x|^2 - 2 x.b + |b|^2, and
    their minimum; the root of that is enlarged twice, blurred, multiplied by ``scale`` and `bounded`.
    """

    mean: torch.Tensor
    gain: torch.Tensor
    weight: torch.Tensor
    length: torch.Tensor
    blur: torch.Tensor
    scale: torch.Tensor

    def __init__(self, channels: int, *, size: int, patches: int) -> None:
        super().__init__()
        if size < 1 or patches < size:
            raise ModelError(f"bank is {size} and patches {patches}; bank must be at least 1, and patches no fewer")
        self.size, self.patches = size, patches
        line = torch.tensor(_BLUR) / sum(_BLUR)
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("gain", torch.ones(1, channels, 1, 1))
        self.register_buffer("weight", torch.zeros(size, channels, 1, 1))
        self.register_buffer("length", torch.zeros(size))
        self.register_buffer("blur", (line[:, None] * line)[None, None], persistent=False)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, *stages: torch.Tensor) -> torch.Tensor:
        patches = (_joined(stages) - self.mean) * self.gain
        nearest = functional.conv2d(patches, self.weight, self.length).amin(dim=1, keepdim=True)
        squared = (nearest + (patches * patches).sum(dim=1, keepdim=True)).clamp(min=1e-6)
        wide = functional.interpolate(torch.sqrt(squared), scale_factor=2.0, mode="bilinear", align_corners=False)
        return bounded(functional.conv2d(wide, self.blur, padding=2) * self.scale)

    def fill(self, passes: Callable[[], Iterator[tuple[torch.Tensor, ...]]], *, seed: int) -> None:
        """Remember ``size`` patches of the stages `(N, C, h, w)` that one of ``passes`` gives, far apart.

        Raises:
            ModelError: there are fewer patches than ``size``.
        """
        found = _drawn(passes(), self.patches, seed)
        if len(found) < self.size:
            raise ModelError(
                f"the good pictures show {len(found)} patches and option bank is {self.size}; give more pictures, or a "
                "smaller bank"
            )
        spread = found.std(dim=0)
        spread = spread.clamp(min=_LEAST_SPREAD * float(spread.mean().clamp(min=1e-9)))
        patches = (found - found.mean(dim=0)) / spread
        kept = patches[coreset(patches, self.size, seed=seed)]
        self.mean.copy_(found.mean(dim=0).reshape(self.mean.shape))
        self.gain.copy_((1.0 / spread).reshape(self.gain.shape))
        self.weight.copy_((-2.0 * kept).reshape(self.weight.shape))
        self.length.copy_((kept * kept).sum(dim=1))


def bounded(values: torch.Tensor) -> torch.Tensor:
    """``values`` >= 0 as 0 to 1: x / (1 + x), so 0.5 where x is 1.

    The order stays. How unusual the most unusual is does not matter, and int8 features, whose ranges come from good
    pictures, cannot tell it.
    """
    return values / (1.0 + values)


def coreset(points: torch.Tensor, size: int, *, seed: int) -> torch.Tensor:
    """Indices `(size,)` of ``points`` `(N, C)` such that none of the others is far from all of them.

    Each next one is the point farthest from those before (greedy k-center: Sener and Savarese, arXiv:1708.00489), at
    distances after a random projection to 32 numbers, which hardly changes them (PatchCore, arXiv:2106.08265).
    """
    random = torch.Generator().manual_seed(seed)
    if points.shape[1] > _PROJECTED:
        points = points @ (torch.randn(points.shape[1], _PROJECTED, generator=random) / _PROJECTED**0.5)
    chosen = torch.empty(size, dtype=torch.int64)
    chosen[0] = int(torch.randint(len(points), (1,), generator=random))
    away = torch.full((len(points),), torch.inf)
    for number in range(1, size):
        last = points[chosen[number - 1]]
        away = torch.minimum(away, ((points - last) ** 2).sum(dim=1))
        chosen[number] = int(away.argmax())
    return chosen


def _joined(stages: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """All stages' local means, at the first one's size, as one map."""
    maps = [_local_mean(stages[0])]
    for stage in stages[1:]:
        local, size = _local_mean(stage), stages[0].shape[-2:]
        maps.append(functional.interpolate(local, size=size, mode="bilinear", align_corners=False))
    return torch.cat(maps, dim=1)


def _local_mean(stage: torch.Tensor) -> torch.Tensor:
    """The mean of 3 x 3 places, with zeros around the map, as a convolution.

    Engines average int8 numbers in int8 even where a float result is asked for (OpenVINO 2026.4, LiteRT), and lose
    what distances need; a convolution with float weights they compute in float.
    """
    weight = stage.new_full((stage.shape[1], 1, 3, 3), 1.0 / 9.0)
    return functional.conv2d(stage, weight, padding=1, groups=stage.shape[1])


def _drawn(stages: Iterator[tuple[torch.Tensor, ...]], limit: int, seed: int) -> torch.Tensor:
    """At most ``limit`` patches `(M, C)`, each as likely as any other, in memory that does not follow the pictures."""
    random = torch.Generator().manual_seed(seed + 1)
    kept, lots = torch.empty(0), torch.empty(0)
    for maps in stages:
        rows = _joined(maps).movedim(1, -1).flatten(0, 2)
        kept = torch.cat([kept.reshape(-1, rows.shape[1]), rows])
        lots = torch.cat([lots, torch.rand(len(rows), generator=random)])
        if len(kept) > 2 * limit:
            best = lots.topk(limit).indices
            kept, lots = kept[best], lots[best]
    best = lots.topk(min(limit, len(lots))).indices
    return kept[best]
