"""Small detectors out of torchvision's parts, quick to train on a CPU: SSD, RetinaNet, FCOS and one like FastestDet.

Each gives raw tensors as the heads ``ssd``, ``retinanet``, ``fcos`` (`edgecv.models.detector_graphs`) and
``fastestdet`` read them, for colour pictures `(N, 3, H, W)` float32. What the head's options have to say stands in
`SSD_OPTIONS`, `RETINANET_OPTIONS` and `FCOS_OPTIONS`, for pictures of 160 x 192 with objects of 15 to 70 pixels. Rows
are those of all maps, the finest first. But for FastestDet, ``num_classes`` counts the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgecv.models.detector_graphs import raw_detector

__all__ = [
    "FCOS_OPTIONS",
    "RETINANET_OPTIONS",
    "SSD_OPTIONS",
    "small_fastestdet",
    "small_fcos",
    "small_retinanet",
    "small_ssd",
    "strided_body",
]

WIDTHS = (16, 24, 32, 48, 64)
"""Channels at strides 2, 4, 8, 16 and 32."""
STRIDES = (8, 16, 32)
_PYRAMID = 32
SSD_OPTIONS: dict[str, Any] = {
    "feature_maps": [[20, 24], [10, 12], [5, 6]],
    "scales": [0.14, 0.21, 0.31, 0.45],
    "aspect_ratios": [[2]] * 3,
    "multi_label": True,
}
RETINANET_OPTIONS: dict[str, Any] = {
    "strides": [*STRIDES],
    "sizes": [[20, 26], [32, 39], [47, 58]],
    "aspect_ratios": [1.0, 1.7, 2.8],
}
FCOS_OPTIONS: dict[str, Any] = {"strides": [*STRIDES]}


def small_ssd(*, num_classes: int, widths: Sequence[int] = WIDTHS, lite: bool = True) -> nn.Module:
    """SSD on the maps of strides 8 to 32: offsets `(N, 2520, 4)` and logits. Input 160 x 192.

    The heads are depthwise, as those of SSDLite; with ``lite`` false each is one whole convolution, as first published.
    W. Liu et al., arXiv:1512.02325; M. Sandler et al., "MobileNetV2", arXiv:1801.04381, section 6.2.
    """
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD, SSDHead
    from torchvision.models.detection.ssdlite import SSDLiteHead

    backbone = IntermediateLayerGetter(strided_body(widths, convs=2), {"2": "0", "3": "1", "4": "2"})
    priors = DefaultBoxGenerator(SSD_OPTIONS["aspect_ratios"], scales=SSD_OPTIONS["scales"])
    kinds = partial(SSDLiteHead, norm_layer=partial(nn.BatchNorm2d, momentum=0.03)) if lite else SSDHead
    head = kinds([*widths[2:]], priors.num_anchors_per_location(), num_classes)
    return raw_detector(SSD(backbone, priors, (160, 192), num_classes, head=head), options={}, source="")


def small_retinanet(*, num_classes: int, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """RetinaNet: a feature pyramid and one head without norms for its three levels; offsets `(N, P, 4)` and logits.

    T.-Y. Lin et al., arXiv:1708.02002. So narrow a head would be mute with the published first weights (normal, 0.01):
    its hidden layers begin with those of K. He et al., arXiv:1502.01852.
    """
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    ratios = tuple(RETINANET_OPTIONS["aspect_ratios"])
    sizes = tuple(tuple(sides) for sides in RETINANET_OPTIONS["sizes"])
    network = RetinaNet(_pyramid(widths), num_classes, anchor_generator=AnchorGenerator(sizes, (ratios,) * len(sizes)))
    for part in (network.head.classification_head, network.head.regression_head):
        for layer in part.conv.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return raw_detector(network, options={}, source="")


def small_fcos(*, num_classes: int, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """FCOS: a feature pyramid and one head with group norms; distances `(N, P, 4)`, logits, centre-ness `(N, P, 1)`.

    Z. Tian et al., arXiv:1904.01355.
    """
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOSHead

    points = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
    head = FCOSHead(_PYRAMID, 1, num_classes, num_convs=2)
    network = FCOS(_pyramid(widths), num_classes, anchor_generator=points, head=head)
    return raw_detector(network, options={}, source="")


def small_fastestdet(*, num_classes: int, widths: Sequence[int] = (16, 32, 64)) -> nn.Module:
    """Like FastestDet: one map `(N, 5 + num_classes, H / 16, W / 16)` of objectness, box and classes. Here
    ``num_classes`` counts the objects only.

    A body of ShuffleNetV2's units (N. Ma et al., arXiv:1807.11164), ``widths`` (even) at strides 8, 16 and 32, whose
    maps meet at stride 16; depthwise 5 x 5 convolutions see one, two and three rings of neighbours, and the head makes
    each of its three parts with one more (github.com/dog-qiuqiu/FastestDet). H and W are multiples of 32.
    """
    return _FastestDet(num_classes, widths)


class _FastestDet(nn.Module):
    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        from torchvision.models.shufflenetv2 import InvertedResidual

        super().__init__()
        first = 16
        self.stem = nn.Sequential(_unit(3, first, kernel=3, stride=2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList(
            nn.Sequential(InvertedResidual(before, width, 2), InvertedResidual(width, width, 1))
            for before, width in zip((first, *widths), widths, strict=False)
        )
        wide = widths[1]
        self.enter = _unit(sum(widths), wide)
        self.rings = nn.ModuleList(
            nn.Sequential(*(_unit(wide, wide, kernel=5, groups=wide) for _ in range(count))) for count in (1, 2, 3)
        )
        self.join = nn.Sequential(nn.Conv2d(3 * wide, wide, 1, bias=False), nn.BatchNorm2d(wide))
        self.shared = _unit(wide, wide)
        self.sure, self.boxes, self.classes = (
            nn.Sequential(_unit(wide, wide, kernel=5, groups=wide), nn.Conv2d(wide, width, 1))
            for width in (1, 4, classes)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        maps, found = [], self.stem(inputs)
        for stage in self.stages:
            found = stage(found)
            maps.append(found)
        small = functional.avg_pool2d(maps[0], 3, 2, 1)
        large = functional.interpolate(maps[2], scale_factor=2.0, mode="nearest")
        entered = self.enter(torch.cat([small, maps[1], large], dim=1))
        seen = self.join(torch.cat([ring(entered) for ring in self.rings], dim=1))
        shared = self.shared(functional.relu(entered + seen))
        return torch.cat([self.sure(shared).sigmoid(), self.boxes(shared), self.classes(shared).softmax(dim=1)], dim=1)


def _unit(inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def strided_body(widths: Sequence[int], *, convs: int = 1) -> nn.Sequential:
    """A stage for each of ``widths`` channels, half as large as the one before; ``convs`` convolutions in each."""
    body = nn.Sequential()
    before = 3
    for width in widths:
        stage = nn.Sequential()
        for place in range(convs):
            conv = nn.Conv2d(before, width, 3, 2 if place == 0 else 1, 1, bias=False)
            stage.extend([conv, nn.BatchNorm2d(width), nn.ReLU()])
            before = width
        body.append(stage)
    return body


def _pyramid(widths: Sequence[int]) -> nn.Module:
    """Maps of strides 8, 16 and 32 (every second cell of 16), 32 wide (T.-Y. Lin et al., arXiv:1612.03144)."""
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    return BackboneWithFPN(strided_body(widths[:4], convs=2), {"2": "0", "3": "1"}, [*widths[2:4]], _PYRAMID)
