"""`edgecv init --family`: a recipe that loads, with the head that fits and data that the family is judged by."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv import families
from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.recipe import CalibrationSpec
from edgecv.errors import RecipeError
from edgecv.recipe.load import load_recipe
from edgecv.recipe.starter import starter_recipe
from edgecv.recipe.starter_families import fitting_heads, judged_families


def write_onnx(path: Path, shape: list[int]) -> None:
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    save(helper.make_model(graph), str(path))


def test_every_family_with_data_can_be_begun() -> None:
    assert {"classification", "detection", "embedding"} <= set(judged_families())


@pytest.mark.parametrize("family", [kind for kind in judged_families() if kind != "classification"])
def test_a_recipe_of_each_family_loads(family: str, tmp_path: Path) -> None:
    text = starter_recipe("python:my_nets:build", family=family)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    recipe = load_recipe(path, env={}, check_files=False).recipe
    assert recipe.family.kind == family
    assert recipe.data.eval.kind in FAMILY_KINDS[recipe.family.kind].data
    assert isinstance(recipe.data.calibration, CalibrationSpec)
    clips = FAMILY_KINDS[recipe.family.kind].clips
    assert recipe.data.calibration.source.kind == (recipe.data.eval.kind if clips else "images")
    assert recipe.budgets.accuracy is not None
    assert recipe.budgets.accuracy.metric == families.get(family).METRICS[0]
    assert "finetune" not in text
    assert (recipe.model.input.resize == "letterbox") == (family == "detection")


def test_a_detectors_head_is_told_by_its_outputs(tmp_path: Path) -> None:
    write_onnx(tmp_path / "v8.onnx", [1, 84, 126])  # strides 8, 16 and 32 of 64 x 96 have 96 + 24 + 6 places
    text = starter_recipe("onnx:v8.onnx", family="detection", base=tmp_path)
    line = next(line for line in text.splitlines() if line.startswith("  head: "))
    assert "yolo" in line
    assert "ssd" not in line
    assert " of them" in text
    assert ("yolo", 80) in fitting_heads("detection", [(1, 84, 126)])
    assert fitting_heads("detection", []) == []


def test_an_unknown_family_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(RecipeError, match=r"'detecton'.*did you mean.*detection"):
        starter_recipe("python:m:f", family="detecton")
    with pytest.raises(RecipeError, match="allowed: classification, detection"):
        starter_recipe("python:m:f", family="music")
