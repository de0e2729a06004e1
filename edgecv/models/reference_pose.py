"""Small networks for keypoints, quick to train on a CPU and made of what all targets compute in int8."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.mobilenetv2 import InvertedResidual

from edgecv.models.reference_instance import cell_centres

__all__ = ["HalvingBlock", "conv_norm", "face_landmarks", "simcc_pose", "simple_pose", "yolo_pose"]

_STRIDE = 8


def simple_pose(
    *, keypoints: int = 17, widths: tuple[int, ...] = (16, 24, 32, 40), neck: int = 28, channels: int = 3
) -> nn.Module:
    """Keypoints of one person: `(N, channels, H, W)` float32 -> maps `(N, keypoints, H / 4, W / 4)`.

    SimpleBaseline (Xiao, Wu, Wei, arXiv:1804.06208) made small: residual blocks (He et al., arXiv:1512.03385) down to
    the last of ``widths``, each of which halves the size, then up again. Instead of transposed convolutions, maps are
    enlarged by repeating pixels (which keeps their int8 scale) and added to the finer ones, all ``neck`` channels
    wide (Lin et al., arXiv:1612.03144). H and W are multiples of ``2 ** len(widths)``. As it is by default, it has
    72,000 parameters.
    """
    return _SimplePose(keypoints, tuple(widths), neck, channels)


class _SimplePose(nn.Module):
    def __init__(self, keypoints: int, widths: tuple[int, ...], neck: int, channels: int) -> None:
        super().__init__()
        self.stem = conv_norm(channels, widths[0], stride=2)
        self.down = nn.ModuleList(HalvingBlock(one, two) for one, two in pairwise(widths))
        # The maps from a quarter of the input's size on, the coarsest one last.
        self.across = nn.ModuleList(conv_norm(width, neck, kernel=1, act=False) for width in widths[1:])
        self.mix = nn.ModuleList(conv_norm(neck, neck) for _ in widths[2:])
        self.head = nn.Conv2d(neck, keypoints, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features, kept = self.stem(inputs), []
        for down, across in zip(self.down, self.across, strict=True):
            features = down(features)
            kept.append(across(features))
        merged = kept[-1]
        for mix, beside in zip(reversed(self.mix), reversed(kept[:-1]), strict=True):
            wide = functional.interpolate(merged, scale_factor=2.0, mode="nearest")
            merged = mix(functional.relu(wide + beside))
        return self.head(merged)


def yolo_pose(
    *, keypoints: int = 17, widths: tuple[int, ...] = (16, 32, 48, 64), neck: int = 48, channels: int = 3
) -> nn.Module:
    """Persons and their keypoints: `(N, channels, H, W)` float32 -> rows `(N, 5 + 3K, H / 8 * W / 8)`, head yolo-pose.

    YOLO-Pose (Maji et al., arXiv:2204.06806) made small: an anchor-free detector with one map at an eighth of the
    input's size, into which the coarsest one is added, and beside each box ``keypoints`` = K points. A row is the box's
    centre and size in pixels of the input, its score 0..1, then x, y in pixels and the score of each keypoint. There
    are four ``widths``, down to a sixteenth; H and W are multiples of 16. As it is by default, it has 169,000
    parameters.
    """
    return _YoloPose(keypoints, tuple(widths), neck, channels)


class _YoloPose(nn.Module):
    def __init__(self, keypoints: int, widths: tuple[int, ...], neck: int, channels: int) -> None:
        super().__init__()
        self.stem = conv_norm(channels, widths[0], stride=2)
        self.down = nn.ModuleList(HalvingBlock(one, two) for one, two in pairwise(widths))
        self.fine = conv_norm(widths[-2], neck, kernel=1, act=False)
        self.coarse = conv_norm(widths[-1], neck, kernel=1, act=False)
        self.boxes = conv_norm(neck, neck)
        self.points = conv_norm(neck, neck)
        self.sides = nn.Conv2d(neck, 4, 1)
        self.score = nn.Conv2d(neck, 1, 1)
        self.across = nn.Conv2d(neck, keypoints, 1)
        self.along = nn.Conv2d(neck, keypoints, 1)
        self.seen = nn.Conv2d(neck, keypoints, 1)
        nn.init.constant_(self.sides.get_parameter("bias"), 2.0)
        nn.init.constant_(self.score.get_parameter("bias"), -4.0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.stem(inputs)
        for down in self.down[:-1]:
            features = down(features)
        wide = functional.interpolate(self.coarse(self.down[-1](features)), scale_factor=2.0, mode="nearest")
        merged = functional.relu(wide + self.fine(features))
        beside, pointed = self.boxes(merged), self.points(merged)
        sides = functional.relu(self.sides(beside))
        centres = cell_centres(sides, _STRIDE)
        low, high = centres - sides[:, :2] * _STRIDE, centres + sides[:, 2:] * _STRIDE
        x = self.across(pointed) * _STRIDE + centres[:, :1]
        y = self.along(pointed) * _STRIDE + centres[:, 1:]
        triples = torch.stack([x, y, self.seen(pointed).sigmoid()], dim=2).flatten(1, 2)
        return torch.cat([(low + high) / 2, high - low, self.score(beside).sigmoid(), triples], dim=1).flatten(2)


def simcc_pose(
    *,
    keypoints: int = 17,
    height: int = 128,
    width: int = 96,
    splitting: float = 2.0,
    widths: tuple[int, ...] = (16, 24, 48, 64),
    channels: int = 3,
) -> nn.Module:
    """Keypoints of one person: `(N, channels, height, width)` float32 -> logits of bins, head simcc.

    Two outputs, `(N, keypoints, width * splitting)` and `(N, keypoints, height * splitting)`: a bin is 1 /
    ``splitting`` of a pixel wide, and each axis is a classification of its own (SimCC: Li et al., arXiv:2107.03332).
    There are no maps to enlarge: behind the residual blocks, each keypoint has one coarse map, whose cells two linear
    layers, shared by all keypoints, turn into bins. ``height`` and ``width`` are multiples of ``2 ** len(widths)``. As
    it is by default, it has 133,000 parameters.

    Raises:
        ValueError: the size does not halve so often, or ``splitting`` gives no whole number of bins.
    """
    stride = 2 ** len(widths)
    if height % stride or width % stride:
        raise ValueError(f"height and width are {height} and {width}; multiples of {stride} are needed")
    bins = (width * splitting, height * splitting)
    if splitting <= 0 or any(count != int(count) for count in bins):
        raise ValueError(f"splitting is {splitting}: {bins[0]} and {bins[1]} bins; whole numbers above 0 are needed")
    cells = (height // stride) * (width // stride)
    return _SimccPose(keypoints, tuple(widths), cells, (int(bins[0]), int(bins[1])), channels)


class _SimccPose(nn.Module):
    def __init__(
        self, keypoints: int, widths: tuple[int, ...], cells: int, bins: tuple[int, int], channels: int
    ) -> None:
        super().__init__()
        self.stem = conv_norm(channels, widths[0], stride=2)
        self.down = nn.Sequential(*(HalvingBlock(one, two) for one, two in pairwise(widths)))
        self.points = nn.Conv2d(widths[-1], keypoints, 1)
        self.across = nn.Linear(cells, bins[0])
        self.along = nn.Linear(cells, bins[1])

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.points(self.down(self.stem(inputs))).flatten(2)
        return self.across(maps), self.along(maps)


def face_landmarks(
    *,
    keypoints: int = 68,
    height: int = 112,
    width: int = 112,
    widths: tuple[int, ...] = (16, 24, 32, 64),
    expand: int = 2,
    features: int = 128,
    channels: int = 3,
) -> nn.Module:
    """Landmarks of one face: `(N, channels, height, width)` float32 -> `(N, 2 * keypoints)`, head regression.

    x and y of each landmark in turn, as shares of the input's sides. PFLD (Guo et al., arXiv:1902.10859) made small:
    the inverted residuals of MobileNetV2 (Sandler et al., arXiv:1801.04381), each of ``widths`` at half the size of the
    one before, and a linear layer over three scales: the means of the last two maps, and ``features`` values of a
    convolution as large as the last map, which knows where things are. ``height`` and ``width`` are multiples of ``2 **
    len(widths)``. As it is by default, it has 471,000 parameters.

    Raises:
        ValueError: the size does not halve so often, or there are fewer than two widths.
    """
    stride = 2 ** len(widths)
    if len(widths) < 2:
        raise ValueError(f"widths are {widths}; at least two are needed")
    if height % stride or width % stride:
        raise ValueError(f"height and width are {height} and {width}; multiples of {stride} are needed")
    return _FaceLandmarks(keypoints, tuple(widths), (height // stride, width // stride), expand, features, channels)


class _FaceLandmarks(nn.Module):
    def __init__(
        self, keypoints: int, widths: tuple[int, ...], last: tuple[int, int], expand: int, features: int, channels: int
    ) -> None:
        super().__init__()
        self.stem = conv_norm(channels, widths[0], stride=2)
        self.down = nn.ModuleList(
            nn.Sequential(InvertedResidual(one, two, 2, expand), InvertedResidual(two, two, 1, expand))
            for one, two in pairwise(widths)
        )
        self.whole = nn.Sequential(nn.Conv2d(widths[-1], features, last), nn.ReLU(inplace=False))
        self.head = nn.Linear(widths[-2] + widths[-1] + features, 2 * keypoints)
        nn.init.constant_(self.head.get_parameter("bias"), 0.5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        coarse = fine = self.stem(inputs)
        for down in self.down:
            fine, coarse = coarse, down(coarse)
        scales = [functional.adaptive_avg_pool2d(fine, 1), functional.adaptive_avg_pool2d(coarse, 1)]
        return self.head(torch.cat([*scales, self.whole(coarse)], dim=1).flatten(1))


class HalvingBlock(nn.Module):
    """Two convolutions beside a 1x1 one; the first halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one = conv_norm(inputs, outputs, stride=2)
        self.two = conv_norm(outputs, outputs, act=False)
        self.beside = conv_norm(inputs, outputs, kernel=1, stride=2, act=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.two(self.one(inputs)) + self.beside(inputs))


def conv_norm(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, act: bool = True) -> nn.Sequential:
    """A convolution that keeps the size (or halves it, with ``stride`` 2), batch norm and, with ``act``, ReLU."""
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        norm=nn.BatchNorm2d(outputs),
    )
    if act:
        layers["act"] = nn.ReLU(inplace=False)
    return nn.Sequential(layers)
