"""Truths and results that are named by trying; thresholds and suppression are tested on a real detector."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Classification
from edgecv.measure.diagnose_decode import diagnose_decode, diagnose_labels, diagnose_truths, same_results
from edgecv.measure.golden import Golden, decoded
from edgecv.measure.ladder import Outputs

LABELS = ("cat", "dog", "fox")
SPEC = FamilySpec("classification", LABELS)
CONTRACT = InputContract((4, 4))


def answers(best: list[int]) -> list[Classification]:
    scores = np.array([0.5, 0.3, 0.2], dtype=np.float32)
    return [Classification(scores, np.array([index]), LABELS) for index in best]


def golden(spec: FamilySpec = SPEC) -> Golden:
    outputs = Outputs("graph", (np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32),))
    pictures = tuple(np.zeros((4, 4, 3), np.uint8) for _ in range(5))
    results = decoded(outputs, pictures, spec, CONTRACT)
    return Golden(pictures, np.zeros((5, 3, 4, 4), np.float32), outputs, results)


def test_truths_in_another_order_are_named() -> None:
    truths = [0, 1, 2] * 8
    (cause,) = diagnose_truths(answers([1, 2, 0] * 8), truths)
    assert (cause.rung, cause.what) == ("metric", "order of the labels")
    assert (cause.found, cause.expected) == ("0 cat, 1 dog, 2 fox", "0 dog, 1 fox, 2 cat")
    assert "0% of 24" in cause.evidence
    assert "100%" in cause.evidence


@pytest.mark.parametrize(
    "best",
    [
        [0, 1, 2] * 8,  # right
        [0, 0, 0] * 8,  # always the same answer: a broken model, not other names
        [2, 0, 1, 0, 1, 2, 1, 2, 0] * 3,  # chance
    ],
)
def test_nothing_is_made_up_about_truths(best: list[int]) -> None:
    assert diagnose_truths(answers(best), ([0, 1, 2] * 9)[: len(best)]) == ()
    assert diagnose_truths([], []) == ()


@pytest.mark.parametrize(
    ("real", "what", "found", "expected"),
    [
        (FamilySpec("classification", LABELS, outputs="probabilities"), "outputs", "logits", "probabilities"),
        (FamilySpec("classification", LABELS, top_k=2), "top_k", "5", "2"),
    ],
)
def test_a_setting_of_a_classifier_is_named(real: FamilySpec, what: str, found: str, expected: str) -> None:
    made = golden(real)
    mine = decoded(made.outputs, made.pictures, SPEC, CONTRACT)
    assert not same_results(mine, made.results)
    (cause,) = diagnose_decode(made, SPEC, CONTRACT, found=mine)
    assert (cause.rung, cause.what, cause.found, cause.expected) == ("decode", what, found, expected)


def test_results_that_no_setting_gives_are_said_so() -> None:
    made = golden()
    other = tuple({"classes": [{"id": 1, "label": "dog", "score": 0.123}]} for _ in made.results)
    broken = Golden(made.pictures, made.inputs, made.outputs, other)
    (cause,) = diagnose_decode(broken, SPEC, CONTRACT, found=made.results)
    assert cause.what == "the same outputs are decoded to other results"
    assert "15 entries against 5" in cause.evidence


def test_names_are_not_results_and_rounding_is_no_difference() -> None:
    one = [{"classes": [{"id": 1, "label": "dog", "score": 0.5}]}]
    assert same_results(one, [{"classes": [{"id": 1, "label": "fox", "score": 0.50004}]}])
    assert not same_results(one, [{"classes": [{"id": 1, "label": "dog", "score": 0.51}]}])
    assert not same_results(one, [{"classes": [{"id": 2, "label": "dog", "score": 0.5}]}])
    assert not same_results(one, [{"classes": []}])


def test_a_new_name_is_not_called_an_order() -> None:
    made = golden()
    other = decoded(made.outputs, made.pictures, FamilySpec("classification", ("cat", "dog", "wolf")), CONTRACT)
    (cause,) = diagnose_labels(made, other)
    assert (cause.what, cause.found, cause.expected) == ("labels", "2 wolf", "2 fox")
    assert diagnose_labels(made, made.results) == ()
