"""Found settings written into a recipe's text; comments, order and everything else stay as the user wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from edgecv.errors import Problem, RecipeError
from edgecv.recipe.yaml_lines import parse_yaml

__all__ = ["set_step_fields"]


def set_step_fields(text: str, changes: Mapping[str, Any], *, step: str, file: str) -> str:
    """The recipe ``text`` with ``changes`` in its first step of kind ``step``, such as quantize.

    Values are true or false, numbers, words, or sequences of words. A field that stands there gets its new value; a
    missing one is added to the step, in the style (block or flow) that the step is written in.

    Raises:
        RecipeError: the text is not YAML, has no such step, or is written in a way (anchors, aliases) in which the
            change cannot be made; ``file`` names it.
    """
    for key, value in changes.items():
        node = _step(text, step, file)
        found = [pair for pair in node.value if pair[0].value == key]
        if found:
            _, old = found[0]
            start, end = old.start_mark.index, _end(text, old)
            text = text[:start] + _written(value) + text[end:]
        elif node.flow_style:
            at = node.end_mark.index - 1
            before = text[:at].rstrip()
            comma = "" if before.endswith(("{", ",")) else ","
            space = "" if before.endswith("{") else " "
            text = f"{before}{comma}{space}{key}: {_written(value)}{text[at:]}"
        else:
            first = node.value[0][0].start_mark
            text = f"{text[: first.index]}{key}: {_written(value)}\n{' ' * first.column}{text[first.index :]}"
    _check(text, changes, step=step, file=file)
    return text


def _step(text: str, step: str, file: str) -> yaml.MappingNode:
    """The mapping of the step in the text; only composed, so that nothing in it can make an object."""
    parse_yaml(text, file=file)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value != "steps" or not isinstance(value, yaml.SequenceNode):
            continue
        for item in value.value:
            for name, fields in item.value if isinstance(item, yaml.MappingNode) else ():
                if name.value == step and isinstance(fields, yaml.MappingNode) and fields.value:
                    return fields
    message = f"has no {step} step with fields that settings could be written into; add one"
    raise RecipeError([Problem(file, None, "steps", message)])


def _end(text: str, node: yaml.Node) -> int:
    """Where a value ends: a block value's mark stands behind the blank lines and comments that follow it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(text, last[1] if isinstance(last, tuple) else last)


def _written(value: Any) -> str:
    if isinstance(value, str) and value.replace("-", "").isalnum() and not value.isdigit():
        return value
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(json.dumps(item) for item in value) + "]"
    return json.dumps(value)


def _check(text: str, changes: Mapping[str, Any], *, step: str, file: str) -> None:
    steps = parse_yaml(text, file=file).value.get("steps", [])
    fields = next(item[step] for item in steps if isinstance(item, dict) and step in item)
    for key, value in changes.items():
        wanted = list(value) if isinstance(value, tuple) else value
        if fields.get(key) != wanted:
            message = (
                f"cannot be changed here: {key} would become {fields.get(key)!r} and not {wanted!r}; edit the file"
            )
            raise RecipeError([Problem(file, None, f"steps.{step}", message)])
