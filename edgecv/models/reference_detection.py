"""Small detectors in the manner of YOLOX and YOLO11, quick to train on a CPU and made of what all targets compute.

Written from the papers and from the published layouts of the outputs; names of layers are our own, so weights of other
projects do not fit.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

__all__ = ["yolo11_end2end", "yolo11_like", "yolox_like"]

Act = Literal["relu", "silu"]
STRIDES = (8, 16, 32)
WIDTHS = (8, 16, 24, 32, 32)
_FEW = 0.02
"""How sure of an object a new network is everywhere, so that the many empty cells do not drown the rest (RetinaNet,
Lin et al., arXiv:1708.02002)."""


def yolo11_like(
    *,
    num_classes: int = 80,
    size: tuple[int, int] = (160, 192),
    widths: tuple[int, ...] = WIDTHS,
    reg_max: int = 8,
    act: Act = "relu",
) -> nn.Module:
    """Boxes without anchors: `(N, 3, H, W)` float32 -> `(N, 4 + num_classes, M)`, the head ``yolo``.

    Rows are centre x, centre y, width and height in pixels, then a probability for each class. Split blocks with
    bottlenecks, pooling of three sizes before the neck, a path of features up and down, separate branches for boxes
    and classes (depthwise there), box sides as the mean of a distribution over ``reg_max`` distances (X. Li et al.,
    arXiv:2006.04388): the parts of YOLOv8 to YOLO11. ``size`` (height, width) are multiples of 32 and fixed, since the
    places of the cells are constants of the graph; ``widths`` are the channels at strides 2 to 32.
    """
    return _Yolo11(num_classes, _checked(size), _five(widths), reg_max, act)


def yolo11_end2end(
    *,
    num_classes: int = 80,
    size: tuple[int, int] = (160, 192),
    widths: tuple[int, ...] = WIDTHS,
    reg_max: int = 8,
    act: Act = "relu",
    objects: int = 100,
) -> nn.Module:
    """`yolo11_like` with the best ``objects`` rows picked inside: `(N, objects, 6)`, the head ``yolo-end2end``.

    Rows are x1, y1, x2, y2 in pixels, score and class, best first. Weights are those of a `yolo11_like` that was
    trained with one cell for each object (option ``assign: one`` of the head ``yolo``; YOLOv10, Wang et al.,
    arXiv:2405.14458), as such a network needs no suppression. Fewer rows where there are fewer cells.
    """
    return _End2End(num_classes, _checked(size), _five(widths), reg_max, act, objects)


def yolox_like(
    *, num_classes: int = 80, widths: tuple[int, ...] = WIDTHS, act: Act = "relu", channels: int = 3
) -> nn.Module:
    """Boxes in cells: `(N, channels, H, W)` float32 -> `(N, M, 5 + num_classes)`, the head ``yolox``.

    Rows are the middle in cells from the cell's corner, the logarithms of width and height in cells, then objectness
    and classes as probabilities. Cross-stage blocks, a path of features up and down, and a head whose branches for
    classes and boxes are apart (Ge et al., YOLOX, arXiv:2107.08430). H and W are multiples of 32.
    """
    return _YoloX(num_classes, _five(widths), act, channels)


class _Yolo11(nn.Module):
    """The network; `rows` are its answers before their layout."""

    def __init__(self, classes: int, size: tuple[int, int], widths: tuple[int, ...], reg_max: int, act: Act) -> None:
        super().__init__()
        self.trunk = _Trunk(3, widths, act)
        wide = max(16, 4 * reg_max // 2)
        self.boxes = nn.ModuleList(
            nn.Sequential(_conv(width, wide, act=act), _conv(wide, wide, act=act), nn.Conv2d(wide, 4 * reg_max, 1))
            for width in widths[2:]
        )
        self.classes = nn.ModuleList(
            nn.Sequential(_apart(width, widths[2], act), _apart(widths[2], widths[2], act), _sure(widths[2], classes))
            for width in widths[2:]
        )
        self.reg_max = reg_max
        cells = [_cells(size, stride) for stride in STRIDES]
        self.register_buffer("centres", torch.cat([cell[0] for cell in cells], dim=1)[None], persistent=False)
        self.register_buffer("strides", torch.cat([cell[1] for cell in cells])[None, None], persistent=False)
        self.register_buffer("places", torch.arange(reg_max).float().reshape(1, 1, -1, 1), persistent=False)

    def rows(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Distances to the left and top, to the right and bottom, in pixels `(N, 2, M)`, and scores `(N, C, M)`."""
        maps = self.trunk(inputs)
        sides = torch.cat([head(item).flatten(2) for head, item in zip(self.boxes, maps, strict=True)], dim=2)
        logits = torch.cat([head(item).flatten(2) for head, item in zip(self.classes, maps, strict=True)], dim=2)
        if self.reg_max > 1:
            spread = sides.reshape(sides.shape[0], 4, self.reg_max, sides.shape[2]).softmax(dim=2)
            away = (spread * self.get_buffer("places")).sum(dim=2)
        else:
            away = functional.relu(sides)
        away = away * self.get_buffer("strides")
        return away[:, :2], away[:, 2:], logits.sigmoid()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        before, after, scores = self.rows(inputs)
        middles = self.get_buffer("centres") + (after - before) / 2
        return torch.cat([middles, before + after, scores], dim=1)


