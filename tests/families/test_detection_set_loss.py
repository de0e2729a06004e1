"""The loss of DETR: the pairing, what it costs by hand, both kinds of scores, crowds."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.errors import ModelError
from edgecv.families.detection_set_loss import paired_at_least_cost, set_loss

torch = pytest.importorskip("torch")

SIZE = (100, 200)
SPEC = FamilySpec("detection", ("a", "b"), head="detr")
BOXES = ((20.0, 20.0, 60.0, 60.0), (100.0, 10.0, 180.0, 90.0))


def truth_of(*rows: tuple[float, ...], classes: tuple[int, ...] = (), crowd: Any = None) -> DetectionTruth:
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    ids = np.array(classes or [0] * len(rows), np.int64)
    return DetectionTruth(boxes, ids, None if crowd is None else np.array(crowd), size=SIZE)


def shares(*rows: tuple[float, ...]) -> Any:
    """Boxes as centre and size in shares of the input, `(1, Q, 4)`."""
    boxes = torch.tensor(rows) / torch.tensor([200.0, 100, 200, 100])
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)[None]


def test_the_pairing_is_the_cheapest_of_all() -> None:
    cost = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    rows, columns = paired_at_least_cost(cost)
    least = min(sum(cost[row, place] for place, row in enumerate(order)) for order in permutations(range(5), 3))
    assert cost[rows, columns].sum().item() == pytest.approx(float(least))
    assert sorted(columns.tolist()) == [0, 1, 2]
    assert len(paired_at_least_cost(torch.zeros(4, 0))[0]) == 0
    assert len(paired_at_least_cost(torch.full((2, 2), math.nan))[0]) == 2, "the loss itself will say so"


def test_softmax_by_hand() -> None:
    """Perfect boxes: what is left is the weighted cross entropy of an object and of two that are none."""
    truth = truth_of(BOXES[0], classes=(1,))
    boxes = shares(BOXES[1], BOXES[0], (0, 0, 10, 10))
    logits = torch.tensor([[[0.0, 0, 2], [0, 3, 0], [1, 0, 0]]])
    entropy = -logits[0].log_softmax(dim=1)
    wanted = (entropy[1, 1] + 0.1 * (entropy[0, 2] + entropy[2, 2])) / 1.2
    assert set_loss([logits, boxes], [truth], SPEC).item() == pytest.approx(wanted.item(), rel=1e-4)
    ready = FamilySpec("detection", ("a", "b"), head="detr", outputs="probabilities")
    assert set_loss([logits.softmax(dim=2), boxes], [truth], ready).item() == pytest.approx(wanted.item(), rel=1e-4)


def test_boxes_by_hand() -> None:
    """A box 20 pixels too far to the right, of 40 x 40: its L1 distance and its generalised overlap."""
    truth = truth_of(BOXES[0])
    logits = torch.tensor([[[50.0, 0, 0]]])
    found = set_loss([logits, shares((40.0, 20, 80, 60))], [truth], SPEC)
    overlap = (20 * 40) / (60 * 40)  # the hull is the union
    assert found.item() == pytest.approx(5 * 20 / 200 + 2 * (1 - overlap), rel=1e-4)


def test_sigmoid_learns_the_overlap_of_its_box() -> None:
    """RT-DETR: the score of a query is to be how well its box fits; the others are to be nothing."""
    truth, boxes = truth_of(BOXES[0], classes=(1,)), shares((30.0, 20, 70, 60), BOXES[1])
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        set_loss([logits, boxes], [truth], SPEC).backward()
        optimizer.step()
    found = logits.detach().sigmoid()[0]
    assert found[0, 1].item() == pytest.approx(30 / 50, abs=0.02)
    assert found[0, 0] < 0.1
    assert found[1].max() < 0.1


def test_crowds_pictures_without_objects_and_batches() -> None:
    logits, boxes = torch.zeros(1, 2, 3), shares(*BOXES)
    everywhere = truth_of((0, 0, 200, 100), crowd=(True,))
    assert set_loss([logits, boxes], [everywhere], SPEC).item() == 0.0
    assert set_loss([logits[..., :2], boxes], [everywhere], SPEC).item() == 0.0
    assert set_loss([logits, boxes], [truth_of()], SPEC).item() == pytest.approx(math.log(3), rel=1e-4)
    one, both = truth_of(BOXES[0]), truth_of(*BOXES)
    twice = [torch.cat([logits] * 2), torch.cat([boxes] * 2)]
    turned = set_loss(twice, [both, one], SPEC).item()
    assert set_loss(twice, [one, both], SPEC).item() == pytest.approx(turned, rel=1e-5)


def test_outputs_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="boxes and scores are needed"):
        set_loss([torch.zeros(1, 2, 3)], [truth_of()], SPEC)
    with pytest.raises(ModelError, match="2 boxes and 7 rows of scores"):
        set_loss([torch.zeros(1, 2, 7), torch.zeros(1, 2, 4)], [truth_of()], SPEC)
