"""Plain values -> the frozen dataclasses of `edgecv.core`, with every problem in words.

pydantic checks types and the bounds in the fields' metadata; this file says what it found in the
terms of the person who wrote the YAML: the value, what is allowed, and the key that was meant.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from edgecv.core.recipe import STEP_KEYS, Recipe
from edgecv.errors import RecipeError
from edgecv.recipe.yaml_lines import MAX_BYTES, KeyPath, read_yaml

T = TypeVar("T")
Found = tuple[KeyPath, str]
"""A problem on its way to its line: where in the values, and what is wrong."""

_VERSION_KEYS = ("recipe", "target", "calibration")
_TYPE_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_BOUND_WORDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def load_typed(path: Path, kind: type[T], *, max_bytes: int = MAX_BYTES) -> T:
    """Read a YAML file as the dataclass ``kind`` (Target, CalibrationManifest, ...).

    `Recipe` is better read by `edgecv.recipe.load.load_recipe`, which also checks what the values
    point at.

    Raises:
        RecipeError: the file cannot be read or has problems; all of them are listed.
    """
    document = read_yaml(path, max_bytes=max_bytes)
    value, found = validate(kind, document.value)
    problems = [*document.problems, *(document.problem(where, message) for where, message in found)]
    if value is None or problems:
        raise RecipeError(sorted(problems, key=lambda problem: problem.line or 0))
    return value


def validate(kind: type[T], value: Any) -> tuple[T | None, list[Found]]:
    """``value`` (plain dicts and lists) as ``kind``, or None and everything that is wrong with it."""
    found: list[Found] = []
    if isinstance(value, dict):
        # To Python True equals 1, so Literal[1] lets it pass.
        found += [((key,), "is true; allowed: 1") for key in _VERSION_KEYS if value.get(key) is True]
    if kind is not Recipe or not isinstance(value, dict):
        result, more = _validate(kind, value)
        return (None if found else result), found + more
    steps, wrong_steps = _validate_steps(value.get("steps", []))
    recipe, wrong = _validate(Recipe, {**value, "steps": []})
    found += wrong + wrong_steps
    if recipe is None or found:
        return None, found
    return dataclasses.replace(recipe, steps=tuple(steps)), []  # type: ignore[return-value]


def part(kind: type[T], value: Any) -> T | None:
    """One section of a file as ``kind``; None where it is missing or wrong (`validate` says why)."""
    if not isinstance(value, dict):
        return None
    result, _ = _validate(kind, value)
    return result


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint " (did you mean 'X'?)" for a word close to a known one, otherwise ""."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f" (did you mean {near[0]!r}?)" if near else ""


def shown(value: Any) -> str:
    """A value as a message shows it: YAML-like, at most 60 letters."""
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        text = "[" + ", ".join(shown(item) for item in value[:6]) + (", ..." if len(value) > 6 else "") + "]"
    elif isinstance(value, str):
        text = repr(value)
    else:
        text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validate(kind: type[T], value: Any) -> tuple[T | None, list[Found]]:
    try:
        # Through JSON: there strict mode takes a list for a tuple, and still refuses "3" for 3.
        result: T = _adapter(cast(Any, kind)).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        found: dict[Found, None] = {}
        for detail in error.errors(include_url=False):
            spot = _locate(kind, detail["loc"], value)
            if spot is not None:
                found[(spot.path, _message(detail, spot))] = None
        return None, list(found)
    return result, []


def _validate_steps(value: Any) -> tuple[list[Any], list[Found]]:
    if not isinstance(value, list):
        return [], [(("steps",), f"is {shown(value)}; a list is needed, such as [{{quantize: {{method: ptq}}}}]")]
    steps, found = [], []
    for index, item in enumerate(value):
        where: KeyPath = ("steps", index)
        if not isinstance(item, dict) or len(item) != 1:
            what = "keys " + ", ".join(map(repr, item)) if isinstance(item, dict) and item else shown(item)
            found.append((where, f"is {what}; a step has one key: {', '.join(STEP_KEYS)}"))
            continue
        (key, content), *_ = item.items()
        if key not in STEP_KEYS:
            hint = did_you_mean(key, STEP_KEYS)
            found.append(((*where, key), f"unknown step {key!r}{hint}; allowed: {', '.join(STEP_KEYS)}"))
            continue
        step, wrong = _validate(STEP_KEYS[key], content)
        steps.append(step)
        found += [((*where, key, *path), message) for path, message in wrong]
    return steps, found


@dataclasses.dataclass(frozen=True)
class _Spot:
    """Where an error is, in the file's own terms, and the types there."""

    path: KeyPath
    kind: Any
    parent: Any
    value: Any


