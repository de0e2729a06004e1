"""The networks for clips: shapes, that time counts where it should, and frames on an axis of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgecv.core.contract import Clip, InputContract
from edgecv.core.recipe import FamilySpec, ModelSpec
from edgecv.errors import ModelError
from edgecv.models.clips import ClipInputs
from edgecv.models.load import build_model
from edgecv.models.outputs import unwrapped
from edgecv.models.reference_video import r2plus1d, tsn

FAMILY = FamilySpec("video", ("a", "b", "c"))
CLIP = Clip(frames=4, fps=8.0)
CONTRACT = InputContract(size=(16, 24), clip=CLIP)


def clips(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 12, 16, 24, generator=torch.Generator().manual_seed(1))


def backwards(inputs: torch.Tensor) -> torch.Tensor:
    """The same clips, last frame first."""
    return inputs.reshape(-1, 4, 3, 16, 24).flip(1).reshape(inputs.shape)


def test_the_small_network_sees_the_order_of_frames() -> None:
    spec = ModelSpec("python:edgecv.models.reference_video:r2plus1d", CONTRACT, options={"width": 8})
    module = build_model(spec, family=FAMILY, base=Path(), seed=0)  # frames and height come from the input
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(4.0)  # fresh weights make answers that hardly differ
        given = module(clips())
        assert given.shape == (2, 3)
        assert not torch.allclose(given, module(backwards(clips())), rtol=1e-3)
        assert torch.allclose(given[1:], module(clips()[1:]), atol=1e-5), "clips of a batch do not meet"


def test_a_convolution_over_time_sees_the_frames_beside_only() -> None:
    module = r2plus1d(frames=4, height=16, width=4, blocks=1, num_classes=2).eval()
    block = module.blocks[0]  # type: ignore[index, union-attr]
    tall = torch.zeros(1, 3, 4 * 16, 24)
    changed = tall.clone()
    changed[:, :, 5:8] += 1.0  # in the first frame, away from its edges
    with torch.no_grad():
        change = (block(changed) - block(tall)).abs().amax(dim=(0, 1, 3)).reshape(4, 8)  # type: ignore[operator]
    frames = change.amax(dim=1) > 0
    assert frames.tolist() == [True, True, False, False]


def test_frame_by_frame_networks_do_not_see_the_order() -> None:
    module = tsn(frames=4, backbone="timm:mobilenetv3_small_050", num_classes=3).eval()
    with torch.no_grad():
        given = module(clips())
        assert given.shape == (2, 3)
        assert torch.allclose(given, module(backwards(clips())), atol=1e-5)
        one = module.backbone(clips()[0].reshape(4, 3, 16, 24)).mean(0)  # type: ignore[operator]
    assert torch.allclose(given[0], one, atol=1e-5)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: r2plus1d(frames=4, height=20), "height is 20"),
    (lambda: tsn(frames=4, backbone="onnx:x.onnx"), "torchvision:NAME and timm:NAME"),
])  # fmt: skip
def test_what_cannot_be_built_is_named(make: object, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        make()  # type: ignore[operator]


class Shapes(torch.nn.Module):
    """Tells what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: tuple[int, ...] = ()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen = tuple(inputs.shape)
        return inputs.flatten(2).mean(2)


@pytest.mark.parametrize(("first", "wanted"), [(False, (2, 4, 3, 16, 24)), (True, (2, 3, 4, 16, 24))])
def test_networks_with_an_axis_of_frames_get_theirs(first: bool, wanted: tuple[int, ...]) -> None:
    inner = Shapes()
    module = ClipInputs(inner, frames=4, channels=3, channels_first=first)
    means = module(clips())
    assert inner.seen == wanted
    assert unwrapped(module) is inner
    frames = clips().reshape(2, 4, 3, 16, 24)
    expected = frames.transpose(1, 2) if first else frames
    assert torch.allclose(means, expected.flatten(2).mean(2))
