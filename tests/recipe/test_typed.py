from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.core.recipe import Finetune
from edgecv.core.target import Target, ThermalZone
from edgecv.errors import RecipeError
from edgecv.recipe.typed import did_you_mean, load_typed, part, shown, validate

TARGET = {
    "target": 1,
    "name": "b",
    "title": "B",
    "backend": "litert",
    "arch": "aarch64",
    "precisions": ["int8"],
    "sources": ["x"],
}


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    target, found = validate(Target, {**TARGET, "thermal_zones": [{"name": "cpu", "throttle_c": 80}]})
    assert found == []
    assert target is not None
    assert target.precisions == ("int8",)
    assert target.thermal_zones == (ThermalZone("cpu", 80.0),)


@pytest.mark.parametrize(
    ("key", "value", "where", "words"),
    [
        ("backend", "tflite", ("backend",), "allowed: onnxruntime, openvino, litert, coreml, tensorrt, null"),
        ("backend", None, ("backend",), "is null, not text; write it in quotes: 'null'"),
        ("precisions", ["int4"], ("precisions", 0), "allowed: fp32, fp16, int8"),
        ("threads", True, ("threads",), "is true; needed: a whole number"),
        ("threads", "4", ("threads",), "is '4'; needed: a whole number"),
        ("memory_mb", 0, ("memory_mb",), "is 0; it must be at least 1"),
        ("engine_options", [1], ("engine_options",), "is [1]; needed: a mapping"),
        ("thermal_zones", [{"nme": "x"}], ("thermal_zones", 0, "nme"), "did you mean 'name'"),
        ("thermal_zones", [3], ("thermal_zones", 0), "a mapping with name, throttle_c, shutdown_c"),
        ("power_modes", [{"name": "x", "watts": "5"}], ("power_modes", 0, "watts"), "needed: a number"),
        ("target", True, ("target",), "allowed: 1"),
        ("name", "A b", ("name",), "must match"),
    ],
)
def test_messages_say_value_and_what_is_allowed(key: str, value: object, where: tuple[object, ...], words: str) -> None:
    target, found = validate(Target, {**TARGET, key: value})
    assert target is None
    assert where in dict(found)
    assert words in dict(found)[where]  # type: ignore[index]


@pytest.mark.parametrize("value", [None, 3, "x", [], True])
def test_what_is_no_mapping(value: object) -> None:
    target, found = validate(Target, value)
    assert target is None
    assert "needed: a mapping with target, name" in found[0][1]


def test_only_the_branch_that_was_meant_is_reported() -> None:
    _, found = validate(Finetune, {"epochs": 1, "distill": {"weight": 2, "temperature": 0}})
    assert [path for path, _ in found] == [("distill", "weight"), ("distill", "temperature")]
    _, found = validate(Finetune, {"epochs": 1, "distill": "x"})
    assert [path for path, _ in found] == [("distill",)]


def test_a_section_alone() -> None:
    assert part(Finetune, {"epochs": 3}) == Finetune(epochs=3)
    assert part(Finetune, {"epochs": -1}) is None
    assert part(Finetune, None) is None


def test_load_typed_lists_all_problems_by_line(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text("target: 1\nname: b\ntitle: 3\nbackend: litert\narch: arm\nprecisions: []\nname: c\n")
    with pytest.raises(RecipeError) as caught:
        load_typed(path, Target)
    assert [(item.line, item.where) for item in caught.value.problems] == [
        (1, "sources"),
        (3, "title"),
        (5, "arch"),
        (7, "name"),
    ]


def test_hints_need_some_likeness() -> None:
    assert did_you_mean("epoch", ["epochs", "lr"]) == " (did you mean 'epochs'?)"
    assert did_you_mean("zzz", ["epochs", "lr"]) == ""


def test_values_are_shown_short() -> None:
    assert shown(None) == "null"
    assert shown({"a": 1}) == "a mapping"
    assert shown([1] * 9) == "[1, 1, 1, 1, 1, 1, ...]"
    assert len(shown("x" * 500)) == 60
