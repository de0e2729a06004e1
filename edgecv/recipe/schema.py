"""JSON Schema (draft 2020-12) of recipes and targets, for editors and for other tools.

Made from the same dataclasses as the loader's checks. Rules between values of different sections
(``ptq`` needs ``data.calibration``) and everything on disk are the loader's alone.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from edgecv.core.kinds import DATA_KINDS
from edgecv.core.recipe import STEP_KEYS, Recipe
from edgecv.core.target import Target

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """Schema of a recipe as `load_recipe` takes it, with the short forms of steps, weights and labels."""
    schema = TypeAdapter(Recipe).json_schema(mode="validation")
    definitions = schema["$defs"]
    steps = schema["properties"]["steps"]
    steps["items"] = {
        "type": "object",
        "description": "one step: a mapping with one key",
        "properties": {key: {"$ref": f"#/$defs/{kind.__name__}"} for key, kind in STEP_KEYS.items()},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    schema["properties"]["targets"]["uniqueItems"] = True
    _also_text(
        definitions["ModelSpec"]["properties"]["weights"], "a path, or a URL that ends in #sha256=<64 hex digits>"
    )
    _also_text(definitions["FamilySpec"]["properties"]["labels"], "a text file with one name a line, or imagenet-1k")
    goals = [_given(name, "number") for name in ("speedup", "ratio", "latency_ms")]
    definitions["Prune"]["oneOf"] = [*goals, {"required": ["pattern"], "properties": {"pattern": {"const": "2:4"}}}]
    definitions["Weights"]["oneOf"] = [_given("path", "string"), _given("url", "string", "sha256")]
    no_path = [kind for kind, facts in DATA_KINDS.items() if facts.path == "none"]
    bundled = {"properties": {"kind": {"enum": no_path}}, "required": ["kind"]}
    definitions["DataSpec"] |= {
        "if": bundled,
        "then": {"properties": {"path": {"type": "null"}}},
        "else": {**_given("path", "string"), "properties": {"path": {"type": "string"}, "split": {"const": "all"}}},
    }
    return _finish(schema, "edgecv recipe")


def target_schema() -> dict[str, Any]:
    """Schema of a target file as `load_target` takes it."""
    return _finish(TypeAdapter(Target).json_schema(mode="validation"), "edgecv target")


def _also_text(place: dict[str, Any], description: str) -> None:
    """Let a short text stand for the value at ``place``."""
    kept = {key: place.pop(key) for key in list(place) if key not in ("description", "default")}
    options = kept.pop("anyOf", None) or [kept]
    place["anyOf"] = [*options, {"type": "string", "minLength": 1, "description": description}]


def _given(name: str, kind: str, *others: str) -> dict[str, Any]:
    """``name`` (and ``others``, as text) is there and not null."""
    properties = {name: {"type": kind}, **{other: {"type": "string"} for other in others}}
    return {"required": [name, *others], "properties": properties}


def _finish(schema: dict[str, Any], title: str) -> dict[str, Any]:
    return {"$schema": DRAFT, "title": title, **_without_titles(schema)}


def _without_titles(value: Any) -> Any:
    """pydantic names everything twice; a text ``title`` says nothing that the key does not say."""
    if isinstance(value, dict):
        return {
            key: _without_titles(item) for key, item in value.items() if key != "title" or not isinstance(item, str)
        }
    return [_without_titles(item) for item in value] if isinstance(value, list) else value
