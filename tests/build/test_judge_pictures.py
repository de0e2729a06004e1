"""The ladder's own pictures: never of calibration, never of evaluation, and labelled where that can be had."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.build.context import Context, Hardware
from edgecv.build.inputs import gather
from edgecv.build.judge_pictures import ENOUGH_SPARE, GIVEN_UP, open_for_repair
from edgecv.build.plan import make_plan
from edgecv.build.store import Store
from edgecv.core.progress import SilentProgress
from edgecv.data.digits import open_digits
from edgecv.data.subset import spare
from edgecv.errors import DataError
from edgecv.recipe.load import load_recipe
from tests.data.memory_reader import MemoryReader

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RECIPE = """\
recipe: 1
name: held
model:
  source: python:edgecv.models.reference:digits_cnn
  input: {{size: [32, 32], color: gray, mean: [0.0], std: [1.0], resize: stretch}}
family: {{kind: classification, labels: [zero, one, two, three, four, five, six, seven, eight, nine]}}
data:
  eval: {{kind: sklearn-digits, split: test}}
{data}
steps: [{{quantize: {{method: ptq, repair: {repair}}}}}]
targets: [host-onnxruntime]
budgets: {{accuracy: {{metric: top1, max_drop: 0.03}}}}
"""
TRAIN = "  train: {kind: sklearn-digits, split: train, limit: 200}\n"
SAME = "  calibration: {source: {kind: sklearn-digits, split: train, limit: 200}, samples: 64}\n"


def context(folder: Path, data: str) -> Context:
    repair = "full" if "unlabelled" in data else "ptq"
    (folder / "held.yaml").write_text(RECIPE.format(data=data, repair=repair))
    loaded = load_recipe(folder / "held.yaml")
    plan = make_plan(loaded, inputs=gather(loaded))
    return Context(plan, Store(folder / "store"), SilentProgress(), folder / "log", Hardware())


def pictures(folder: Path, count: int) -> str:
    """Unlabelled files of digits, as the calibration section of a recipe that takes 64 of them."""
    (folder / "pictures").mkdir()
    source = open_digits(split="train", labels=LABELS, limit=count)
    for index in range(len(source)):
        assert cv2.imwrite(str(folder / f"pictures/{index:03d}.png"), source[index].image)
    return "  calibration: {source: {kind: images, path: pictures}, samples: 64}\n"


def hashes(reader: object) -> set[str]:
    return {reader.sha256(index) for index in range(len(reader))}  # type: ignore[attr-defined]


def check(made: Context) -> tuple[int, int, bool, str]:
    """Sizes of calibration and judge, whether there are labels, and where from; the three sets share no picture."""
    recipe = made.plan.recipe
    calibration, _, judge = open_for_repair(made, recipe)
    sets = [hashes(calibration), hashes(judge.reader), hashes(made.reader(recipe.data.eval))]
    assert len(set.union(*sets)) == sum(map(len, sets))
    return len(calibration), len(judge.reader), judge.labelled, judge.origin


def test_spare_training_pictures_with_labels_come_first(tmp_path: Path) -> None:
    assert check(context(tmp_path, TRAIN + SAME)) == (64, 136, True, "the training set")


def test_the_training_set_is_preferred_for_its_labels(tmp_path: Path) -> None:
    data = TRAIN + pictures(tmp_path, 120)
    assert check(context(tmp_path, data)) == (64, 200, True, "the training set")


def test_without_a_training_set_what_calibration_leaves_is_taken(tmp_path: Path) -> None:
    assert check(context(tmp_path, SAME)) == (64, 136, True, "the set that calibration picks from")


def test_pictures_without_labels_judge_by_likeness(tmp_path: Path) -> None:
    data = pictures(tmp_path, 64 + ENOUGH_SPARE)
    assert check(context(tmp_path, data)) == (64, ENOUGH_SPARE, False, "the set that calibration picks from")


def test_a_set_that_calibration_uses_up_gives_some_of_it(tmp_path: Path) -> None:
    data = pictures(tmp_path, 64 + ENOUGH_SPARE - 1)
    assert check(context(tmp_path, data)) == (48, 16, False, "the calibration set, held out of it")


def test_a_manifest_keeps_its_pictures_where_its_source_has_more(root: Path, tmp_path: Path) -> None:
    found = check(context(tmp_path, f"  calibration: {root / 'calibration/digits-128.yaml'}\n"))
    assert found[0] == 128
    assert found[1] > 900
    assert found[2:] == (True, "the set that calibration picks from")


def test_a_validation_set_judges_before_all_others(tmp_path: Path) -> None:
    data = TRAIN + SAME + "  validation: {kind: sklearn-digits, split: train, limit: 300}\n"
    calibration, judged, labelled, origin = check(context(tmp_path, data))
    assert (calibration, labelled, origin) == (64, True, "the validation set")
    assert 300 - 64 <= judged < 300


def test_pictures_of_the_evaluation_set_are_taken_out_of_validation(tmp_path: Path) -> None:
    made = context(tmp_path, TRAIN + SAME + "  validation: {kind: sklearn-digits}\n")
    validation = made.validation()
    assert validation is not None
    evaluated = made.reader(made.plan.recipe.data.eval)
    assert not hashes(validation) & hashes(evaluated)
    assert len(validation) > len(evaluated)


def test_a_validation_set_of_evaluated_pictures_alone_is_refused(tmp_path: Path) -> None:
    made = context(tmp_path, TRAIN + SAME + "  validation: {kind: sklearn-digits, split: test, limit: 500}\n")
    with pytest.raises(DataError, match=r"has 500 pictures, and 0 of them .* Name other pictures, or remove"):
        made.validation()


TAUGHT = "  unlabelled: {kind: sklearn-digits}\n"


def test_pictures_without_labels_are_none_that_prove_or_choose_anything(tmp_path: Path) -> None:
    made = context(tmp_path, TRAIN + SAME + TAUGHT + "  validation: {kind: sklearn-digits, split: train, limit: 100}\n")
    unlabelled, validation = made.unlabelled(), made.validation()
    assert unlabelled is not None
    assert validation is not None
    evaluated = made.reader(made.plan.recipe.data.eval)
    assert not hashes(unlabelled) & (hashes(evaluated) | hashes(validation))
    assert len(unlabelled) > 1000


def test_pieces_are_cut_out_of_pictures_that_judge_nothing_once_each(tmp_path: Path) -> None:
    pictures(tmp_path, 10)
    (tmp_path / "pictures/copy.png").write_bytes((tmp_path / "pictures/003.png").read_bytes())
    made = context(tmp_path, TRAIN + SAME + "  unlabelled: {kind: images, path: pictures, pieces: 3}\n").unlabelled()
    assert made is not None
    assert list(made.ids) == [f"{index:03d}.png#{number}" for index in range(10) for number in range(3)]
    assert {made[index].image.shape[0] == made[index].image.shape[1] for index in range(30)} == {True}


def test_evaluated_pictures_alone_are_no_lesson(tmp_path: Path) -> None:
    made = context(tmp_path, TRAIN + SAME + TAUGHT.replace("digits}", "digits, split: test}"))
    with pytest.raises(DataError, match=r"pictures of data.unlabelled are in data.eval or data.validation"):
        made.unlabelled()


def test_a_training_is_done_anew_for_other_pictures_without_labels(tmp_path: Path) -> None:
    tuned = [
        next(step for step in context(tmp_path, TRAIN + SAME + more).plan.steps if step.kind == "quantize")
        for more in ("", TAUGHT, TAUGHT.replace("digits}", "digits, limit: 100}"))
    ]
    assert len({step.key for step in tuned}) == 3


def test_a_validation_set_that_calibration_uses_up_is_refused(tmp_path: Path) -> None:
    made = context(
        tmp_path, SAME.replace("200", "64") + "  validation: {kind: sklearn-digits, split: train, limit: 64}\n"
    )
    with pytest.raises(DataError, match=r"of the 64 pictures of data.validation 0 are not in the calibration set"):
        open_for_repair(made, made.plan.recipe)


def test_too_small_a_set_is_refused_with_what_to_do(tmp_path: Path) -> None:
    made = context(tmp_path, pictures(tmp_path, 15))
    with pytest.raises(DataError, match=f"has 15: one in {GIVEN_UP} is held out, 4 at least, .* Raise data.calib"):
        open_for_repair(made, made.plan.recipe)


def test_good_pictures_alone_judge_by_likeness(root: Path, tmp_path: Path) -> None:
    """AUROC holds good pictures against defective ones, of which a training set has none."""
    sets = ["data.train.limit=112", "data.eval.limit=24", "steps=[{quantize: {method: ptq, repair: ptq}}]"]
    loaded = load_recipe(root / "recipes/anomaly/scenes-student.yaml", sets=sets)
    plan = make_plan(loaded, inputs=gather(loaded))
    made = Context(plan, Store(tmp_path / "store"), SilentProgress(), tmp_path / "log", Hardware())
    calibration, judged, labelled, origin = check(made)
    assert (calibration, judged, labelled, origin) == (64, 48, False, "the training set")


def test_copies_are_never_spare() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (8, 8), dtype=np.uint8) for _ in range(4)]
    reader = MemoryReader([images[0], images[1], images[1], images[2], images[3]])
    assert spare(reader, {reader.sha256(3)}) == [0, 1, 4]
