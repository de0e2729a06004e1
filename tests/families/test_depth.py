"""Depth: what outputs mean, how they are judged, and that the loss leads to the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families import depth
from edgecv.families.depth_map import DepthMap, DepthTruth

CONTRACT = InputContract(size=(8, 12), resize="letterbox")


def spec(head: str = "", **options: Any) -> FamilySpec:
    """A depth family."""
    return FamilySpec("depth", ("depth",), head=head, options=options)


def plane(value: float, shape: tuple[int, ...] = (1, 1, 8, 12)) -> np.ndarray[Any, Any]:
    """An output with one value everywhere."""
    return np.full(shape, value, np.float32)


def ramp() -> np.ndarray[Any, Any]:
    """Metres from 1 to 4 over a picture of 8 x 12."""
    return np.linspace(1, 4, 96, dtype=np.float32).reshape(8, 12)


@pytest.mark.parametrize(
    ("head", "value", "metres"),
    [("", 3.0, 3.0), ("log", np.log(3.0), 3.0), ("inverse", 1 / 3, 3.0), ("metric", 0.0, 1e-3)],
)
def test_heads_give_metres(head: str, value: float, metres: float) -> None:
    found = depth.decode([plane(value)], spec(head), CONTRACT)
    assert found.metric
    assert found.values == pytest.approx(metres, rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 4, 6), (1, 4, 6, 1), (1, 4, 6)])
def test_layouts(shape: tuple[int, ...]) -> None:
    assert depth.problems(spec(), [TensorSpec("y", shape, "float32")]) == []
    assert depth.decode([plane(2.0, shape)], spec(), CONTRACT, picture=(8, 12)).values.shape == (8, 12)


def test_a_letterbox_is_undone() -> None:
    values = np.zeros((1, 1, 8, 12), np.float32)
    values[..., :4] = 5.0  # the picture is 8 x 4, so it fills a third of the width, in the middle
    values[..., 4:8] = 2.0
    found = depth.decode([values], spec(), CONTRACT, picture=(16, 8))
    assert found.values.shape == (16, 8)
    assert found.values[:, 1:-1] == pytest.approx(2.0)


def test_values_are_cut_to_the_span() -> None:
    found = depth.decode(
        [np.array([[[[0.1, 50.0]]]], np.float32)], spec(min_m=0.5, max_m=10.0), CONTRACT, picture=(1, 2)
    )
    assert found.values.tolist() == [[0.5, 10.0]]


@pytest.mark.parametrize(
    ("family", "shapes", "words"),
    [
        (spec("metrik"), [(1, 1, 8, 8)], "Did you mean 'metric'"),
        (spec(), [(1, 2, 8, 8)], "depth is one output"),
        (spec(), [(1, 1, 8, 8)] * 2, "depth is one output"),
        (spec(max=3), [(1, 1, 8, 8)], "has no option 'max'"),
        (spec(min_m=5.0, max_m=2.0), [(1, 1, 8, 8)], "min_m must be the smaller"),
        (spec(min_m=0), [(1, 1, 8, 8)], "metres above 0"),
    ],
)
def test_what_does_not_fit_is_named(family: FamilySpec, shapes: list[tuple[int, ...]], words: str) -> None:
    (problem,) = depth.problems(family, [TensorSpec("y", shape, "float32") for shape in shapes])
    assert words in problem


def test_bad_outputs() -> None:
    values = plane(1.0)
    values[0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="1 of 96 distances are NaN"):
        depth.decode([values], spec(), CONTRACT)
    with pytest.raises(ModelError, match="outputs of shape"):
        depth.decode([plane(1.0, (1, 3, 8, 12))], spec(), CONTRACT)


def test_figures_by_hand() -> None:
    counted = depth.metric(spec(), "delta1")
    true = np.full((4, 5), 2.0, np.float32)
    found = true.copy()
    found[0] = 3.0  # a quarter of the pixels are half as far again
    counted.update(DepthMap(found), DepthTruth(true))
    figures = counted.compute()
    assert figures.value == pytest.approx(0.75)
    assert figures.extras["abs_rel"] == pytest.approx(0.125)
    assert figures.extras["rmse_m"] == pytest.approx(0.5)
    assert figures.per_sample == (figures.value,)


@pytest.mark.parametrize(("name", "value"), [("abs_rel", 0.125), ("rmse_m", 0.5)])
def test_errors_are_metrics_too(name: str, value: float) -> None:
    counted = depth.metric(spec(), name)
    true = np.full((4, 5), 2.0, np.float32)
    found = true.copy()
    found[0] = 3.0
    for answer in (found, true):
        counted.update(DepthMap(answer), DepthTruth(true))
    figures = counted.compute()
    assert figures.metric == name
    assert figures.value == pytest.approx(value / 2)
    assert figures.per_sample == pytest.approx((value, 0.0))
    assert "delta1" in figures.extras
    assert name not in figures.extras


def test_only_known_distances_within_the_span_are_judged() -> None:
    counted = depth.metric(spec(max_m=10.0), "delta1")
    true = np.full((4, 5), 2.0, np.float32)
    true[0], true[1] = 0.0, 50.0
    found = np.full((4, 5), 2.0, np.float32)
    found[:2] = 9.0
    counted.update(DepthMap(found), DepthTruth(true))
    assert counted.compute().value == 1.0


def test_relative_results_are_aligned_first() -> None:
    true = ramp()
    counted = depth.metric(spec("relative"), "delta1")
    counted.update(DepthMap((7.0 / true - 3.0).astype(np.float32), metric=False), DepthTruth(true))
    assert counted.compute().extras["abs_rel"] < 1e-5
    flat = depth.metric(spec("relative"), "delta1")
    flat.update(DepthMap(np.ones_like(true), metric=False), DepthTruth(true))
    assert flat.compute().extras["abs_rel"] > 0.2


def test_bad_truths() -> None:
    counted = depth.metric(spec(), "delta1")
    with pytest.raises(DataError, match="judged by depth maps"):
        counted.update(DepthMap(ramp()), 3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the truth has shape"):
        counted.update(DepthMap(ramp()), DepthTruth(ramp()[:4]))
    with pytest.raises(DataError, match="0 pixels of a depth map are judged"):
        counted.update(DepthMap(ramp()), DepthTruth(np.zeros((8, 12), np.float32)))
    with pytest.raises(DataError, match="no picture was judged"):
        counted.compute()
    with pytest.raises(UsageError, match="no metric 'rmse'"):
        depth.metric(spec(), "rmse")


def test_agreement() -> None:
    near = DepthMap(ramp())
    assert depth.agree(near, DepthMap(ramp() * np.float32(1.1)))
    assert not depth.agree(near, DepthMap(ramp() * np.float32(1.4)))
    assert not depth.agree(near, DepthMap(ramp(), metric=False))
    assert depth.agree(DepthMap(ramp(), metric=False), DepthMap(ramp() + np.float32(0.05), metric=False))
    assert not depth.agree(DepthMap(ramp(), metric=False), DepthMap(ramp()[::-1].copy(), metric=False))


def test_a_result_tells_and_draws_itself() -> None:
    values = ramp()
    values[0, 0] = 0.0
    found = DepthMap(values)
    told = found.to_dict()
    assert told["size"] == [8, 12]
    assert told["unit"] == "m"
    assert 1.0 < told["low"] < 1.3
    assert found.words().startswith("depth 1.")
    colors = found.painted()
    assert colors[0, 0].tolist() == [0, 0, 0]
    assert int(colors[0, 1, 2]) > int(colors[-1, -1, 0]) or colors[0, 1].tolist() != colors[-1, -1].tolist()
    image = np.full((200, 300, 3), 128, np.uint8)
    found.draw(image, 0.5)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(
    ("head", "start"), [("metric", 1.5), ("metric", -1.0), ("log", 0.0), ("inverse", 0.2), ("relative", 0.0)]
)
def test_the_loss_leads_to_the_truth(head: str, start: float) -> None:
    torch = pytest.importorskip("torch")

    truth = torch.from_numpy(ramp()[None])
    truth[0, 0, :3] = 0.0
    noise = torch.randn(1, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    values = (start + 0.05 * noise).requires_grad_()
    optimizer = torch.optim.Adam([values], lr=0.02, betas=(0.9, 0.95))
    first = None
    for _ in range(600):
        optimizer.zero_grad()
        value = depth.loss(values, truth, spec(head), label_smoothing=0.0)
        first = value.item() if first is None else first
        value.backward()
        optimizer.step()
    assert value.item() < 0.05 * first
    counted = depth.metric(spec(head), "delta1")
    counted.update(depth.decode([values.detach().numpy()], spec(head), CONTRACT), DepthTruth(truth[0].numpy()))
    assert counted.compute().value > 0.9


def test_likeness_is_a_share() -> None:
    found = ramp()
    found[0] *= 2.0
    assert DepthMap(found).likeness(DepthMap(ramp())) == pytest.approx(7 / 8)
    assert DepthMap(ramp()).likeness(DepthMap(ramp()[:4])) == 0.0
