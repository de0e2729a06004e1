"""Distillation: the losses against their formulas, by family; the mix; the recipe's two forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgecv.core.contract import InputContract
from edgecv.core.recipe import Distill, FamilySpec
from edgecv.errors import ModelError
from edgecv.families.detection_rows import Cells
from edgecv.optimize.distill import (
    as_distill,
    cells_loss,
    class_logits,
    distillation_loss,
    heatmap_loss,
    mixed_loss,
    output_match,
    tensors_loss,
)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_is_the_scaled_divergence(temperature: float) -> None:
    student, teacher = np.random.default_rng(0).normal(size=(2, 5, 7))
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = (p * (np.log(p) - np.log(q))).sum(axis=1).mean() * temperature**2
    loss = distillation_loss(torch.tensor(student), torch.tensor(teacher), temperature=temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_loss_is_zero_for_equal_logits_up_to_a_shift() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert distillation_loss(logits, logits + 5.0, temperature=2.0).item() == pytest.approx(0.0, abs=1e-6)


def test_mix_goes_from_task_to_teacher() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    task = torch.tensor(3.0)
    soft = distillation_loss(student, teacher, temperature=4.0)
    for weight in (0.0, 0.25, 1.0):
        mixed = mixed_loss(task, soft, weight=weight)
        assert mixed.item() == pytest.approx((1 - weight) * 3.0 + weight * soft.item())


def test_a_number_is_the_weight() -> None:
    assert as_distill(0.3) == Distill(weight=0.3)
    assert as_distill(Distill(weight=1.0, temperature=2.0)).temperature == 2.0
    with pytest.raises(ValueError, match=r"distill weight is 1\.5"):
        as_distill(1.5)


def test_probabilities_become_logits() -> None:
    spec = FamilySpec(kind="classification", labels=("a", "b"), outputs="probabilities")
    probabilities = torch.tensor([[0.2, 0.8], [0.0, 1.0]])
    assert torch.allclose(class_logits(probabilities, spec).softmax(dim=1), probabilities, atol=1e-6)
    logits = torch.ones(2, 3, 1, 1)
    assert class_logits((logits,), FamilySpec(kind="classification", labels=("a",))).shape == (2, 3)


CONTRACT = InputContract(size=(32, 32))


def cells(**changes: torch.Tensor) -> Cells:
    """Two cells of one picture: a sure object, and background."""
    values: dict[str, torch.Tensor] = {
        "scores": torch.tensor([[[0.9, 0.1], [0.1, 0.1]]]),
        "objectness": torch.tensor([[1.0, 0.0]]),
        "boxes": torch.tensor([[[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 4.0, 4.0]]]),
    }
    return Cells(**{**values, **changes})  # type: ignore[arg-type]


def test_cells_that_agree_cost_nothing_also_empty_ones() -> None:
    assert cells_loss(cells(), cells()).item() == pytest.approx(0.0, abs=1e-6)
    empty = cells(boxes=torch.zeros(1, 2, 4))
    assert cells_loss(empty, empty).item() == pytest.approx(0.0, abs=1e-6)


def test_boxes_and_classes_count_where_the_teacher_sees_something() -> None:
    moved = torch.tensor([[[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 4.0, 4.0]]])
    # One object of confidence 0.9 (below one object, the sum counts as one): 1 - GIoU = 1 - 1/3, corners off by
    # half a box in x and nothing in y.
    assert cells_loss(cells(boxes=moved), cells()).item() == pytest.approx(0.9 * (2 / 3 + 0.25), rel=1e-4)
    behind = torch.tensor([[[0.0, 0.0, 2.0, 2.0], [9.0, 9.0, 12.0, 12.0]]])
    assert cells_loss(cells(boxes=behind), cells()).item() == pytest.approx(0.0, abs=1e-6)
    other = torch.tensor([[[0.9, 0.1], [0.9, 0.1]]])
    assert cells_loss(cells(scores=other), cells()).item() == pytest.approx(0.0, abs=1e-6)
    assert cells_loss(cells(scores=other.flip(2)), cells()).item() > 1.0


def test_an_object_that_the_teacher_does_not_see_costs() -> None:
    assert cells_loss(cells(objectness=torch.tensor([[1.0, 0.5]])), cells()).item() > 0.3
    without = {"objectness": None}
    seen = cells(scores=torch.tensor([[[0.9, 0.1], [0.9, 0.1]]]), **without)  # type: ignore[arg-type]
    assert cells_loss(seen, cells(**without)).item() > 0.5  # type: ignore[arg-type]


def test_a_score_that_was_rounded_to_zero_has_a_bounded_gradient() -> None:
    scores = torch.zeros(1, 2, 2, requires_grad=True)
    cells_loss(cells(scores=scores), cells()).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert 1.0 < float(scores.grad.abs().max()) < 1000


def test_heatmaps_weigh_the_peaks_and_not_the_scale() -> None:
    teacher = torch.zeros(1, 1, 4, 4)
    teacher[0, 0, 1, 1] = 1.0
    peak, background = teacher.clone(), teacher.clone()
    peak[0, 0, 1, 1] -= 0.5
    background[0, 0, 3, 3] += 0.5
    assert heatmap_loss(peak, teacher).item() == pytest.approx(10 * heatmap_loss(background, teacher).item())
    assert heatmap_loss(peak * 7, teacher * 7).item() == pytest.approx(heatmap_loss(peak, teacher).item())


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (FamilySpec("classification", ("a", "b")), (2, 2)),
        (FamilySpec("detection", ("a",), head="yolox"), (2, 21, 6)),
        (FamilySpec("detection", ("a",), head="yolo-end2end"), (2, 5, 6)),
        (FamilySpec("pose", ("person",), head="heatmap"), (2, 4, 8, 8)),
        (FamilySpec("pose", ("person",), head="simcc"), (2, 4, 16)),
        (FamilySpec("pose", ("person",), head="movenet"), (2, 1, 4, 3)),
        (FamilySpec("pose", ("person",), head="yolo-pose"), (2, 17, 30)),
        (FamilySpec("embedding", ("person",)), (2, 8)),
        (FamilySpec("segmentation", ("a", "b", "c")), (2, 3, 4, 4)),
        (FamilySpec("segmentation", ("a",), outputs="probabilities"), (2, 1, 4, 4)),
        (FamilySpec("restoration", ("picture",)), (2, 3, 4, 4)),
    ],
)
def test_every_family_pulls_the_student_to_its_teacher(spec: FamilySpec, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.rand(shape, generator=generator) * 0.8 + 0.1
    match = output_match(spec, CONTRACT, distill=Distill(weight=1.0))
    both = 2 if spec.head == "simcc" else 1
    assert match([teacher] * both, [teacher] * both).item() == pytest.approx(0.0, abs=1e-5)
    student = (torch.rand(shape, generator=generator) * 0.8 + 0.1).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = match([student] * both, [teacher] * both)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_pose_output_of_another_layout_is_refused() -> None:
    match = output_match(FamilySpec("pose", ("person",), head="yolo-pose"), CONTRACT, distill=Distill(weight=1.0))
    with pytest.raises(ModelError, match=r"\(1, 4, 9\)"):
        match(torch.zeros(1, 4, 9), torch.zeros(1, 4, 9))


def test_any_tensors_can_be_compared() -> None:
    one, other = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}, (torch.tensor([1.0, 1.0]), torch.ones(1))
    assert tensors_loss(one, other).item() == pytest.approx((0.5 + 4.0) / 2)
