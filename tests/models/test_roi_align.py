"""RoIAlign by products of matrices is torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as reference

from edgecv.models.roi_align import pyramid_align, roi_align


def boxes_in(width: float, height: float, count: int, *, seed: int = 0) -> torch.Tensor:
    """Boxes of all sizes inside a picture, some of them cut at its edges."""
    torch.manual_seed(seed)
    centres = torch.rand(count, 2) * torch.tensor([width, height])
    sides = torch.exp(torch.rand(count, 2) * 5 + 0.7)
    made = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    made[:, 0::2] = made[:, 0::2].clamp(0, width)
    made[:, 1::2] = made[:, 1::2].clamp(0, height)
    return made


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 7])
def test_it_is_torchvisions(samples: int, size: int) -> None:
    boxes = boxes_in(300, 200, 50)
    boxes[0] = torch.tensor([0.0, 0.0, 300.0, 200.0])
    boxes[1] = torch.tensor([300.0, 200.0, 300.0, 200.0])  # nothing, in the outermost corner
    boxes[2] = torch.tensor([10.0, 10.0, 10.5, 10.5])  # smaller than a cell
    features = torch.randn(1, 6, 20, 30)
    made = roi_align(features, boxes, scale=0.1, size=size, samples=samples)
    wanted = reference(features, [boxes], size, 0.1, samples)
    assert made.shape == (50, 6, size, size)
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)


def test_each_box_is_pooled_from_its_level() -> None:
    strides, height, width = (4, 8, 16, 32), 512, 640
    pyramid = [torch.randn(1, 5, height // stride, width // stride) for stride in strides]
    boxes = boxes_in(width, height, 200)
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    sides = torch.tensor([111.9, 112.0, 223.9, 224.0, 447.9, 448.0])  # around the limits between levels
    boxes[:6] = torch.stack([torch.zeros(6), torch.zeros(6), sides, sides], dim=1)
    sizes = [(height // stride, width // stride) for stride in strides]
    made = pyramid_align(pyramid, boxes, count=200, sizes=sizes, strides=strides, size=7)
    names = [str(place) for place in range(4)]
    pool = MultiScaleRoIAlign(names, 7, 2)
    wanted = pool(dict(zip(names, pyramid, strict=True)), [boxes], [(height, width)])
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)


def test_one_level_takes_every_box() -> None:
    features, boxes = torch.randn(1, 3, 10, 10), boxes_in(320, 320, 8)
    made = pyramid_align([features], boxes, count=8, sizes=[(10, 10)], strides=[32], size=7)
    torch.testing.assert_close(made, reference(features, [boxes], 7, 1 / 32, 2), atol=1e-4, rtol=0)
