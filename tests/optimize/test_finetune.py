"""The fine-tuning step: what is held out, what is kept, the teacher, the loss of the family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgecv.core.protocols import Sample
from edgecv.core.recipe import Distill, FamilySpec, Finetune
from edgecv.errors import DataError, ModelError
from edgecv.models.two_stage import TwoStage
from edgecv.optimize.batches import make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import (
    FinetuneResult,
    TrainSet,
    can_have_channels_last,
    class_score,
    family_objective,
    finetune,
    held_out,
)

from .tiny_reader import CONTRACT, FAMILY, TinyReader, tiny_net

STEP = Finetune(epochs=5, lr=0.02, batch_size=16, validation=0.2)


class OnlyClass(TinyReader):
    """The pictures of one class of another reader."""

    def __init__(self, reader: TinyReader, wanted: int) -> None:
        super().__init__(reader.count // 3)
        self.wanted = wanted

    @property
    def truths(self) -> Sequence[int]:
        return [self.wanted] * self.count

    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(index * 3 + self.wanted)


def run(step: Finetune = STEP, *, reader: TinyReader | None = None, **options: Any) -> FinetuneResult:
    data = TrainSet(reader or TinyReader(90), CONTRACT, FAMILY)
    return finetune(tiny_net(), step=step, data=data, devices=Devices("cpu"), **options)


def test_it_learns_and_judges_on_the_held_out_share() -> None:
    reader = TinyReader(90)
    result = run(reader=reader)
    assert result.held_out == 18
    assert result.best_score is not None
    assert result.best_score > 0.9
    assert len(result.losses) == result.epochs_run == 5
    assert sorted(set(reader.reads)) == list(range(90))


def test_a_network_of_three_dimensional_convolutions_learns_too() -> None:
    """Only those of pictures know a form with the channels last."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep, self.inner = nn.Conv3d(1, 4, (1, 3, 3), padding=(0, 1, 1)), tiny_net()
            self.back = nn.Conv3d(4, 1, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.inner(self.back(self.deep(inputs.unsqueeze(2))).squeeze(2))
            return found

    data = TrainSet(TinyReader(90), CONTRACT, FAMILY)
    result = finetune(Deep(), step=replace(STEP, epochs=2), data=data, devices=Devices("cpu"))
    assert result.losses[1] < result.losses[0]


@pytest.mark.parametrize(
    ("layer", "may"),
    [
        (nn.Conv2d(12, 24, 1, stride=2), False),
        (nn.Conv2d(16, 24, 1, stride=2), True),
        (nn.Conv2d(12, 24, 1), True),
        (nn.Conv2d(12, 24, 3, stride=2), True),
        (nn.Conv3d(16, 24, 1), False),
    ],
)
def test_channels_come_last_but_where_a_gradient_would_write_past_its_memory(layer: nn.Module, *, may: bool) -> None:
    assert can_have_channels_last(nn.Sequential(nn.Conv2d(3, 12, 3), layer)) is may


def test_training_never_sees_a_held_out_sample_and_the_split_is_fixed() -> None:
    data = TrainSet(TinyReader(90), CONTRACT, FAMILY)
    train, validation = held_out(data, share=0.2, seed=3, batch_size=8)
    assert set(train.train.indices).isdisjoint(validation.indices)
    assert len(train.train.indices) + len(validation.indices) == 90
    assert held_out(data, share=0.2, seed=3, batch_size=8)[1].indices == validation.indices
    assert train.train.shuffle_seed == 3
    assert validation.shuffle_seed is None


def test_a_validation_set_judges_and_nothing_is_held_out() -> None:
    data = TrainSet(TinyReader(90), CONTRACT, FAMILY, TinyReader(30))
    train, validation = held_out(data, share=0.2, seed=3, batch_size=8)
    assert sorted(train.train.indices) == list(range(90))
    assert list(validation.indices) == list(range(30))
    assert validation.reader is data.validation


def test_it_is_repeatable_and_resumable(tmp_path: Path) -> None:
    first = run(checkpoint=tmp_path / "run.pt")
    # All epochs are in the checkpoint: the second run only takes the result out of it.
    reader = TinyReader(90)
    again = run(checkpoint=tmp_path / "run.pt", reader=reader)
    assert reader.reads == []
    for one in (again, run()):
        assert one.losses == first.losses
        assert torch.equal(one.module[-1].weight, first.module[-1].weight)


def test_a_teacher_is_needed_for_distillation() -> None:
    step = Finetune(epochs=1, distill=Distill(weight=0.5))
    with pytest.raises(ModelError, match=r"distill is 0\.5 and there is no teacher"):
        run(step)
    assert run(step, teacher=tiny_net(seed=1)).epochs_run == 1


def test_a_teacher_teaches_by_pictures_without_labels_what_the_training_set_does_not_show() -> None:
    teacher = run().module
    shown = OnlyClass(TinyReader(90), 0)
    step = Finetune(epochs=8, lr=0.02, batch_size=16, validation=0.2, distill=Distill(weight=0.9, temperature=2.0))
    right = []
    for unlabelled in (None, TinyReader(60)):
        data = TrainSet(shown, CONTRACT, FAMILY, unlabelled=unlabelled)
        module = finetune(tiny_net(seed=3), step=step, data=data, teacher=teacher, devices=Devices("cpu")).module
        batch, truths = next(iter(make_batches(TinyReader(90), CONTRACT, batch_size=90)(0)))
        right.append(float((module(torch.from_numpy(batch)).argmax(dim=1).numpy() == truths).mean()))
    assert right[0] < 0.6
    assert right[1] > 0.9


def test_pictures_without_labels_need_a_teacher_that_counts() -> None:
    data = TrainSet(TinyReader(60), CONTRACT, FAMILY, unlabelled=TinyReader(60))
    assert held_out(data, share=0.2, seed=0, batch_size=8)[0].extra is None
    assert held_out(data, share=0.2, seed=0, batch_size=8, teaching=0.5)[0].extra is not None


def test_beside_pictures_without_labels_a_handful_does_not_choose_the_epoch() -> None:
    data = TrainSet(TinyReader(60), CONTRACT, FAMILY, unlabelled=TinyReader(60))
    lessons, validation = held_out(data, share=0.3, seed=0, batch_size=8, teaching=0.5)
    assert (len(lessons.train), validation) == (60, None)
    many = replace(data, reader=TinyReader(90))
    lessons, validation = held_out(many, share=0.3, seed=0, batch_size=8, teaching=0.5)
    assert validation is not None
    assert len(lessons.train) + len(validation) == 90
    given = replace(data, validation=TinyReader(6))
    assert held_out(given, share=0.3, seed=0, batch_size=8, teaching=0.5)[1] is not None
    result = finetune(
        tiny_net(),
        step=Finetune(epochs=3, batch_size=16, distill=0.5),
        data=data,
        teacher=tiny_net(seed=1),
        devices=Devices("cpu"),
    )
    assert (result.best_epoch, result.held_out, result.best_score) == (2, 0, None)


def test_a_two_stage_network_takes_no_pictures_without_labels() -> None:
    data = TrainSet(TinyReader(60), CONTRACT, FAMILY, unlabelled=TinyReader(60))
    with pytest.raises(ModelError, match=r"one picture at a time; remove data\.unlabelled"):
        finetune(
            TwoStage.__new__(TwoStage),
            step=Finetune(epochs=1, distill=1.0),
            data=data,
            teacher=tiny_net(),
            devices=Devices("cpu"),
        )


def test_a_set_that_is_too_small() -> None:
    with pytest.raises(DataError, match="at least 2"):
        run(reader=TinyReader(1))


class Probabilities(nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(dim=1)


def test_score_and_loss_leave_the_background_out() -> None:
    spec = FamilySpec(kind="classification", labels=("a", "b"), background=True)
    logits = torch.tensor([[9.0, 1.0, 0.0], [0.0, 0.0, 5.0]])
    truths = torch.tensor([0, 1])
    assert class_score(spec)(logits, truths) == 1.0
    loss = family_objective(spec).loss(logits, truths)
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(logits, truths + 1).item())


def test_probabilities_train_like_their_logits() -> None:
    spec = FamilySpec(kind="classification", labels=("a", "b", "c"), outputs="probabilities")
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    truths = torch.tensor([0, 1, 2, 0])
    given = family_objective(spec).loss(Probabilities()(logits), truths)
    assert given.item() == pytest.approx(nn.functional.cross_entropy(logits, truths).item(), rel=1e-5)
