"""Evaluation over a reader, and the outputs that the ladder compares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.measure import accuracy
from edgecv.measure.accuracy import collect_outputs, evaluate, even_indices
from edgecv.measure.subject import Subject, subject
from edgecv.vision.image import preprocess


class Counting:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: dict[str, tuple[int | None, int]] = {}

    def line(self, text: str) -> None:
        raise AssertionError(text)

    @contextmanager
    def task(self, name: str, total: int | None) -> Iterator["Counting"]:
        self._name, self._total, self._done = name, total, 0
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._done += amount
        self.tasks[self._name] = (self._total, self._done)


def test_evaluate_counts_the_wrong_labels(classifier: Subject, colours) -> None:
    progress = Counting()
    figures = evaluate(classifier, colours, progress=progress)
    wrong = [index for index in range(30) if index % 7 == 6]
    assert figures.samples == 30
    assert figures.value == pytest.approx(1 - len(wrong) / 30)
    assert [index for index, score in enumerate(figures.per_sample) if score == 0.0] == wrong
    assert figures.file_sha256 == "f" * 64
    assert progress.tasks == {"evaluate": (30, 30)}


def test_evaluate_goes_through_the_quantised_input(int8_classifier: Subject, classifier: Subject, colours) -> None:
    assert evaluate(int8_classifier, colours).per_sample == evaluate(classifier, colours).per_sample


def test_evaluate_uses_the_contract(classifier: Subject, colours) -> None:
    """With red and blue swapped only the green third can still be right."""
    swapped = replace(classifier, contract=replace(classifier.contract, color="bgr"))
    figures = evaluate(swapped, colours)
    right = [index for index, score in enumerate(figures.per_sample) if score == 1.0]
    assert {index for index in right if index % 7 != 6} == {index for index in range(1, 30, 3) if index % 7 != 6}


def test_evaluate_refuses_an_empty_set_and_a_wrong_metric(classifier: Subject, colours) -> None:
    with pytest.raises(DataError, match="no picture"):
        evaluate(classifier, type(colours)(0))
    with pytest.raises(UsageError, match="top1, top5"):
        evaluate(classifier, colours, metric="miou")


def test_collect_outputs_are_real_values_in_order(int8_classifier: Subject, colours) -> None:
    indices = [4, 2, 29]
    (found,) = collect_outputs(int8_classifier, colours, indices=indices)
    assert found.shape == (3, 3)
    assert found.dtype == np.float32
    wanted = [preprocess(colours[index].image, int8_classifier.contract).mean(axis=(1, 2)) for index in indices]
    np.testing.assert_allclose(found, wanted, atol=1 / 255)


def test_collect_outputs_are_bounded(classifier: Subject, colours, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="at least one"):
        collect_outputs(classifier, colours, indices=[])
    monkeypatch.setattr(accuracy, "MAX_COLLECT_BYTES", 5 * 12)
    collect_outputs(classifier, colours, indices=range(5))
    with pytest.raises(DataError, match=r"6 samples need 72 bytes.*Take 5 samples"):
        collect_outputs(classifier, colours, indices=range(6))


def test_even_indices() -> None:
    assert even_indices(10, 5) == [0, 2, 4, 6, 8]
    assert even_indices(3, 10) == [0, 1, 2]
    assert even_indices(0, 10) == []
    for total, wanted in ((500, 100), (7, 3), (101, 100)):
        found = even_indices(total, wanted)
        assert len(set(found)) == wanted
        assert found == sorted(found)
        assert max(found) < total


def test_subject_lists_every_problem(classifier: Subject) -> None:
    spec = replace(classifier.spec, labels=("red", "green"))
    with pytest.raises(ModelError) as caught:
        subject(classifier.engine, spec=spec, contract=InputContract(size=(9, 8)))
    assert "(1, 3, 9, 8)" in str(caught.value)
    assert "(1, 3)" in str(caught.value).splitlines()[1]


def test_subject_takes_the_manifests_tensors(classifier: Subject) -> None:
    """An engine that does not know its layout is used with the manifest's."""
    classifier.engine.inputs = (replace(classifier.engine.inputs[0], layout="OTHER"),)  # type: ignore[misc]
    with pytest.raises(ModelError, match="layout OTHER"):
        subject(classifier.engine, spec=classifier.spec, contract=classifier.contract)
    known = (TensorSpec("x", (1, 3, 8, 8), "float32", "NCHW"),)
    assert (
        subject(classifier.engine, spec=classifier.spec, contract=classifier.contract, inputs=known).input == known[0]
    )
