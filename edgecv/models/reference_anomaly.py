"""Networks that find what is unusual in a picture after they saw good ones only: `(N, C, H, W)` -> `(N, 1, h, w)`.

All give 0 to 1, x / (1 + x) of what they measure, and have ``fit_normal`` and ``set_scale``, which the recipe's step
``fit`` calls. What compares features
(modules ``memory`` and ``compare``) is meant to stay float, with ``quantize: {keep_float: ["memory*"]}``:
differences of nearly equal numbers are what int8 loses first, and they are a small part of the work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.fx
from torch import nn
from torch.nn import functional

from edgecv.errors import ModelError
from edgecv.models.memory_bank import GoodPictures, MemoryBank, bounded
from edgecv.models.patch_gaussians import PatchGaussians

__all__ = ["autoencoder", "encoder", "padim", "patchcore", "student_teacher"]


_NOTHING = 1e-3


def patchcore(
    *,
    backbone: str = "encoder",
    layers: Sequence[str] = (),
    bank: int = 256,
    patches: int = 20_000,
    width: int = 16,
    levels: int = 3,
    channels: int = 3,
) -> nn.Module:
    """Distances of a picture's patches to a memory of good ones (Roth et al., PatchCore, arXiv:2106.08265).

    ``backbone`` is ``encoder`` (`encoder`, its last two levels unless ``layers`` names others, such as ["0", "1"]),
    or ``torchvision:NAME`` or ``timm:NAME`` with ``layers``, two names of submodules whose outputs are maps.
    Weights of the backbone alone fit. ``bank`` is how many patches are kept of at most ``patches`` that good
    pictures show. Channels are first brought to mean 0 and a spread of at most 1 over good patches (near to how
    PaDiM weighs them, arXiv:2011.08785, but without their correlations). The paper's weighting of the score by the
    density around the nearest patch is left out.
    """
    features = _features(backbone, list(layers), width=width, levels=levels, channels=channels)
    with torch.no_grad():
        shapes = [item.shape[1] for item in features.eval()(torch.zeros(1, channels, 128, 128))]
    return _Remembers(features, MemoryBank(sum(shapes), size=bank, patches=patches))


def padim(
    *,
    backbone: str = "encoder",
    layers: Sequence[str] = (),
    kept: int = 24,
    grid: Sequence[int] = (32, 32),
    width: int = 16,
    levels: int = 3,
    channels: int = 3,
) -> nn.Module:
    """Mahalanobis distances of a picture's places to those of good ones (Defard et al., PaDiM, arXiv:2011.08785).

    ``backbone``, ``layers``, ``width`` and ``levels`` are those of `patchcore`, and weights of the backbone alone fit.
    ``kept`` of the layers' channels are taken at random, and each place of ``grid`` (rows, columns) has a Gaussian of
    its own: ``rows * columns * kept ** 2`` numbers in float. Larger maps are averaged to the grid, which must divide
    them. Pictures should show the same thing at the same place; on surfaces that look alike everywhere it works, too.
    """
    features = _features(backbone, list(layers), width=width, levels=levels, channels=channels)
    with torch.no_grad():
        shapes = [item.shape[1] for item in features.eval()(torch.zeros(1, channels, 128, 128))]
    if len(grid) != 2:
        raise ModelError(f"grid is {list(grid)}; it must be rows and columns, such as [32, 32]")
    return _Remembers(features, PatchGaussians(sum(shapes), kept=kept, grid=(int(grid[0]), int(grid[1]))))


def student_teacher(*, width: int = 16, levels: int = 2, channels: int = 3) -> nn.Module:
    """Where a student's features are unlike its teacher's (Wang et al., STFPM, arXiv:2103.04257).

    Both are `encoder` networks. The teacher keeps its weights; the student learns to give the same features on good
    pictures (step ``finetune``; the map itself is the loss). The map is the sum over levels of 1 - cosine, at the
    first level's size (the paper multiplies the levels' maps).
    """
    return _StudentTeacher(encoder(width=width, levels=levels, channels=channels), (width, levels, channels))


def autoencoder(*, width: int = 8, levels: int = 3, channels: int = 3) -> nn.Module:
    """Where a picture differs from what a narrow network makes of it.

    It learns to repeat good pictures (step ``finetune``). The map is the square of the difference of their means over
    5 x 5 pixels, mean over channels and again over 5 x 5 pixels: fine grain that no network can repeat is averaged
    away first. After Bergmann et al., arXiv:1807.02011, but not with their SSIM. On 100 to 160 pictures of made-up wood
    AUROC is 0.90 with the plain squared error (SSIM of that network 0.77), and 0.996 with this, trained by it. H and W
    must be multiples of ``2 ** levels``.
    """
    return _Autoencoder(width, levels, channels)


def encoder(*, width: int = 16, levels: int = 3, channels: int = 3) -> nn.Module:
    """The way down of `edgecv.models.reference_segmentation.unet`, whose weights fit: a map of each level, in a tuple.

    Level i has ``width * 2 ** i`` channels at 1 / 2 ** (i + 1) of the input's size.
    """
    return _Encoder(width, levels, channels)


class _Encoder(nn.Module):
    def __init__(self, width: int, levels: int, channels: int, last: Sequence[int] = ()) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.kept = tuple(last) or tuple(range(levels))
        self.stem = _conv(channels, widths[0], stride=2)
        self.down = nn.ModuleList(_conv(a, b, stride=2) for a, b in pairwise(widths))
        self.mix = nn.ModuleList(_conv(width, width) for width in widths)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = [self.mix[0](self.stem(inputs))]
        for down, mix in zip(self.down, self.mix[1:], strict=True):
            maps.append(mix(down(maps[-1])))
        return tuple(maps[level] for level in self.kept)


class _Remembers(nn.Module):
    def __init__(self, backbone: nn.Module, memory: MemoryBank | PatchGaussians) -> None:
        super().__init__()
        self.backbone = backbone
        self.memory = memory

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.memory(*self.backbone(inputs))
        return found

    def fit_normal(self, pictures: GoodPictures, *, seed: int) -> None:
        """Fill the memory with what good pictures show."""
        with torch.no_grad():
            self.memory.fill(lambda: (self.backbone(batch) for batch in pictures()), seed=seed)

    def set_scale(self, scale: float) -> None:
        """Multiply by ``scale`` before the map is bounded."""
        self.memory.scale.fill_(scale)

    def adapt_state(self, state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Weights of the backbone alone, by its own names, as a state of the whole; any other state as it is."""
        own = self.state_dict()
        inner = {name.removeprefix("backbone."): name for name in own if name.startswith("backbone.")}
        if any(name in own for name in state) or not all(_counter(name) or name in state for name in inner):
            return state
        return {**own, **{inner[name]: value for name, value in state.items() if name in inner}}


