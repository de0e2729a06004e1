"""Boxes in fixed shapes against torchvision's operators."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from edgecv.models.two_stage_boxes import clipped, decoded, overlap, survivors


def crowd(count: int, *, seed: int, spread: float = 100.0) -> torch.Tensor:
    """Boxes of which many overlap."""
    torch.manual_seed(seed)
    corners = torch.rand(count, 2) * spread
    return torch.cat([corners, corners + 20 + torch.rand(count, 2) * 40], dim=1)


def test_deltas_make_torchvisions_boxes() -> None:
    boxes, deltas = crowd(30, seed=0), torch.randn(30, 12) * 4  # some grow beyond the bound
    weights = (10.0, 10.0, 5.0, 5.0)
    wanted = BoxCoder(weights).decode(deltas, [boxes]).reshape(30, 12)
    made = decoded(deltas, boxes, each=3, weights=weights)
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-3)
    cut = clip_boxes_to_image(wanted.reshape(-1, 4), (80, 120)).reshape(30, 12)
    torch.testing.assert_close(clipped(made, (80, 120), each=3), cut, rtol=1e-5, atol=1e-3)


def test_overlap_is_intersection_over_union() -> None:
    boxes = crowd(40, seed=1)
    torch.testing.assert_close(overlap(boxes), box_iou(boxes, boxes), rtol=1e-5, atol=1e-5)


def test_nothing_overlaps_nothing() -> None:
    assert overlap(torch.tensor([[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 5.0]])).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_enough_rounds_are_greedy_suppression(threshold: float) -> None:
    for seed in range(8):
        boxes = crowd(120, seed=seed)
        scores = torch.linspace(1, 0.01, 120)
        kept = survivors((overlap(boxes) > threshold).float(), count=120, rounds=16).reshape(-1)
        assert kept.nonzero().reshape(-1).tolist() == nms(boxes, scores, threshold).sort()[0].tolist()


def test_what_a_round_costs() -> None:
    """Fast NMS loses boxes that only suppressed ones touch; four rounds leave hardly any difference."""
    wrong = {1: 0, 2: 0, 4: 0}
    total = 0
    for seed in range(20):
        boxes = crowd(200, seed=seed, spread=200)
        greedy = torch.zeros(200)
        greedy[nms(boxes, torch.linspace(1, 0.01, 200), 0.5)] = 1
        total += int(greedy.sum())
        close = (overlap(boxes) > 0.5).float()
        for rounds in wrong:
            kept = survivors(close, count=200, rounds=rounds).reshape(-1)
            wrong[rounds] += int((kept != greedy).sum())
    assert wrong[1] > wrong[2] > wrong[4]
    assert wrong[1] < 0.25 * total
    assert wrong[4] < 0.02 * total


def test_no_rounds_leave_everything() -> None:
    assert survivors(torch.ones(3, 3), count=3, rounds=0).sum() == 3
    assert survivors(torch.ones(3, 3), count=3, rounds=1).reshape(-1).tolist() == [1, 0, 0]
