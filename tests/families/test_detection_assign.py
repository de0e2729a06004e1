"""Which cell learns which object: by hand, on a grid of four cells and on one with more."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from edgecv.families.detection_assign import aligned, central, matched, overlaps, paired, sim_ota  # noqa: E402

FOUR = torch.tensor([[8.0, 8.0], [24.0, 8.0], [8.0, 24.0], [24.0, 24.0]])


def around(centres: Any, half: float = 8.0) -> Any:
    return torch.cat([centres - half, centres + half], dim=1)


def test_overlaps_by_hand() -> None:
    one = torch.tensor([[0.0, 0, 10, 10], [0, 0, 0, 0]])
    other = torch.tensor([[5.0, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10], [10, 10, 0, 0]])
    assert overlaps(one, other)[0].tolist() == pytest.approx([1 / 3, 0, 1, 0])
    assert overlaps(one, other)[1].tolist() == [0, 0, 0, 0]


def test_cells_inside_the_box_by_alignment() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.1, 0.1]])
    boxes = torch.tensor([[0.0, 0, 16, 16], [0, 0, 32, 16], [0, 0, 16, 32], [20, 20, 28, 28]])
    truth, classes = torch.tensor([[0.0, 0, 16, 30], [18, 18, 30, 30]]), torch.tensor([0, 1])
    owner, weight = aligned(scores, boxes, FOUR, truth, classes, each=10)
    assert owner.tolist() == [0, -1, 0, 1], "cell 1 has its centre in no box"
    shared = overlaps(truth, boxes)
    # Cell 2 fits better though its score is lower; the best cell of an object has its overlap.
    assert weight[2].item() == pytest.approx(shared[0, 2].item())
    ratio = (0.9 / 0.5) ** 0.5 * (shared[0, 0] / shared[0, 2]).item() ** 6
    assert weight[0].item() == pytest.approx(shared[0, 2].item() * ratio, rel=1e-4)
    assert weight[3].item() == pytest.approx(shared[1, 3].item())
    assert weight[1].item() == 0


def test_one_cell_for_each_object() -> None:
    scores = torch.full((4, 1), 0.5)
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 30, 30], [0, 0, 25, 25], [0, 0, 10, 10]])
    truth = torch.tensor([[0.0, 0, 32, 32]])
    owner, weight = aligned(scores, boxes, FOUR, truth, torch.tensor([0]), each=1)
    assert owner.tolist() == [-1, 0, -1, -1]
    assert weight[1].item() == pytest.approx((30 / 32) ** 2)


def test_a_cell_that_two_objects_want_goes_to_the_one_it_overlaps_most() -> None:
    truth = torch.tensor([[0.0, 0, 16, 16], [2.0, 2, 18, 18]])
    owner, _ = aligned(torch.full((4, 2), 0.5), around(FOUR), FOUR, truth, torch.tensor([0, 1]), each=10)
    assert owner.tolist() == [0, -1, -1, -1]


def test_an_object_between_all_centres_takes_the_nearest() -> None:
    truth = torch.tensor([[12.0, 10, 15, 14]])
    owner, _ = aligned(torch.full((4, 1), 0.5), around(FOUR), FOUR, truth, torch.tensor([0]), each=10)
    assert owner.tolist() == [0, -1, -1, -1]


def test_before_any_box_overlaps_the_cell_in_the_middle_is_taken() -> None:
    boxes = torch.full((4, 4), 1000.0)
    truth = torch.tensor([[0.0, 0, 30, 31]])
    owner, weight = aligned(torch.full((4, 1), 0.5), boxes, FOUR, truth, torch.tensor([0]), each=1)
    assert owner.tolist() == [0, -1, -1, -1]
    assert weight.sum().item() == 0


def test_sim_ota_takes_as_many_cells_as_the_overlaps_sum_to() -> None:
    strides = torch.full((4,), 16.0)
    truth = torch.tensor([[0.0, 0, 32, 32]])
    free = torch.zeros(1, 4)
    boxes = torch.tensor([[0.0, 0, 32, 30], [0, 0, 32, 28], [0, 0, 32, 16], [0, 0, 8, 8]])
    owner, weight = sim_ota(free, boxes, FOUR, strides, truth)
    assert owner.tolist() == [0, 0, -1, -1], "30/32 + 28/32 + 16/32 + 1/16 is 2.4: two cells"
    assert weight[:2].tolist() == pytest.approx([30 / 32, 28 / 32])
    dear = torch.tensor([[0.0, 100.0, 0.0, 0.0]])
    assert sim_ota(dear, boxes, FOUR, strides, truth)[0].tolist() == [0, -1, 0, -1]


def test_sim_ota_prefers_cells_in_box_and_middle() -> None:
    centres = torch.stack([torch.arange(8) * 8.0 + 4, torch.full((8,), 4.0)], dim=1)
    truth = torch.tensor([[0.0, 0, 16, 8]])
    boxes = truth.repeat(8, 1)
    owner, _ = sim_ota(torch.zeros(1, 8), boxes, centres, torch.full((8,), 8.0), truth)
    assert set(torch.nonzero(owner == 0)[:, 0].tolist()) >= {0, 1}
    assert (owner[4:] == -1).all(), "more than 2.5 cells from the middle and outside"


def test_sim_ota_gives_a_cell_to_the_cheaper_object() -> None:
    truth = torch.tensor([[0.0, 0, 16, 16], [0.0, 0, 16, 18]])
    owner, _ = sim_ota(torch.tensor([[5.0] * 4, [0.0] * 4]), around(FOUR), FOUR, torch.full((4,), 4.0), truth)
    assert owner[0].item() == 1


def test_rows_and_objects_in_pairs() -> None:
    truth, classes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 12, 10], [50, 50, 60, 60]]), torch.tensor([0, 0, 1])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 9, 10], [50, 50, 60, 60], [0, 0, 10, 10]])
    scores, kinds = torch.tensor([0.9, 0.8, 0.9, 0.95]), torch.tensor([0, 0, 0, 1])
    owner, weight = paired(scores, boxes, kinds, truth, classes)
    assert owner.tolist() == [0, 1, -1, -1], "the last two have the wrong class"
    assert weight.tolist() == pytest.approx([1.0, 0.75, 0, 0])


def test_anchors_that_overlap_by_the_share_and_the_best_of_each_object() -> None:
    anchors = torch.tensor([[0.0, 0, 100, 50], [100, 0, 200, 50], [0, 50, 100, 100], [20, 0, 100, 50], [0, 0, 45, 50]])
    truth = torch.tensor([[0.0, 0, 100, 50], [190, 90, 200, 100]])
    owner, unclear = matched(anchors, truth, match=0.5, free=0.4)
    assert owner.tolist() == [0, -1, -1, 0, -1], "0.8 of the first object; no anchor overlaps the second one"
    assert unclear.tolist() == [False, False, False, False, True], "0.45: neither"
    assert not matched(anchors, truth, match=0.5, free=0.5)[1].any()
    owner, unclear = matched(anchors, torch.tensor([[110.0, 5, 130, 20]]), match=0.5, free=0.4)
    assert owner.tolist() == [-1, 0, -1, -1, -1], "far below a half, but its best"
    assert not unclear.any()
    owner, unclear = matched(anchors, torch.zeros(0, 4), match=0.5, free=0.4)
    assert owner.tolist() == [-1] * 5
    assert not unclear.any()


def test_points_near_the_middle_of_objects_of_their_size() -> None:
    points = torch.tensor([[20.0, 20], [28, 20], [40, 20], [20, 20], [60, 60], [60, 60]])
    strides = torch.tensor([8.0, 8, 8, 16, 16, 32])
    small, wide = [4.0, 4, 44, 36], [0.0, 0, 400, 400]
    assert central(points, strides, torch.tensor([small])).tolist() == [0, 0, -1, -1, -1, -1], "24 pixels: stride 8"
    large = torch.tensor([[0.0, 0, 130, 130]])
    assert central(points, strides, large).tolist() == [-1, -1, -1, -1, 0, -1], "70 pixels: from 64 to 128, stride 16"
    assert central(points + 140, strides, torch.tensor([wide]))[5] == 0, "the coarsest map takes all that is larger"
    inner = [12.0, 12, 36, 28]
    assert central(points, strides, torch.tensor([small, inner])).tolist()[:2] == [1, 1], "the smaller one counts"
    assert central(points, strides, torch.zeros(0, 4)).tolist() == [-1] * 6