def _locate(kind: Any, loc: KeyPath, value: Any) -> _Spot | None:
    """Follow pydantic's location; None for the branch of a union that the value was never meant for."""
    path: list[str | int] = []
    parent: Any = None
    for name in loc:
        members = _members(kind)
        if len(members) > 1:
            if not isinstance(value, dict):
                return _Spot(tuple(path), kind, parent, value)
            chosen = next(member for member in members if _is_record(member))
            if name != chosen.__name__:
                return None
            kind = chosen
            continue
        parent = members[0]
        kind = _child(parent, name)
        value = _value_at(value, name)
        path.append(name)
    return _Spot(tuple(path), kind, parent, value)


def _is_record(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


def _value_at(value: Any, name: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list) and isinstance(name, int) and name < len(value):
        return value[name]
    return None


def _members(kind: Any) -> list[Any]:
    """The members of a union without None; any other type alone."""
    if get_origin(kind) in (Union, types.UnionType):
        return [member for member in get_args(kind) if member is not type(None)]
    return [kind]


@lru_cache(maxsize=64)
def _fields(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _child(kind: Any, name: str | int) -> Any:
    if _is_record(kind):
        return _fields(kind).get(str(name))
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[1]
    if get_origin(kind) is tuple and arguments:
        return arguments[0] if arguments[-1] is Ellipsis or not isinstance(name, int) else arguments[min(name, 1)]
    return None


def _wanted(kind: Any) -> str:
    """What a type asks for, in words."""
    members = _members(kind)
    if len(members) > 1:
        return " or ".join(_wanted(member) for member in members)
    kind = members[0]
    if kind in _TYPE_WORDS:
        return _TYPE_WORDS[kind]
    if _is_record(kind):
        return f"a mapping with {', '.join(_fields(kind))}"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is dict or kind is dict:
        return "a mapping"
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} values: "
        return f"a list of {count}{_TYPE_WORDS.get(arguments[0], 'mappings')}"
    return "another value"


def _message(detail: ErrorDetails, spot: _Spot) -> str:
    """One pydantic error in words."""
    context = detail.get("ctx", {})
    code = detail["type"]
    value = shown(spot.value)
    if code == "missing" and _is_record(spot.parent):
        about = next(f.metadata.get("description") for f in dataclasses.fields(spot.parent) if f.name == spot.path[-1])
        return "is missing; it is required" + (f" ({about})" if about else "")
    if code == "unexpected_keyword_argument":
        return _unknown_key(str(spot.path[-1]), spot.parent)
    if code == "literal_error":
        known = [str(item) for item in get_args(_members(spot.kind)[0])]
        if value in known:
            return f"is {value}, not text; write it in quotes: '{value}'"
        hint = did_you_mean(str(spot.value), known)
        return f"is {value}{hint}; allowed: {', '.join(known)}"
    if code in _BOUND_WORDS:
        key, words = _BOUND_WORDS[code]
        return f"is {value}; it must be {words} {context[key]:g}"
    if code == "string_pattern_mismatch":
        return f"is {value}; it must match {context['pattern']}"
    if code in ("too_short", "too_long") or code == "missing":
        return f"is {value}; needed: {_needed_length(spot, context)}"
    hint = "; put it in quotes" if code == "string_type" and isinstance(spot.value, (int, float)) else ""
    wanted = _wanted(spot.kind)
    return f"is {value}; needed: {wanted}{hint}" if wanted != "another value" else f"is {value}: {detail['msg']}"


def _needed_length(spot: _Spot, context: dict[str, Any]) -> str:
    if "min_length" in context:
        return f"a list with {context['min_length']} or more entries"
    return _wanted(spot.parent if spot.kind in _TYPE_WORDS else spot.kind)


def _unknown_key(key: str, kind: Any) -> str:
    if key == "<<":
        return "merge keys (<<) are not part of YAML 1.2; write the values out"
    known = list(_fields(kind)) if _is_record(kind) else []
    return f"unknown key {key!r}{did_you_mean(key, known)}; allowed: {', '.join(known)}"
