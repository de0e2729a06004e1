"""Video: the answer, how long it was looked at, its drawing, its metric and its loss."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.contract import Clip, InputContract
from edgecv.core.protocols import Seen
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families import video
from edgecv.vision.draw import Brief, Drawable, picture_of

SPEC = FamilySpec("video", ("still", "left", "wave"), outputs="probabilities")
CONTRACT = InputContract(size=(8, 8), clip=Clip(4, 8.0))


def answer(*scores: float) -> video.Action:
    return video.decode([np.array([scores], np.float32)], SPEC, CONTRACT)


def test_the_best_class_and_the_time_that_it_was_told_from() -> None:
    found = answer(0.1, 0.2, 0.7)
    assert found.best == 2
    assert found.brief() == "wave"
    assert found.to_dict() == {"classes": found.classes.to_dict()["classes"]}
    assert isinstance(found, Seen)
    seen = found.seen(0.37549)
    assert seen.to_dict()["seconds"] == 0.375
    assert seen.words() == "wave 0.700, left 0.200, still 0.100 (last 0.4 s)"
    assert video.agree(found, seen)
    assert not video.agree(found, answer(0.5, 0.3, 0.2))


def test_outputs_that_do_not_fit_are_refused() -> None:
    assert video.problems(SPEC, (TensorSpec("y", (1, 3), "float32"),)) == []
    assert "3 labels" in video.problems(SPEC, (TensorSpec("y", (1, 5), "float32"),))[0]
    assert "video needs" in video.problems(SPEC, ())[0]
    with pytest.raises(ModelError, match="NaN"):
        answer(np.nan, 0.0, 0.0)


def test_top1_and_top5_over_clips() -> None:
    metric = video.metric(SPEC, "top1")
    for scores, truth in (((0.9, 0.1, 0.0), 0), ((0.2, 0.5, 0.3), 1), ((0.2, 0.5, 0.3), 2), ((0.0, 0.1, 0.9), 2)):
        metric.update(answer(*scores), truth)
    figures = metric.compute()
    assert (figures.metric, figures.value, figures.samples) == ("top1", 0.75, 4)
    assert figures.per_sample == (1.0, 1.0, 0.0, 1.0)
    assert figures.extras["top5"] == 1.0
    with pytest.raises(DataError, match="true class"):
        metric.update(answer(1.0, 0.0, 0.0), 3)
    with pytest.raises(UsageError, match="video has no metric 'ap'"):
        video.metric(SPEC, "ap")


def test_the_answer_is_drawn() -> None:
    found = answer(0.1, 0.2, 0.7).seen(1.0)
    assert isinstance(found, Drawable)
    assert isinstance(found, Brief)
    image = np.full((240, 320, 3), 90, np.uint8)
    drawn = picture_of(image, found)
    changed = (drawn != image).any(axis=2)
    assert changed[:60].sum() > 200, "the label"
    assert not changed[140:].any()
    assert (image == 90).all()


def test_the_loss_falls_with_the_right_answer() -> None:
    torch = pytest.importorskip("torch")
    logits = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    spec = FamilySpec("video", SPEC.labels)
    right = video.loss(logits, torch.tensor([0, 1]), spec, label_smoothing=0.0)
    wrong = video.loss(logits, torch.tensor([2, 0]), spec, label_smoothing=0.0)
    assert float(right) < 0.1 < 3 < float(wrong)


def test_a_small_picture_keeps_its_lower_half() -> None:
    image = np.full((72, 96, 3), 90, np.uint8)
    drawn = picture_of(image, answer(0.1, 0.2, 0.7))
    assert (drawn[:30] != 90).any()
    assert (drawn[40:] == 90).all()
