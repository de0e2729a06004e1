from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.recipe import Quantize
from edgecv.optimize.graph import DEQUANTIZE, QUANTIZE
from edgecv.optimize.observers import correct_biases
from edgecv.optimize.ptq import Prepared, prepare_ptq
from edgecv.optimize.sensitivity import output_sqnr_db
from edgecv.optimize.switches import make_board

from .quantize_nets import batches, example, images, residual

pytestmark = pytest.mark.build

STEP = Quantize("ptq", bias_correction=False)


def prepare(module: nn.Module, step: Quantize, arrays: np.ndarray | None = None) -> Prepared:
    return prepare_ptq(module, example(), step=step, calibration=batches(images(16) if arrays is None else arrays))


def tensors(arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array[None]) for array in arrays]


def sqnr(prepared: Prepared, arrays: np.ndarray | None = None) -> float:
    board = make_board(prepared.graph, prepared.originals)
    return output_sqnr_db(board, tensors(images(8, seed=3) if arrays is None else arrays))


@pytest.mark.parametrize("ranges", ["percentile", "mse", "entropy"])
@pytest.mark.parametrize("scheme", ["portable", "affine"])
def test_searched_ranges_are_good_and_groups_keep_one_scale(ranges: str, scheme: str) -> None:
    prepared = prepare(residual(), replace(STEP, ranges=ranges, scheme=scheme))  # type: ignore[arg-type]
    assert sqnr(prepared) > 18
    nodes = [
        node for node in prepared.graph.graph.nodes if node.target is QUANTIZE[0] and node.args[0].op != "get_attr"
    ]
    scales = {node.args[0].name: node.args[1:3] for node in nodes}
    owners = {node.name: owner.name for node, owner in prepared.plan.outputs.items()}
    for name, numbers in scales.items():
        assert numbers == scales.get(owners.get(name, name), numbers)
        assert scheme == "affine" or numbers[1] == 0
    for node in nodes:
        for user in node.users:
            assert user.target is DEQUANTIZE[0]
            assert user.args[1:3] == node.args[1:3]


def spoiled() -> np.ndarray:
    """Calibration pictures with one broken pixel in one of them."""
    arrays = images(64)
    arrays[5, 0, 3, 3] = 3000.0
    return arrays


@pytest.mark.parametrize("ranges", ["percentile", "entropy"])
def test_a_broken_pixel_needs_a_searched_range(ranges: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, 4, 3))
    plain = sqnr(prepare(module, replace(STEP, ranges="minmax"), spoiled()))
    found = sqnr(prepare(module, replace(STEP, ranges=ranges), spoiled()))  # type: ignore[arg-type]
    assert plain < 5
    assert found > 15


def one_sided() -> nn.Module:
    """Every weight of the second layer lies 0.3 steps above its int8 value, and it reads positive numbers only."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 8, 3)
    with torch.no_grad():
        steps = torch.randint(-12, 12, second.weight.shape) + 0.3
        steps[:, 0, 0, 0] = 127
        second.weight.copy_(steps / 127)
    return nn.Sequential(first, nn.ReLU(), second)


def test_bias_correction_takes_the_shift_out() -> None:
    plain = sqnr(prepare(one_sided(), replace(STEP, ranges="mse")))
    mended = sqnr(prepare(one_sided(), replace(STEP, ranges="mse", bias_correction=True)))
    assert mended > plain + 6


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, groups=2),
        nn.Conv2d(4, 4, 1, groups=4, bias=False),
        nn.ConvTranspose2d(4, 6, 2, stride=2),
    ],
)
def test_the_shift_is_exact_for_constant_pictures(layer: nn.Module) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), layer)
    arrays = np.broadcast_to(np.float32([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1), (4, 3, 16, 16)).copy()
    prepared = prepare(module, replace(STEP, ranges="minmax"), arrays)
    correct_biases(prepared.graph, tensors(arrays), originals=prepared.originals)
    board = make_board(prepared.graph, prepared.originals)
    board.turn(())
    wanted = board.run(tensors(arrays)[0])[0]
    board.turn(tuple(board.constants))
    found = board.run(tensors(arrays)[0])[0]
    # Each pixel behind a stride reads other taps: the mean over all pixels is what can be mended.
    assert torch.allclose(wanted.mean((2, 3)), found.mean((2, 3)), atol=1e-5)


def test_one_pass_keeps_one_picture() -> None:
    """What is streamed can be let go: the arrays of earlier pictures must not be held."""
    import gc
    import weakref

    prepared = prepare(residual(), STEP)
    alive: list[weakref.ref[torch.Tensor]] = []

    def stream():  # type: ignore[no-untyped-def]
        for array in images(12):
            picture = torch.from_numpy(array[None].copy())
            alive.append(weakref.ref(picture))
            yield picture

    correct_biases(prepared.graph, stream(), originals=prepared.originals)
    gc.collect()
    assert sum(reference() is not None for reference in alive) <= 1
