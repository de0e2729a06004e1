"""The reading networks: shapes, names, and what batches and exports do to them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edgecv.models.reference_text import _EveryNth, ctc_cnn, lprnet


@pytest.mark.parametrize(("height", "channels"), [(32, 1), (48, 3)])
def test_ctc_cnn_gives_one_row_of_scores_every_four_pixels(height: int, channels: int) -> None:
    module = ctc_cnn(num_classes=11, width=8, channels=channels, height=height).eval()
    assert module(torch.zeros(2, channels, height, 100)).shape == (2, 11, 25)
    assert module(torch.zeros(1, channels, height, 160)).shape == (1, 11, 40)


def test_lprnet_has_the_usual_names_and_size() -> None:
    module = lprnet().eval()
    state = module.state_dict()
    assert state["backbone.4.block.2.weight"].shape == (32, 32, 3, 1)
    assert state["backbone.16.weight"].shape == (256, 64, 1, 4)
    assert state["backbone.21.running_var"].shape == (68,)
    assert state["container.0.weight"].shape == (68, 516, 1, 1)
    assert sum(item.numel() for item in module.parameters()) == 446_976
    assert lprnet(num_classes=37).eval()(torch.rand(1, 3, 24, 94)).shape == (1, 37, 18)


def test_an_answer_of_lprnet_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    module = lprnet().eval()
    pictures = torch.randn(3, 3, 24, 94) * torch.tensor([0.2, 1.0, 4.0]).reshape(3, 1, 1, 1)
    with torch.no_grad():
        together = module(pictures)
        alone = torch.cat([module(picture[None]) for picture in pictures])
    assert together.shape == (3, 68, 18)
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


@pytest.mark.parametrize("step", [2, 4])
def test_every_nth_channel_is_pooled_as_in_three_dimensions(step: int) -> None:
    inputs = torch.randn(2, 16, 9, 13)
    wanted = functional.max_pool3d(inputs[:, None], (1, 3, 3), (step, 1, 2))[:, 0]
    assert torch.equal(_EveryNth(step)(inputs), wanted)


@pytest.mark.parametrize(
    ("module", "shape"), [(ctc_cnn(num_classes=9, width=4), (1, 1, 32, 96)), (lprnet(), (1, 3, 24, 94))]
)
def test_reading_networks_export(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape)
    exported = torch.export.export(module.eval(), (inputs,)).module()
    assert torch.allclose(exported(inputs), module(inputs), rtol=1e-4, atol=1e-4)
