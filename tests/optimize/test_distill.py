"""Distillation: the loss against its formula, the mix, the recipe's two forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgecv.core.recipe import Distill, FamilySpec
from edgecv.optimize.distill import as_distill, class_logits, distillation_loss, mixed_loss


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
        mixed = mixed_loss(task, student, teacher, distill=Distill(weight=weight))
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