class _End2End(_Yolo11):
    """Rows picked by their best score, which every engine can do: a top-k and a gather."""

    def __init__(
        self,
        classes: int,
        size: tuple[int, int],
        widths: tuple[int, ...],
        reg_max: int,
        act: Act,
        objects: int,
    ) -> None:
        super().__init__(classes, size, widths, reg_max, act)
        self.objects = min(objects, self.get_buffer("strides").shape[2])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        before, after, scores = self.rows(inputs)
        centres = self.get_buffer("centres")
        best, kinds = scores.max(dim=1, keepdim=True)
        found = torch.cat([centres - before, centres + after, best, kinds.to(best.dtype)], dim=1).transpose(1, 2)
        order = best[:, 0].topk(self.objects, dim=1).indices
        return found.gather(1, order[:, :, None].expand(-1, -1, 6))


class _YoloX(nn.Module):
    def __init__(self, classes: int, widths: tuple[int, ...], act: Act, channels: int) -> None:
        super().__init__()
        self.trunk = _Trunk(channels, widths, act)
        wide = widths[2]
        self.stems = nn.ModuleList(_conv(width, wide, kernel=1, act=act) for width in widths[2:])
        self.for_classes, self.for_boxes = (
            nn.ModuleList(nn.Sequential(_apart(wide, wide, act), _apart(wide, wide, act)) for _ in widths[2:])
            for _ in range(2)
        )
        self.boxes = nn.ModuleList(nn.Conv2d(wide, 4, 1) for _ in widths[2:])
        self.objects = nn.ModuleList(_sure(wide, 1) for _ in widths[2:])
        self.classes = nn.ModuleList(_sure(wide, classes) for _ in widths[2:])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = []
        for index, item in enumerate(self.trunk(inputs)):
            shared = self.stems[index](item)
            named, placed = self.for_classes[index](shared), self.for_boxes[index](shared)
            scores = torch.cat([self.objects[index](placed), self.classes[index](named)], dim=1).sigmoid()
            rows.append(torch.cat([self.boxes[index](placed), scores], dim=1).flatten(2))
        return torch.cat(rows, dim=2).transpose(1, 2)


class _Trunk(nn.Module):
    """Features at strides 8, 16 and 32, each of which has seen the others (PANet, Liu et al., arXiv:1803.01534)."""

    def __init__(self, channels: int, widths: tuple[int, ...], act: Act) -> None:
        super().__init__()
        _, _, eighth, sixteenth, last = widths
        self.stem = _conv(channels, widths[0], stride=2, act=act)
        self.two = nn.Sequential(_conv(widths[0], widths[1], stride=2, act=act), _Split(widths[1], widths[1], act))
        self.three = nn.Sequential(_conv(widths[1], eighth, stride=2, act=act), _Split(eighth, eighth, act))
        self.four = nn.Sequential(_narrow(eighth, sixteenth, act), _Split(sixteenth, sixteenth, act))
        self.five = nn.Sequential(_narrow(sixteenth, last, act), _Split(last, last, act), _Pools(last, act))
        self.up_four = _Split(last + sixteenth, sixteenth, act)
        self.up_three = _Split(sixteenth + eighth, eighth, act)
        self.down_four = _narrow(eighth, eighth, act)
        self.out_four = _Split(eighth + sixteenth, sixteenth, act)
        self.down_five = _narrow(sixteenth, sixteenth, act)
        self.out_five = _Split(sixteenth + last, last, act)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        three = self.three(self.two(self.stem(inputs)))
        four = self.four(three)
        five = self.five(four)
        four = self.up_four(torch.cat([_twice(five), four], dim=1))
        three = self.up_three(torch.cat([_twice(four), three], dim=1))
        four = self.out_four(torch.cat([self.down_four(three), four], dim=1))
        five = self.out_five(torch.cat([self.down_five(four), five], dim=1))
        return three, four, five


