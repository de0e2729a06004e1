from __future__ import annotations

from typing import Any

import pytest

from edgecv.core.recipe import DataSpec, Finetune, Quantize
from edgecv.recipe.rules import broken_rules, data_problems, typed_steps, with_defaults


@pytest.mark.parametrize("plain", [{}, {"model": 3, "data": [], "steps": {}, "targets": None, "family": "x"}])
def test_sections_that_are_missing_or_wrong_are_passed_over(plain: dict[str, Any]) -> None:
    assert broken_rules(plain) == []


def test_only_sound_steps_are_typed() -> None:
    steps = [{"finetune": {"epochs": 3}}, {"prune": {"ratio": 7}}, "x", {"a": 1}, {"quantize": {"method": "qat"}}]
    assert typed_steps(steps) == [
        (("steps", 0, "finetune"), Finetune(epochs=3)),
        (("steps", 4, "quantize"), Quantize("qat")),
    ]
    assert typed_steps(None) == []


@pytest.mark.parametrize(
    ("spec", "places"),
    [
        (DataSpec("sklearn-digits", split="test"), []),
        (DataSpec("imagefolder", path="x"), []),
        (DataSpec("csv", path="x.csv", root="y"), []),
        (DataSpec("sklearn-digits", path="x", root="y"), [("path",), ("root",)]),
        (DataSpec("imagefolder", split="train", root="y"), [(), ("split",), ("root",)]),
        (DataSpec("csv"), [()]),
    ],
)
def test_keys_that_go_with_a_kind_of_data(spec: DataSpec, places: list[tuple[str, ...]]) -> None:
    assert [where for where, _ in data_problems(spec)] == places


def test_only_qat_without_calibration_gets_a_default() -> None:
    train = {"kind": "sklearn-digits", "split": "train"}
    qat = {"data": {"train": train}, "steps": [{"quantize": {"method": "qat"}}]}
    picked = with_defaults(qat)["data"]["calibration"]
    assert picked == {"source": train, "samples": 128, "select": "stratified"}
    assert "calibration" not in qat["data"]
    for plain in (
        {**qat, "steps": [{"quantize": {"method": "ptq"}}]},
        {**qat, "data": {"train": train, "calibration": "x"}},
        {**qat, "data": {"train": 3}},
        {"steps": qat["steps"]},
    ):
        assert with_defaults(plain) == plain


@pytest.mark.parametrize("source", ["python:f", "python::f", "python:m:"])
def test_python_sources_name_a_function(source: str) -> None:
    (found,) = broken_rules({"model": {"source": source}})
    assert found[0] == ("model", "source")
    assert broken_rules({"model": {"source": "python:a.b:c"}}) == []
