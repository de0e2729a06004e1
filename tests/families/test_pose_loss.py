"""Losses of pose networks: targets by hand, least at the truth, blind to what is not labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

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


def persons() -> PoseTruth:
    """Two persons and a crowd, one keypoint without a label."""
    points = np.array([[[12, 14, 2], [20, 30, 1]], [[34, 40, 2], [40, 50, 0]], [[0, 0, 0], [0, 0, 0]]], np.float32)
    boxes = np.array([[8, 8, 26, 36], [28, 30, 46, 60], [0, 48, 8, 64]], np.float32)
    return PoseTruth(points, boxes, np.array([400, 420, 100], np.float32), np.array([False, False, True]), SIZE)


def yolo_rows(points: np.ndarray) -> Any:
    """Rows `(1, 11, 48)` of stride 8: each cell within a person's box tells that box and its ``points`` `(2, 2, 2)`."""
    truth, y, x = persons(), *np.mgrid[0:8, 0:6] * 8 + 4
    rows = np.zeros((11, 48), np.float32)
    rows[:4] = np.array([4, 4, 2, 2], np.float32)[:, None]
    for person in (0, 1):
        x1, y1, x2, y2 = truth.boxes[person]
        inside = ((x > x1) & (x < x2) & (y > y1) & (y < y2)).ravel()
        rows[:5, inside] = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 1.0], np.float32)[:, None]
        seen = truth.labelled[person].astype(np.float32)
        rows[5:, inside] = np.concatenate([points[person], seen[:, None]], axis=1).ravel()[:, None]
    return torch.from_numpy(rows[None])


@pytest.mark.parametrize("turned", [False, True])
def test_yolo_pose_by_similarity(turned: bool) -> None:
    truth, options = persons(), spec("yolo-pose", sigmas=[0.1, 0.05])

    def lost(points: np.ndarray) -> float:
        rows = yolo_rows(points)
        return float(pose.loss((rows.transpose(1, 2) if turned else rows,), [truth], options, label_smoothing=0.0))

    right = truth.keypoints[:2, :, :2]
    best = lost(right)
    unlabelled = right.copy()
    unlabelled[1, 1] += 9
    assert lost(unlabelled) == pytest.approx(best, abs=1e-6)
    moved = right.copy()
    moved[0, 0, 0] += 3
    # One keypoint of two, of one person of two with about as many cells: similarity falls to exp(-d² / (8 s² sigma²)).
    away = 1 - np.exp(-9 / (8 * 400 * 0.1**2))
    assert lost(moved) - best == pytest.approx(8.0 * away / 4, rel=0.35)


def test_yolo_pose_of_nobody_and_of_other_keypoints() -> None:
    nobody = truth_of()
    rows = yolo_rows(persons().keypoints[:2, :, :2])
    assert torch.isfinite(pose.loss((rows,), [nobody], spec("yolo-pose", sigmas=[0.1, 0.1]), label_smoothing=0.0))
    with pytest.raises(DataError, match="option sigmas has 0 numbers for 2 keypoints"):
        pose.loss((rows,), [persons()], spec("yolo-pose"), label_smoothing=0.0)


@pytest.mark.build
def test_yolo_pose_learns_scenes_by_heart() -> None:
    pytest.importorskip("faster_coco_eval")
    from edgecv.core.recipe import DataSpec
    from edgecv.data.readers import open_reader
    from edgecv.models.reference_pose import yolo_pose
    from edgecv.optimize.batches import make_batches

    contract = InputContract(size=(128, 160), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    reader = open_reader(DataSpec("scenes-keypoints", split="train", limit=8), base=Path(), labels=("person",))
    inputs, truths = next(make_batches(reader, contract, batch_size=8)(0))
    pictures, options = torch.from_numpy(inputs), replace(spec("yolo-pose"), score_threshold=0.05)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = yolo_pose().train()

    def judged() -> float:
        metric = families.pose.metric(options, "oks_ap")
        for picture, truth in zip(pictures, truths, strict=True):
            with torch.no_grad():
                outputs = [network.eval()(picture[None]).numpy()]
            metric.update(families.pose.decode(outputs, options, contract), truth)
        return metric.compute().value

    before, steps = judged(), 150
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        loss = pose.loss((network.train()(pictures),), truths, options, label_smoothing=0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert before < 0.05
    assert judged() > 0.7
