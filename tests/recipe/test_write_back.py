from __future__ import annotations

from typing import Any

import pytest

from edgecv.errors import RecipeError
from edgecv.recipe.write_back import set_step_fields
from edgecv.recipe.yaml_lines import parse_yaml

FLOW = """\
# my network
steps:
  - prune: {speedup: 2.0}  # half
  - quantize: {method: ptq, ranges: minmax}  # int8 for all
targets: [host-openvino]  # here
"""
BLOCK = """\
steps:
  # int8
  - quantize:
      # no training
      method: ptq   # ptq for now
      keep_float:
        - head   # the head
        - stem

      ranges: minmax

# boards
targets: [host-openvino]
"""
CHANGES: dict[str, Any] = {"ranges": "mean-minmax", "equalize": True, "adaround": ("layer1.*", "a,b"), "epochs": 3}


def fields(text: str) -> Any:
    return next(step["quantize"] for step in parse_yaml(text, file="r.yaml").value["steps"] if "quantize" in step)


@pytest.mark.parametrize("text", [FLOW, BLOCK])
def test_fields_are_changed_and_all_else_stays(text: str) -> None:
    made = set_step_fields(text, CHANGES, step="quantize", file="r.yaml")
    found = fields(made)
    assert {name: found[name] for name in CHANGES} == {**CHANGES, "adaround": ["layer1.*", "a,b"]}
    assert found["method"] == "ptq"
    for line in text.splitlines():
        if "#" in line:
            assert line[line.index("#") :] in made
    other = parse_yaml(text, file="r.yaml").value
    assert parse_yaml(made, file="r.yaml").value["targets"] == other["targets"]


def test_a_block_list_is_replaced_whole() -> None:
    made = set_step_fields(BLOCK, {"keep_float": ("a", "b.*")}, step="quantize", file="r.yaml")
    assert fields(made) == {"method": "ptq", "keep_float": ["a", "b.*"], "ranges": "minmax"}
    assert "# boards" in made


def test_the_flow_form_reads_as_a_person_would_write_it() -> None:
    made = set_step_fields(FLOW, {"ranges": "mse", "equalize": True}, step="quantize", file="r.yaml")
    assert "  - quantize: {method: ptq, ranges: mse, equalize: true}  # int8 for all\n" in made


def test_no_changes_no_change() -> None:
    assert set_step_fields(FLOW, {}, step="quantize", file="r.yaml") == FLOW


@pytest.mark.parametrize("text", ["name: x\n", "steps: []\n", "steps:\n  - prune: {speedup: 2}\n", "- a\n"])
def test_a_recipe_without_the_step_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="no quantize step"):
        set_step_fields(text, {"equalize": True}, step="quantize", file="r.yaml")


def test_the_result_can_be_changed_again() -> None:
    once = set_step_fields(BLOCK, CHANGES, step="quantize", file="r.yaml")
    twice = set_step_fields(once, {**CHANGES, "adaround": ()}, step="quantize", file="r.yaml")
    assert fields(twice)["adaround"] == []
