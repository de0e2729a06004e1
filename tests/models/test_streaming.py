"""Networks that stream: their two forms give the same numbers, and the state holds just what later frames need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgecv.core.contract import Clip, InputContract
from edgecv.core.recipe import FamilySpec, ModelSpec
from edgecv.errors import ModelError
from edgecv.models.load import build_model
from edgecv.models.reference_streaming import tsm, x3d_stream
from edgecv.models.streaming import Shift, StepForm, TimeConv, Unrolled, deploy_form, whole_form

CLIP = Clip(frames=6, fps=8.0, stream=True)
CONTRACT = InputContract(size=(16, 24), clip=CLIP)
FAMILY = FamilySpec("video", ("a", "b", "c"))


def clips(count: int = 2, frames: int = 6) -> torch.Tensor:
    return torch.rand(count, 3 * frames, 16, 24, generator=torch.Generator().manual_seed(1))


def lively(module: nn.Module, frames: int = 6) -> nn.Module:
    """The same with batch norms that fit its input, so that answers differ."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in norms:
        part.momentum = 1.0
    with torch.no_grad():
        module.train()(clips(8, frames))
    return module.eval()


def small() -> nn.Module:
    return lively(x3d_stream(frames=6, num_classes=3, width=8, blocks=2))


def shifted(backbone: str = "torchvision:mobilenet_v2") -> nn.Module:
    return lively(tsm(frames=6, backbone=backbone, num_classes=3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "x3d": small,
    "x3d with 5 frames": lambda: lively(x3d_stream(frames=6, num_classes=3, width=8, blocks=1, kernel=5)),
    "tsm mobilenet": shifted,
    "tsm resnet": lambda: shifted("torchvision:resnet18"),
    "tsm timm": lambda: shifted("timm:mobilenetv3_small_050"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_frame_by_frame_gives_what_the_clip_gives(name: str) -> None:
    module = NETWORKS[name]()
    if name == "x3d":
        with torch.no_grad():
            found = whole_form(*deploy_form(module, CONTRACT), CONTRACT)(clips())
            assert (found - module(clips())).abs().max() <= 1e-5
    values = clips().double()  # deep networks of random weights blow the rounding of float32 up
    step, example = deploy_form(module, CONTRACT)
    assert isinstance(step, StepForm)
    assert example[0].shape == (1, 3, 16, 24)
    with torch.no_grad():
        start = tuple(item.double() for item in example)
        wanted, found = module.double()(values), whole_form(step, start, CONTRACT)(values)
        assert found.shape == (2, 3)
        assert (found - wanted).abs().max() <= 1e-9
        other = module(values.reshape(2, 6, 3, 16, 24).flip(1).reshape(2, 18, 16, 24))
        assert (other - wanted).abs().max() > 1e-3 * wanted.abs().max(), "the order of the frames counts"


def test_the_state_reaches_as_far_back_as_the_docstring_says() -> None:
    module = lively(x3d_stream(frames=9, num_classes=3, width=8, blocks=2), frames=9)  # 2 * 3 + 1 = 7 frames
    one = clips(1, 9)
    changed = []
    for frame in range(9):
        other = one.clone()
        other[:, 3 * frame : 3 * frame + 3] = 0.0
        with torch.no_grad():
            changed.append(bool((module(other) - module(one)).abs().max() > 1e-7))
    assert changed == [False, False, True, True, True, True, True, True, True]


def test_a_convolution_over_time_looks_back_only() -> None:
    part = TimeConv(2, frames=4, kernel=3)
    with torch.no_grad():
        part.conv.weight[:] = torch.tensor([1.0, 10.0, 100.0]).reshape(1, 1, 3, 1)
        frames = torch.arange(1.0, 9.0).reshape(8, 1, 1, 1).expand(8, 2, 2, 3)  # two clips of four frames
        assert part(frames)[:, 0, 0, 0].tolist() == [100, 210, 321, 432, 500, 650, 765, 876]


def test_a_shift_takes_the_first_channels_of_the_frame_before() -> None:
    frames = torch.arange(1.0, 5.0).reshape(4, 1, 1, 1).expand(4, 8, 2, 2)
    found = Shift(frames=2, parts=4)(frames)
    assert found[:, :2, 0, 0].tolist() == [[0, 0], [1, 1], [0, 0], [3, 3]]
    assert torch.equal(found[:, 2:], frames[:, 2:])


def test_the_state_of_a_part_is_what_its_docstring_says() -> None:
    example = deploy_form(small(), CONTRACT)[1]
    assert [tuple(item.shape) for item in example[1:]] == [(1, 16, 2, 24), (1, 24, 2, 6), (1, 24, 2, 1)]
    shapes = [tuple(item.shape) for item in deploy_form(shifted("torchvision:resnet18"), CONTRACT)[1][1:]]
    assert len(shapes) == 8  # one for each residual block
    assert shapes[0] == (1, 8, 4, 6)
    assert not any(item.any() for item in example), "the state begins with zeros"


def test_a_network_without_streaming_is_deployed_as_it_is() -> None:
    module, contract = small(), replace(CONTRACT, clip=replace(CLIP, stream=False))
    found, example = deploy_form(module, contract)
    assert found is module
    assert [tuple(item.shape) for item in example] == [(1, 18, 16, 24)]
    assert whole_form(found, example, contract) is module


def test_unrolled_gives_the_steps_of_a_clip() -> None:
    step, example = deploy_form(small(), CONTRACT)
    unrolled = whole_form(step, example, CONTRACT)
    assert isinstance(unrolled, Unrolled)
    with torch.no_grad():
        steps = list(unrolled.steps(clips()[:1]))
    assert len(steps) == 6
    inputs = [item for item, _ in steps]
    assert not any(state.any() for state in inputs[0][1:])
    assert all(state.any() for state in inputs[1][1:])
    assert torch.equal(inputs[2][0], clips()[:1, 6:9])
    with torch.no_grad():
        assert torch.equal(step(*inputs[5])[0], steps[5][1])


def test_a_network_that_cannot_stream_is_refused() -> None:
    spec = ModelSpec("python:edgecv.models.reference_video:r2plus1d", CONTRACT)
    with pytest.raises(ModelError, match="no part that keeps a state"):
        build_model(spec, family=FAMILY, base=Path(), seed=0)
    with pytest.raises(ModelError, match="no part that keeps a state"):
        deploy_form(nn.Flatten(), CONTRACT)


def test_a_recipe_builds_it_by_its_input() -> None:
    spec = ModelSpec("python:edgecv.models.reference_streaming:x3d_stream", CONTRACT, options={"width": 8})
    module = build_model(spec, family=FAMILY, base=Path(), seed=0)
    assert module(clips()).shape == (2, 3)


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("python:nets:resnet18", "allowed are torchvision:NAME and timm:NAME"),
        ("torchvision:alexnet", "known blocks: BasicBlock"),
    ],
)
def test_networks_without_residual_blocks_take_no_shift(backbone: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        tsm(frames=4, backbone=backbone)