class _Split(nn.Module):
    """Half of the features as they are, half through a bottleneck, all joined (CSPNet, Wang et al., arXiv:1911.11929;
    every stage of the second half is kept, as in ELAN, arXiv:2211.04800).
    """

    def __init__(self, inputs: int, outputs: int, act: Act) -> None:
        super().__init__()
        half = outputs // 2
        self.keep = _conv(inputs, half, kernel=1, act=act)
        self.enter = _conv(inputs, half, kernel=1, act=act)
        self.one = _conv(half, half // 2, act=act)
        self.two = _conv(half // 2, half, act=act)
        self.join = _conv(3 * half, outputs, kernel=1, act=act)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        entered = self.enter(inputs)
        deep = entered + self.two(self.one(entered))
        return self.join(torch.cat([self.keep(inputs), entered, deep], dim=1))


class _Pools(nn.Module):
    """The largest of 5, 9 and 13 neighbours, each from the one before (He et al., arXiv:1406.4729, made fast)."""

    def __init__(self, width: int, act: Act) -> None:
        super().__init__()
        self.enter = _conv(width, width // 2, kernel=1, act=act)
        self.join = _conv(4 * (width // 2), width, kernel=1, act=act)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found = [self.enter(inputs)]
        for _ in range(3):
            found.append(functional.max_pool2d(found[-1], 5, 1, 2))
        return self.join(torch.cat(found, dim=1))


def _twice(features: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


def _narrow(inputs: int, outputs: int, act: Act) -> nn.Sequential:
    """Half the size: channels first, then space (YOLOv10)."""
    return nn.Sequential(_conv(inputs, outputs, kernel=1, act=act), _conv(outputs, outputs, stride=2, groups=outputs))


def _apart(inputs: int, outputs: int, act: Act) -> nn.Sequential:
    """A depthwise and a pointwise convolution."""
    return nn.Sequential(_conv(inputs, inputs, groups=inputs, act=act), _conv(inputs, outputs, kernel=1, act=act))


def _sure(inputs: int, outputs: int) -> nn.Conv2d:
    """The last layer of scores, which begins with few objects."""
    layer = nn.Conv2d(inputs, outputs, 1)
    nn.init.constant_(layer.get_parameter("bias"), float(torch.tensor(_FEW).logit()))
    return layer


def _conv(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, act: Act | None = None
) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        norm=nn.BatchNorm2d(outputs),
    )
    if act is not None:
        layers["act"] = nn.ReLU(inplace=False) if act == "relu" else nn.SiLU(inplace=False)
    return nn.Sequential(layers)


def _cells(size: tuple[int, int], stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres in pixels `(2, M)` and strides `(M,)` of the cells of one map, row by row."""
    rows, columns = torch.meshgrid(torch.arange(size[0] // stride), torch.arange(size[1] // stride), indexing="ij")
    centres = (torch.stack([columns, rows]).flatten(1).float() + 0.5) * stride
    return centres, torch.full((centres.shape[1],), float(stride))


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    """``size`` as it is.

    Raises:
        ValueError: a side is no multiple of 32.
    """
    height, width = (int(side) for side in size)
    if height < STRIDES[-1] or width < STRIDES[-1] or height % STRIDES[-1] or width % STRIDES[-1]:
        raise ValueError(f"size is {list(size)}; height and width must be multiples of {STRIDES[-1]}")
    return height, width


def _five(widths: tuple[int, ...]) -> tuple[int, ...]:
    if len(widths) != 5 or any(width < 4 or width % 4 for width in widths):
        raise ValueError(f"widths are {list(widths)}; five multiples of 4 are needed, for strides 2, 4, 8, 16 and 32")
    return tuple(widths)
