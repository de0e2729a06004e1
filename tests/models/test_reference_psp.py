"""PSPNet on backbones of timm: shapes, the pyramid's numbers, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.errors import ModelError
from edgecv.models.reference_psp import pspnet


@pytest.mark.parametrize(("backbone", "stride"), [("mobilenetv3_small_050", 8), ("resnet18", 16)])
def test_the_map_has_the_size_of_the_stride(backbone: str, stride: int) -> None:
    module = pspnet(num_classes=4, backbone=backbone, stride=stride, width=8).eval()
    assert module(torch.zeros(2, 3, 64, 96)).shape == (2, 4, 64 // stride, 96 // stride)


def test_one_channel_and_the_backbones_options() -> None:
    module = pspnet(num_classes=2, width=8, channels=1, options={"act_layer": nn.ReLU}).eval()
    assert module(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 8, 8)
    assert not any(isinstance(part, nn.Hardswish) for part in module.modules())


def test_each_level_is_the_mean_over_its_windows() -> None:
    module = pspnet(width=8, bins=(1, 3)).eval()
    features = module.get_submodule("backbone")(torch.rand(1, 3, 64, 96))[-1]
    level = module.get_submodule("levels.1")
    means = functional.adaptive_avg_pool2d(features, 3)
    wanted = functional.interpolate(module.get_submodule("levels.1.conv")(means), size=(8, 12), mode="bilinear")
    assert torch.allclose(level(features), wanted)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet19"}, "timm has no model 'resnet19'"),
        ({"bins": ()}, "give numbers of windows"),
        ({"bins": (0, 2)}, r"bins is \[0, 2\]"),
        ({"stride": 4}, "stride is 4; allowed are 8, 16 and 32"),
        ({"backbone": "vit_tiny_patch16_224"}, "gives no maps at stride 8"),
    ],
)
def test_what_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        pspnet(**options)  # type: ignore[arg-type]
