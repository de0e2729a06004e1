"""What is trained towards: labels, the teacher, or both, by family and by what the data hold."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecv.core.recipe import FamilySpec
from edgecv.errors import ModelError
from edgecv.optimize.objectives import family_objective, train_objective
from edgecv.optimize.training import TrainPlan, fit

from .tiny_reader import CONTRACT, FAMILY, tiny_net

DETECTION = FamilySpec("detection", ("a",), head="yolo-anchor")
NOTHING = [None] * 4


def test_labels_and_teacher_are_mixed_where_there_are_both() -> None:
    objective = train_objective(FAMILY, CONTRACT, [0, 1], teacher=tiny_net(), distill=0.3)
    assert (objective.labels, objective.distill.weight, objective.score_name) == (True, 0.3, "top1")
    assert objective.score is not None


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_family_without_a_loss_learns_from_the_teacher_alone(share: float) -> None:
    objective = train_objective(DETECTION, CONTRACT, NOTHING, teacher=nn.Identity(), distill=share)
    assert (objective.labels, objective.distill.weight, objective.score) == (False, 1.0, None)
    assert objective.score_name == "minus_distance"
    rows = torch.rand(2, 21, 6)
    assert objective.compare(rows, rows).item() == pytest.approx(0.0, abs=1e-5)


def test_so_does_a_classifier_on_pictures_without_labels() -> None:
    objective = train_objective(FAMILY, CONTRACT, NOTHING, teacher=tiny_net(), distill=1.0)
    assert not objective.labels
    with pytest.raises(ModelError, match=r"no labels and distill is 0\.5; set distill: 1\.0"):
        train_objective(FAMILY, CONTRACT, NOTHING, teacher=tiny_net(), distill=0.5)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ModelError, match="detection, head yolo-anchor, has no loss on labels and distill is 0"):
        train_objective(DETECTION, CONTRACT, NOTHING, teacher=nn.Identity(), distill=0.0)
    with pytest.raises(ModelError, match=r"distill is 0\.5 and there is no teacher"):
        train_objective(FAMILY, CONTRACT, [0], teacher=None, distill=0.5)
    lonely = train_objective(FAMILY, CONTRACT, NOTHING, teacher=tiny_net(), distill=1.0)
    with pytest.raises(ModelError, match=r"distill is 1\.0 and there is no teacher"):
        fit(
            tiny_net(),
            train=None,  # type: ignore[arg-type]
            validation=None,
            objective=type(lonely)(lonely.loss, distill=lonely.distill, labels=False),
            plan=TrainPlan(1, 0.1),
        )


def test_without_a_contract_logits_are_compared() -> None:
    objective = family_objective(FAMILY, teacher=tiny_net(), distill=0.5)
    assert objective.match is None
    assert objective.compare(torch.eye(3), torch.eye(3)).item() == pytest.approx(0.0, abs=1e-6)
