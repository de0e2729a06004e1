"""Frozen dataclasses as plain JSON values and back, strictly: nothing is guessed, nothing is dropped.

A number that JSON cannot hold (an infinite SQNR) is the string "inf", "-inf" or "nan".
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")

_SPECIAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class PlainError(ValueError):
    """A value does not fit its field; the message names the field, the value and what is allowed."""


def to_plain(value: Any, where: str = "value", *, omit: Collection[str] = ()) -> Any:
    """``value`` as what standard JSON can hold; ``where`` names it in errors.

    Fields of dataclasses whose name is in ``omit`` are left out.

    Raises:
        TypeError: it holds something that JSON has no form for.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [item.name for item in dataclasses.fields(value) if item.name not in omit]
        return {name: to_plain(getattr(value, name), f"{where}.{name}", omit=omit) for name in kept}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, f"{where}.{key}", omit=omit) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, f"{where}[{index}]", omit=omit) for index, item in enumerate(value)]
    if isinstance(value, PurePath):
        return value.as_posix()
    raise TypeError(f"{where} is a {type(value).__name__}; only plain values can be written")


def from_plain(kind: type[T], raw: Any, where: str = "value") -> T:
    """The dataclass ``kind`` from plain values; a field with a default may be absent.

    Raises:
        PlainError: a field is unknown, missing, or of another type.
        ValueError: a dataclass refused its values.
    """
    decoded: T = _decode(kind, raw, where)
    return decoded


def _decode(kind: Any, raw: Any, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return raw
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, raw, where)
    if origin is Literal:
        return _literal(get_args(kind), raw, where)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(kind), raw, where)
    if origin is tuple:
        return _decode_tuple(get_args(kind), raw, where)
    if origin is dict:
        item_kind = get_args(kind)[1]
        return {key: _decode(item_kind, item, f"{where}.{key}") for key, item in _a(dict, raw, where).items()}
    return _decode_number(raw, where) if kind is float else _a(kind, raw, where)


def _decode_fields(kind: Any, raw: Any, where: str) -> Any:
    hints = get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}
    unknown = sorted(set(_a(dict, raw, where)) - set(known))
    if unknown:
        raise PlainError(f"{where} has the unknown field {unknown[0]!r}")
    for name, item in known.items():
        no_default = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if no_default and name not in raw:
            raise PlainError(f"{where} has no {name!r}")
    return kind(**{name: _decode(hints[name], value, f"{where}.{name}") for name, value in raw.items()})


def _decode_tuple(kinds: tuple[Any, ...], raw: Any, where: str) -> Any:
    items = _a(list, raw, where)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(items)
    if len(items) != len(kinds):
        raise PlainError(f"{where} has {len(items)} values; {len(kinds)} are needed")
    pairs = enumerate(zip(kinds, items, strict=True))
    return tuple(_decode(kind, item, f"{where}[{index}]") for index, (kind, item) in pairs)


def _decode_union(kinds: tuple[Any, ...], raw: Any, where: str) -> Any:
    problem = PlainError(f"{where} is {_short(raw)}; no type fits")
    for kind in kinds:
        if kind is type(None):
            if raw is None:
                return None
        elif not (kind is float and type(raw) is int and int in kinds):
            try:
                return _decode(kind, raw, where)
            except PlainError as error:
                problem = error
    raise problem


def _decode_number(raw: Any, where: str) -> float:
    if isinstance(raw, str) and raw in _SPECIAL:
        return _SPECIAL[raw]
    if type(raw) in (int, float):
        try:
            return float(raw)
        except OverflowError:
            pass
    raise PlainError(f"{where} is {_short(raw)}; a number is needed")


def _literal(allowed: tuple[Any, ...], raw: Any, where: str) -> Any:
    if any(type(raw) is type(item) and raw == item for item in allowed):
        return raw
    raise PlainError(f"{where} is {_short(raw)}; allowed: {', '.join(map(str, allowed))}")


def _a(kind: type, raw: Any, where: str) -> Any:
    # `type is`, not isinstance: True must not pass as an int.
    if type(raw) is kind:
        return raw
    names = {list: "a list", dict: "an object", str: "a string", int: "a whole number", bool: "true or false"}
    raise PlainError(f"{where} is {_short(raw)}; {names.get(kind, kind.__name__)} is needed")


def _short(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."