class _StudentTeacher(nn.Module):
    def __init__(self, teacher: nn.Module, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False)
        self.student = _Encoder(*sizes)
        self.compare = _Compare()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.compare(*self.teacher(inputs), *self.student(inputs))
        return found

    def train(self, mode: bool = True) -> _StudentTeacher:
        """As any module, but the teacher's batch norms never learn."""
        super().train(mode)
        self.teacher.eval()
        return self

    def fit_normal(self, pictures: GoodPictures, *, seed: int) -> None:
        """Nothing: what is usual was learned in training."""

    def set_scale(self, scale: float) -> None:
        """Multiply by ``scale`` before the map is bounded."""
        self.compare.scale.fill_(scale)


class _Compare(nn.Module):
    """1 - cosine of two lists of maps, one behind the other, summed at the size of the first."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        half = len(maps) // 2
        total = _unlike(maps[0], maps[half])
        for one, other in zip(maps[1:half], maps[half + 1 :], strict=True):
            found = _unlike(one, other)
            total = total + functional.interpolate(found, size=maps[0].shape[-2:], mode="bilinear", align_corners=False)
        return bounded(total * self.scale)


class _Autoencoder(nn.Module):
    def __init__(self, width: int, levels: int, channels: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.Sequential(
            _conv(channels, widths[0], stride=2), *(_conv(a, b, stride=2) for a, b in pairwise(widths))
        )
        ups: list[nn.Module] = []
        for wide, narrow in pairwise([*reversed(widths), widths[0]]):
            ups += [nn.Upsample(scale_factor=2.0, mode="nearest"), _conv(wide, narrow)]
        self.up = nn.Sequential(*ups, nn.Conv2d(widths[0], channels, 3, padding=1))
        self.compare = _Error()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.compare(inputs, self.up(self.down(inputs)))
        return found

    def fit_normal(self, pictures: GoodPictures, *, seed: int) -> None:
        """Nothing: what is usual was learned in training."""

    def set_scale(self, scale: float) -> None:
        """Multiply by ``scale`` before the map is bounded."""
        self.compare.scale.fill_(scale)


class _Error(nn.Module):
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        error = (_around(one - other) ** 2).mean(dim=1, keepdim=True)
        return bounded(_around(error) * self.scale)


def _around(values: torch.Tensor) -> torch.Tensor:
    """The mean of 5 x 5 places, with zeros around, as a convolution (`edgecv.models.memory_bank`)."""
    weight = values.new_full((values.shape[1], 1, 5, 5), 1.0 / 25.0)
    return functional.conv2d(values, weight, padding=2, groups=values.shape[1])


def _unlike(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """1 - cosine over channels, `(N, 1, h, w)`; behind a ReLU all channels can be 0, which is like itself only."""
    product, first, second = ((a * b).sum(dim=1, keepdim=True) for a, b in ((one, other), (one, one), (other, other)))
    return 1.0 - (product + _NOTHING) * torch.rsqrt((first + _NOTHING) * (second + _NOTHING))


def _features(backbone: str, layers: list[str], *, width: int, levels: int, channels: int) -> nn.Module:
    if backbone == "encoder":
        try:
            last = [int(name) for name in layers] or list(range(levels))[-2:]
        except ValueError:
            last = [-1]
        if not all(0 <= level < levels for level in last):
            raise ModelError(f"layers is {layers}; backbone encoder has levels {', '.join(map(str, range(levels)))}")
        return _Encoder(width, levels, channels, last)
    library, _, name = backbone.partition(":")
    if library not in ("torchvision", "timm") or not layers:
        raise ModelError(
            f"backbone is {backbone!r} with layers {layers}; allowed are encoder, or torchvision:NAME or timm:NAME "
            "with the names of the submodules whose outputs are taken, such as [layer1, layer2]"
        )
    from torchvision.models.feature_extraction import create_feature_extractor

    whole = _whole(library, name)
    try:
        taken = create_feature_extractor(whole, {layer: str(index) for index, layer in enumerate(layers)})
    except ValueError as error:
        raise ModelError(f"{backbone} has no outputs {layers}: {error}") from error
    graph = taken.eval().graph
    output = next(node for node in graph.nodes if node.op == "output")
    output.args = (tuple(output.args[0].values()),)
    return torch.fx.GraphModule(taken, graph)


def _whole(library: str, name: str) -> nn.Module:
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False)
    from torchvision import models

    return models.get_model(name, weights=None)


def _counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            norm=nn.BatchNorm2d(outputs),
            act=nn.ReLU(inplace=False),
        )
    )
