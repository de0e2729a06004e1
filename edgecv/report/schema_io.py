"""The report as a JSON file: strict in both directions, standard JSON, keys in a stable order.

A number that JSON cannot hold (an infinite SQNR) is the string "inf", "-inf" or "nan".
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from edgecv.core.figures import AccuracyFigures
from edgecv.errors import ArtifactError, UsageError
from edgecv.report.schema import SCHEMA_VERSION, Report

__all__ = ["REPORT", "from_json", "read_report", "to_json", "write_atomic", "write_report"]

REPORT = "report.json"
MAX_REPORT_BYTES = 64 * 1024 * 1024

_SPECIAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def to_json(report: Report) -> str:
    """The report as JSON text with sorted keys; scores per sample are left out (they lie beside it).

    Raises:
        TypeError: the recipe or the data description holds a value that JSON has no form for.
    """
    return json.dumps(_plain(report, "report"), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(report: Report, folder: Path) -> Path:
    """Write ``report.json`` into ``folder`` (made if missing) in one step; gives its path.

    Raises:
        UsageError: the folder cannot be written to.
    """
    return write_atomic(folder / REPORT, to_json(report))


def write_atomic(path: Path, text: str) -> Path:
    """Write ``text`` so that a reader sees the old file or the whole new one; gives ``path``.

    Raises:
        UsageError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate (a file name that is not UTF-8) must not lose the whole report.
        partial.write_bytes(text.encode("utf-8", errors="backslashreplace"))
        os.replace(partial, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error}); name a folder that you may write to") from error
    return path


def read_report(path: Path) -> Report:
    """Read a report: a JSON file, or the folder that holds ``report.json``.

    Raises:
        UsageError: there is no such file.
        ArtifactError: the file is not a report, is of another schema version, or is corrupt.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        size = file.stat().st_size
        if size > MAX_REPORT_BYTES:
            raise ArtifactError(f"{file} has {size} bytes; a report has at most {MAX_REPORT_BYTES}")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"{file} does not exist; name a {REPORT} or the folder that `edgecv optimize` wrote it to"
        ) from None
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{file} is not a report: it is not UTF-8 text ({error})") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error}); name a {REPORT}") from error
    return from_json(text, name=str(file))


def from_json(text: str, *, name: str = REPORT) -> Report:
    """A report from its JSON text; ``name`` stands in error messages.

    Raises:
        ArtifactError: not JSON, not a report, of another schema version, or a value of a wrong type.
    """
    try:
        raw = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name} is not standard JSON ({error}); write the report again") from error
    if not isinstance(raw, dict) or "schema" not in raw:
        raise ArtifactError(f"{name} is not a report: it has no schema version")
    if type(raw["schema"]) is not int or raw["schema"] != SCHEMA_VERSION:
        raise ArtifactError(
            f"{name} has report schema {raw['schema']!r}; this edgecv reads {SCHEMA_VERSION}. "
            "Read it with the edgecv version that wrote it, or run again."
        )
    try:
        report = _decode(Report, raw, "report")
    except (_WrongError, RecursionError) as error:
        raise ArtifactError(f"{name} is not a valid report: {error}; write the report again") from error
    assert isinstance(report, Report)
    return report


class _WrongError(Exception):
    """A value does not fit its field; the message names the field."""


def _no_constant(literal: str) -> float:
    raise ValueError(f"the literal {literal} is not allowed")


def _plain(value: Any, where: str) -> Any:
    """``value`` as what JSON can hold; ``where`` names it in errors."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [item.name for item in dataclasses.fields(value)]
        if isinstance(value, AccuracyFigures):
            kept.remove("per_sample")
        return {name: _plain(getattr(value, name), f"{where}.{name}") for name in kept}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, PurePath):
        return value.as_posix()
    raise TypeError(f"{where} is a {type(value).__name__}; a report holds plain values only")


def _decode(kind: Any, raw: Any, where: str) -> Any:
    """``raw`` JSON as ``kind`` (a field's type); nothing is guessed and nothing is dropped."""
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
        return tuple(_decode(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(_a(list, raw, where)))
    if origin is dict:
        item_kind = get_args(kind)[1]
        return {key: _decode(item_kind, item, f"{where}.{key}") for key, item in _a(dict, raw, where).items()}
    return _decode_number(raw, where) if kind is float else _a(kind, raw, where)


def _decode_fields(kind: Any, raw: Any, where: str) -> Any:
    hints = get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}
    unknown = sorted(set(_a(dict, raw, where)) - set(known))
    if unknown:
        raise _WrongError(f"{where} has the unknown field {unknown[0]!r}")
    for name, item in known.items():
        no_default = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if no_default and name not in raw:
            raise _WrongError(f"{where} has no {name!r}")
    return kind(**{name: _decode(hints[name], value, f"{where}.{name}") for name, value in raw.items()})


def _decode_union(kinds: tuple[Any, ...], raw: Any, where: str) -> Any:
    for kind in kinds:
        if kind is type(None):
            if raw is None:
                return None
        elif not (kind is float and type(raw) is int and int in kinds):
            try:
                return _decode(kind, raw, where)
            except _WrongError as error:
                last = error
    raise last


def _decode_number(raw: Any, where: str) -> float:
    if isinstance(raw, str) and raw in _SPECIAL:
        return _SPECIAL[raw]
    if type(raw) in (int, float):
        try:
            return float(raw)
        except OverflowError:
            pass
    raise _WrongError(f"{where} is {_short(raw)}; a number is needed")


def _literal(allowed: tuple[Any, ...], raw: Any, where: str) -> Any:
    if isinstance(raw, str) and raw in allowed:
        return raw
    raise _WrongError(f"{where} is {_short(raw)}; allowed: {', '.join(map(str, allowed))}")


def _a(kind: type, raw: Any, where: str) -> Any:
    # `type is`, not isinstance: True must not pass as an int.
    if type(raw) is kind:
        return raw
    names = {list: "a list", dict: "an object", str: "a string", int: "a whole number", bool: "true or false"}
    raise _WrongError(f"{where} is {_short(raw)}; {names.get(kind, kind.__name__)} is needed")


def _short(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."
