"""What the loss of prototypes asks for, and that a network can learn it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.errors import DataError, ModelError
from edgecv.families import instance, trains
from edgecv.families.instance_truth import InstanceTruth

torch = pytest.importorskip("torch")

LABELS = ("a", "b")
SPEC = FamilySpec("instance", LABELS, head="prototypes")
SIZE = (32, 48)


def truth(*boxes: tuple[int, int, int, int], crowd: Any = None) -> InstanceTruth:
    planes = np.zeros((len(boxes), *SIZE), dtype=bool)
    for plane, (left, top, right, bottom) in zip(planes, boxes, strict=True):
        plane[top:bottom, left:right] = True
    return InstanceTruth.of(planes, np.zeros(len(boxes), dtype=np.int64), crowd)


def outputs(*, mask: float = 6.0, score: float = 0.99) -> tuple[Any, Any]:
    """Of one picture with cells 8 pixels apart: all of them say a box 8..24, 8..24 of class 0, and one mask: where
    prototype 0 is high, its left half."""
    rows = torch.full((1, 4 + 2 + 1, 24), 1e-4)
    rows[:, :4] = torch.tensor([16.0, 16.0, 16.0, 16.0])[:, None]
    cell = 1 * 6 + 1  # its centre is at 12, 12
    rows[:, 4, cell], rows[:, 6] = score, 1.0
    planes = torch.full((1, 1, 16, 24), -mask)
    planes[:, :, 4:12, 4:8] = mask
    return rows, planes


def lost(given: Any, true: InstanceTruth) -> float:
    return float(instance.loss(given, [true], SPEC, label_smoothing=0.0).detach())


def test_a_wrong_mask_costs_and_its_size_does_not_matter() -> None:
    left = truth((8, 8, 16, 24))
    whole = truth((8, 8, 24, 24))
    assert lost(outputs(), whole) > lost(outputs(mask=-6.0), whole) - 1e-3, "half of it is wrong either way"
    assert lost(outputs(score=0.5), whole) > lost(outputs(), whole)
    rows, planes = outputs()
    rows[:, 0], rows[:, 2] = 12.0, 8.0  # a box around the left half alone
    assert lost((rows, planes), left) < 0.2 * lost((rows, -planes), left)


def test_layouts_give_the_same_loss() -> None:
    rows, planes = outputs()
    wanted = lost((rows, planes), truth((8, 8, 24, 24)))
    assert lost((planes, rows), truth((8, 8, 24, 24))) == pytest.approx(wanted)
    assert lost((rows.transpose(1, 2), planes), truth((8, 8, 24, 24))) == pytest.approx(wanted)
    assert lost((rows, planes.movedim(1, -1)), truth((8, 8, 24, 24))) == pytest.approx(wanted)
    assert lost({"rows": rows, "planes": planes}, truth((8, 8, 24, 24))) == pytest.approx(wanted)


def test_crowds_are_no_objects() -> None:
    given = outputs()
    alone = lost(given, truth((8, 8, 24, 24)))
    assert lost(given, truth((8, 8, 24, 24), (30, 0, 48, 32), crowd=[False, True])) == pytest.approx(alone, rel=1e-2)
    assert np.isfinite(lost(given, truth((8, 8, 24, 24), crowd=[True])))
    assert np.isfinite(lost(given, truth()))


def test_what_cannot_be_learned_is_said() -> None:
    assert trains(SPEC)
    rois = replace(SPEC, head="rois")
    assert not trains(rois)
    with pytest.raises(ModelError, match="no loss on labels for head 'rois'"):
        instance.loss(outputs(), [truth()], rois, label_smoothing=0.0)
    with pytest.raises(ModelError, match="does not fit"):
        instance.loss(outputs()[:1], [truth()], SPEC, label_smoothing=0.0)
    boxes = DetectionTruth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), size=SIZE)
    with pytest.raises(DataError, match="instance needs data with masks"):
        instance.loss(outputs(), [boxes], SPEC, label_smoothing=0.0)


def test_a_small_network_learns_boxes_and_masks() -> None:
    from edgecv.models.reference_instance import yolo_seg

    torch.manual_seed(0)
    module = yolo_seg(num_classes=2, prototypes=4, widths=(8, 8, 12, 12), neck=8)
    picture = np.random.default_rng(0).normal(0, 0.3, (1, 3, *SIZE)).astype(np.float32)
    picture[0, 0, 8:24, 8:24] += 2
    inputs, true = torch.from_numpy(picture), truth((8, 8, 24, 24))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    values = []
    for _ in range(60):
        loss = instance.loss(module(inputs), [true], SPEC, label_smoothing=0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.3 * values[0]


def test_distillation_looks_at_boxes_scores_coefficients_and_prototypes() -> None:
    from edgecv.core.contract import InputContract
    from edgecv.optimize.distill import as_distill, output_match

    match = output_match(SPEC, InputContract(size=SIZE), distill=as_distill(1.0))
    teacher = outputs()
    assert float(match(outputs(), teacher)) == pytest.approx(0.0, abs=1e-5)
    for place, change in ((0, (slice(None), 0)), (0, (slice(None), 4)), (0, (slice(None), 6)), (1, (slice(None),))):
        student = outputs()
        student[place][change] *= 0.7
        assert float(match(student, teacher)) > 0.01, "a change of any of them costs"
