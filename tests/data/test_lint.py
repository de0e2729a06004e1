"""What makes a calibration set unfit, on made and on real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.progress import SilentProgress
from edgecv.core.protocols import Reader
from edgecv.core.recipe import DataSpec
from edgecv.core.tensor import Array
from edgecv.data.digits import open_digits
from edgecv.data.files import Entry, Listing, check_files
from edgecv.data.lint import LintFinding, lint_calibration, objects_finding, refuse, saturation_finding
from edgecv.data.readers import LabelledReader, open_reader
from edgecv.data.selection import Rule, pick
from edgecv.data.subset import SubsetReader
from edgecv.errors import DataError

from .conftest import encoded, picture
from .memory_reader import MemoryReader

TWO = ["cat", "dog"]


def lint(
    calibration: Reader,
    contract: InputContract,
    *,
    evaluation: Reader | None = None,
    labels: Sequence[str] = TWO,
    select: Rule = "random",
) -> dict[str, LintFinding]:
    found = lint_calibration(calibration, evaluation, labels=labels, contract=contract, select=select)
    assert [finding.level for finding in found] == sorted(finding.level for finding in found)
    return {finding.code: finding for finding in found}


def pictures(count: int, *, first: int = 0) -> list[Array]:
    return [picture(first + index, height=32, width=32) for index in range(count)]


def reader_of(images: Sequence[Array]) -> MemoryReader:
    """With both classes in turn."""
    return MemoryReader(images, [index % 2 for index in range(len(images))])


def test_sound_set(contract: InputContract) -> None:
    assert lint(reader_of(pictures(64)), contract, evaluation=reader_of(pictures(200, first=500))) == {}


@pytest.mark.parametrize(("count", "level"), [(7, "error"), (8, "warning"), (63, "warning"), (64, None)])
def test_too_few(count: int, level: str | None, contract: InputContract) -> None:
    found = lint(reader_of(pictures(count)), contract)
    assert (found["too-few"].level if found else None) == level


@pytest.mark.parametrize(("copies", "level"), [(1, "warning"), (31, "warning"), (40, "error")])
def test_duplicates(copies: int, level: str, contract: InputContract) -> None:
    images = pictures(64 - copies)
    found = lint(reader_of(images + [images[0]] * copies), contract)["duplicates"]
    assert (found.level, found.figure) == (level, copies / 64)


def test_near_duplicates(contract: InputContract) -> None:
    """The same picture dimmed and compressed again is found; other pictures are not."""
    images = pictures(60)
    edited = [
        cv2.imdecode(np.frombuffer(encoded((image * 0.9 + 9).astype(np.uint8), ".jpg"), np.uint8), 1)
        for image in images[:6]
    ]
    found = lint(reader_of(images + edited), contract)["near-duplicates"]
    assert found.level == "warning"
    assert found.figure == pytest.approx(6 / 66)
    assert "near-duplicates" not in lint(reader_of(images), contract)


def test_near_duplicates_beyond_one_block(contract: InputContract) -> None:
    images = pictures(300)
    edited = [(image * 0.9 + 9).astype(np.uint8) for image in images[:50]]
    found = lint(reader_of(images + edited), contract)["near-duplicates"]
    assert found.figure == pytest.approx(50 / 350)


def test_classes(contract: InputContract) -> None:
    images = pictures(64)
    one = lint(MemoryReader(images, [1] * 64), contract)["one-class"]
    assert (one.level, "dog" in one.message) == ("error", True)
    assert "one-class" not in lint(MemoryReader(images, [0] * 64), contract, labels=["only"])
    labels = [f"class-{index}" for index in range(10)]
    missing = lint(MemoryReader(images, [index % 8 for index in range(64)]), contract, labels=labels)["missing-classes"]
    assert (missing.level, missing.figure, missing.limit) == ("warning", 8, 10)
    assert "class-8, class-9" in missing.message


def test_many_classes_need_not_all_be_there(contract: InputContract) -> None:
    images = pictures(64)
    labels = [f"class-{index}" for index in range(1000)]
    assert lint(MemoryReader(images, range(64)), contract, labels=labels) == {}
    few = lint(MemoryReader(images, [index % 5 for index in range(64)]), contract, labels=labels)["missing-classes"]
    assert (few.figure, few.limit) == (5, 32)
    assert "and 990 more" in few.message


@pytest.mark.parametrize(("blank", "level"), [(1, "warning"), (10, "error")])
def test_blank(blank: int, level: str, contract: InputContract) -> None:
    flat = [np.full((32, 32, 3), 40 + index, np.uint8) for index in range(blank)]
    assert lint(reader_of(pictures(64) + flat), contract)["blank"].level == level


@pytest.mark.parametrize(("shared", "level"), [(0, None), (2, "warning"), (10, "error")])
def test_leak(shared: int, level: str | None, contract: InputContract) -> None:
    evaluation = pictures(100, first=500)
    found = lint(reader_of(pictures(64) + evaluation[:shared]), contract, evaluation=reader_of(evaluation))
    assert (found["leak"].level if "leak" in found else None) == level


def test_saturated_pixels(contract: InputContract) -> None:
    masks = [np.where(image > 127, 255, 0).astype(np.uint8) for image in pictures(64)]
    alone = lint(reader_of(masks), contract)["saturated-pixels"]
    assert (alone.level, alone.figure) == ("warning", 1.0)
    compared = lint(reader_of(masks), contract, evaluation=reader_of(pictures(200, first=500)))
    assert compared["saturated-pixels"].limit < 0.5
    assert "saturated-pixels" not in lint(reader_of(masks), contract, evaluation=reader_of(masks))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda image: image // 3, "contrast|brightness|layout"),
        (lambda image: cv2.blur(cv2.resize(image[:4, :4], (32, 32)), (9, 9)), "sharpness|contrast"),
    ],
)
def test_shift_of_made_pictures(change: object, name: str, contract: InputContract) -> None:
    assert callable(change)
    found = lint(
        reader_of([change(image) for image in pictures(64)]), contract, evaluation=reader_of(pictures(300, first=500))
    )
    assert found["shift"].level == "error"
    assert any(f"the mean {part} " in found["shift"].message for part in name.split("|"))


def test_shift_of_layout_alone(contract: InputContract) -> None:
    """Bright above in one set, bright below in the other: as bright, as sharp, as much contrast."""
    ramp = np.linspace(0, 127, 32)[:, np.newaxis, np.newaxis]
    below = [(image * 0.5 + ramp).astype(np.uint8) for image in pictures(364)]
    above = [np.flipud(image) for image in below[:64]]
    found = lint(reader_of(above), contract, evaluation=reader_of(below[64:]))["shift"]
    assert found.level == "error"
    assert "the mean layout is" in found.message
    assert "shift" not in lint(reader_of(below[:64]), contract, evaluation=reader_of(below[64:]))


@pytest.fixture(scope="module")
def cifar(shared_data: Path, cifar_labels: Sequence[str]) -> tuple[LabelledReader, LabelledReader]:
    """Training and test pictures."""
    train, test = (
        open_reader(
            DataSpec(kind="imagefolder", path=f"cifar10-mini/{part}", limit=600), base=shared_data, labels=cifar_labels
        )
        for part in ("train", "test")
    )
    return train, test


@pytest.fixture(scope="module")
def street(shared_data: Path) -> Reader:
    """Eight street scenes, in classes only for the form."""
    paths = sorted((shared_data / "camvid-mini" / "images").iterdir())
    entries = tuple(Entry(path.name, path, index) for index, path in enumerate(paths))
    return check_files(Listing("camvid-mini", entries), SilentProgress())


@pytest.mark.parametrize("select", ["random", "stratified", "k-center"])
@pytest.mark.parametrize("samples", [64, 128])
def test_set_of_the_right_kind_passes(
    select: Rule,
    samples: int,
    cifar: tuple[LabelledReader, LabelledReader],
    cifar_labels: Sequence[str],
    contract: InputContract,
) -> None:
    train, test = cifar
    for seed in range(3):
        picked = pick(train, labels=cifar_labels, samples=samples, select=select, seed=seed, contract=contract)
        found = lint(SubsetReader(train, picked), contract, evaluation=test, labels=cifar_labels, select=select)
        assert set(found) <= {"missing-classes"}


def test_street_scenes_for_cifar10_are_refused(
    street: Reader, cifar: tuple[LabelledReader, LabelledReader], cifar_labels: Sequence[str], contract: InputContract
) -> None:
    found = lint_calibration(street, cifar[1], labels=cifar_labels, contract=contract)
    assert ("shift", "error") in {(finding.code, finding.level) for finding in found}
    with pytest.raises(DataError, match="shift: the pictures are unlike the evaluation set's"):
        refuse(found)


@pytest.mark.parametrize("select", ["stratified", "k-center"])
def test_cifar10_for_street_scenes_and_digits_for_cifar10_are_refused(
    select: Rule,
    street: Reader,
    cifar: tuple[LabelledReader, LabelledReader],
    cifar_labels: Sequence[str],
    digit_labels: Sequence[str],
    contract: InputContract,
) -> None:
    digits = open_digits(split="train", labels=digit_labels, limit=None)
    for source, evaluation in ((cifar[0], street), (digits, cifar[1])):
        picked = pick(source, labels=cifar_labels, samples=64, select=select, seed=0, contract=contract)
        found = lint(SubsetReader(source, picked), contract, evaluation=evaluation, labels=cifar_labels, select=select)
        assert found["shift"].level == "error"
        assert found["shift"].figure > 2 * found["shift"].limit


def test_digits_pass_for_digits(digit_labels: Sequence[str], gray: InputContract) -> None:
    train = open_digits(split="train", labels=digit_labels, limit=128)
    test = open_digits(split="test", labels=digit_labels, limit=None)
    assert lint(train, gray, evaluation=test, labels=digit_labels) == {}


def test_refuse_lists_errors_only() -> None:
    warning = LintFinding("warning", "too-few", "a warning", 10, 64)
    refuse([])
    refuse([warning])
    errors = [LintFinding("error", code, f"about {code}", 1, 0) for code in ("leak", "shift")]
    with pytest.raises(DataError) as caught:
        refuse([warning, *errors])
    assert "leak: about leak\n  shift: about shift" in str(caught.value)
    assert "a warning" not in str(caught.value)


@pytest.mark.parametrize(("mine", "other", "told"), [(0.24, 9, True), (0, 0.1, True), (2.25, 9, False), (0, 0, False)])
def test_few_objects(mine: float, other: float, *, told: bool) -> None:
    found = objects_finding(mine, other, ranges="mse")
    assert (found is not None) == told
    if found is not None:
        assert "or set `ranges: minmax`" in found.message
        assert "set `ranges" not in str(objects_finding(mine, other))
        assert (found.level, found.code, found.limit) == ("warning", "few-objects", 0.25)
        assert found.figure == pytest.approx(mine / other)
        assert f"sure of {mine:.2g} objects a picture here and of {other:.2g}" in found.message


def test_saturation_finding() -> None:
    assert saturation_finding({}) is None
    assert saturation_finding({"conv1": 0.01, "conv2": 0.0}) is None
    warning = saturation_finding({"conv1": 0.02, "conv2": 0.05, "conv3": 0.0})
    assert warning is not None
    assert (warning.level, warning.figure, warning.limit) == ("warning", 0.05, 0.01)
    assert "conv2 (5.0%), conv1 (2.0%)" in warning.message
    error = saturation_finding({f"layer{index}": 0.1 + index / 100 for index in range(1, 6)})
    assert error is not None
    assert (error.level, error.code, error.limit) == ("error", "saturated-activations", 0.1)
    assert "and 2 more" in error.message


@pytest.mark.parametrize(
    ("ranges", "said", "not_said"),
    [
        ("minmax", "Add pictures like those of the evaluation set", "set `ranges: minmax`"),
        ("mean-minmax", "`ranges: mean-minmax` takes the mean of the pictures' ranges", "widest range that these"),
        ("mse", "`ranges: mse` cuts the rarest values by design", "mean of the pictures"),
    ],
)
def test_advice_on_saturation_fits_the_rule_that_set_the_ranges(ranges: str, said: str, not_said: str) -> None:
    found = saturation_finding({"conv1": 0.05}, ranges=ranges)
    assert found is not None
    assert "conv1 (5.0%)" in found.message
    assert said in found.message
    assert not_said not in found.message
    assert ("set `ranges: minmax`" in found.message) == (ranges != "minmax")
