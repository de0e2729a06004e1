"""Losses of pose networks: targets by hand, least at the truth, blind to what is not labelled."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.errors import DataError, ModelError
from edgecv.families import pose
from edgecv.families.pose_loss import peaks
from edgecv.families.pose_truth import PoseTruth

torch = pytest.importorskip("torch")

SIZE = (64, 48)


def spec(head: str, *, outputs: str = "logits", **options: object) -> FamilySpec:
    return FamilySpec("pose", ("person",), head=head, outputs=outputs, options=options)  # type: ignore[arg-type]


def truth_of(*persons: list[tuple[float, float, int]], area: float = 100.0) -> PoseTruth:
    count = len(persons)
    points = np.array(persons, np.float32).reshape(count, -1, 3) if count else np.zeros((0, 2, 3), np.float32)
    boxes, areas = np.tile(np.array([[0, 0, 48, 64]], np.float32), (count, 1)), np.full(count, area, np.float32)
    return PoseTruth(points, boxes, areas * np.arange(1, count + 1, dtype=np.float32), np.zeros(count, bool), SIZE)


def test_peaks_by_hand() -> None:
    truth = truth_of([(10.0, 20.0, 2), (5.0, 5.0, 0)])
    target, weight = peaks([truth], (1, 2, 16, 12), sigma=1.5, inner=0.5)
    assert weight.tolist() == [[1, 0]]
    assert target[0, 0, 4, 2] == pytest.approx(np.exp(-((2.5 - 2.5) ** 2 + (5.0 - 4.5) ** 2) / 4.5))
    assert target[0, 1].max() == 0
    corner, _ = peaks([truth], (1, 2, 16, 12), sigma=1.5, inner=0.0)
    assert corner[0, 0, 5, 2] == pytest.approx(np.exp(-(0.5**2) / 4.5))


def test_peaks_of_several_and_of_nobody() -> None:
    two = truth_of([(10.0, 20.0, 2), (5.0, 5.0, 0)], [(40.0, 50.0, 1), (30.0, 30.0, 2)])
    target, weight = peaks([two, truth_of()], (2, 2, 64, 48), sigma=2.0, inner=0.0)
    assert target[0, 0, 20, 10] == target[0, 0, 50, 40] == 1
    assert weight.tolist() == [[1, 1], [1, 1]], "a map of nobody is flat, which can be learned too"
    assert target[1].max() == 0


@pytest.mark.parametrize("head", ["heatmap", "simcc", "regression"])
def test_least_at_the_truth(head: str) -> None:
    truth = truth_of([(10.0, 20.0, 2), (5.0, 5.0, 0)])
    outputs = right(head, truth)
    best = pose.loss(outputs, [truth], spec(head), label_smoothing=0.0)
    assert best.item() == pytest.approx(0.0, abs=1e-4)
    wrong = right(head, truth_of([(30.0, 20.0, 2), (5.0, 5.0, 2)]))
    assert pose.loss(wrong, [truth], spec(head), label_smoothing=0.0).item() > 0.1
    unlabelled = right(head, truth_of([(10.0, 20.0, 2), (40.0, 40.0, 2)]))
    assert pose.loss(unlabelled, [truth], spec(head), label_smoothing=0.0).item() == pytest.approx(0.0, abs=1e-4)


def right(head: str, truth: PoseTruth) -> object:
    """What a perfect network says."""
    points = truth.keypoints[0]
    if head == "heatmap":
        return torch.from_numpy(peaks([truth], (1, 2, 16, 12), sigma=2.0, inner=0.5)[0])
    if head == "regression":
        return torch.from_numpy((points[:, :2] / np.array([48.0, 64.0])).reshape(1, 4).astype(np.float32))
    logits = [
        -((np.arange(2 * side) - 2 * points[:, axis : axis + 1]) ** 2) / (2 * 4.0**2)
        for axis, side in ((0, 48), (1, 64))
    ]
    return tuple(torch.from_numpy(values[None].astype(np.float32)) for values in logits)


@pytest.mark.parametrize("head", ["heatmap", "simcc", "regression"])
def test_it_can_be_learned_and_decoded(head: str) -> None:
    contract = InputContract(size=SIZE)
    truth = truth_of([(10.0, 20.0, 2), (33.0, 41.0, 1)])
    shapes = {"heatmap": [(1, 2, 16, 12)], "simcc": [(1, 2, 96), (1, 2, 128)], "regression": [(1, 2, 2)]}[head]
    given = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    optimizer = torch.optim.Adam(given, lr=0.2 if head != "regression" else 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        outputs = given[0] if len(given) == 1 else tuple(given)
        pose.loss(outputs, [truth], spec(head), label_smoothing=0.0).backward()
        optimizer.step()
    found = pose.decode([item.detach().numpy() for item in given], spec(head), contract)
    np.testing.assert_allclose(found.keypoints[0, :, :2], truth.keypoints[0, :, :2], atol=1.1)


def test_probabilities_and_pixels() -> None:
    truth = truth_of([(10.0, 20.0, 2), (33.0, 41.0, 2)])
    shares = tuple(values.softmax(dim=2) for values in right("simcc", truth))  # type: ignore[attr-defined]
    chosen = spec("simcc", outputs="probabilities")
    assert pose.loss(shares, [truth], chosen, label_smoothing=0.0).item() == pytest.approx(0.0, abs=1e-4)
    pixels = torch.tensor([[10.0, 20.0, 33.0, 41.0]])
    chosen = spec("regression", normalized=False)
    assert pose.loss(pixels, [truth], chosen, label_smoothing=0.0).item() == pytest.approx(0.0, abs=1e-6)
    off = pose.loss(pixels + 4.8, [truth], chosen, label_smoothing=0.0).item()
    assert off == pytest.approx((0.1 + 0.075) / 2, rel=1e-5)


def test_the_largest_person_of_a_picture_counts() -> None:
    both = truth_of([(10.0, 20.0, 2), (5.0, 5.0, 2)], [(40.0, 50.0, 2), (30.0, 30.0, 2)])
    alone = truth_of([(40.0, 50.0, 2), (30.0, 30.0, 2)])
    given = right("regression", alone)
    assert pose.loss(given, [both], spec("regression"), label_smoothing=0.0).item() == pytest.approx(0.0, abs=1e-6)
    nobody = pose.loss(given, [truth_of()], spec("regression"), label_smoothing=0.0)
    assert nobody.item() == 0.0


def test_refusals() -> None:
    truth = truth_of([(10.0, 20.0, 2), (5.0, 5.0, 2)])
    with pytest.raises(ModelError, match="no loss on labels for head movenet"):
        pose.loss(torch.zeros(1, 1, 2, 3), [truth], spec("movenet"), label_smoothing=0.0)
    with pytest.raises(DataError, match="needs data of kind coco-keypoints"):
        pose.loss(torch.zeros(1, 2, 8, 8), [3], spec("heatmap"), label_smoothing=0.0)
    with pytest.raises(DataError, match="2 keypoints, the model 5"):
        pose.loss(torch.zeros(1, 5, 8, 8), [truth], spec("heatmap"), label_smoothing=0.0)


def test_heads_without_a_loss_learn_from_the_teacher_alone() -> None:
    from edgecv.optimize.objectives import train_objective

    assert families.trains(spec("heatmap"))
    assert not families.trains(spec("movenet"))
    contract, teacher = InputContract(size=SIZE), torch.nn.Identity()
    objective = train_objective(spec("movenet"), contract, ["truth"], teacher=teacher, distill=1.0)
    assert not objective.labels
    with pytest.raises(ModelError, match="pose, head movenet, has no loss on labels"):
        train_objective(spec("movenet"), contract, ["truth"], teacher=None, distill=0.0)
