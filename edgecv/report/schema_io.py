"""The report as a JSON file: strict in both directions, standard JSON, keys in a stable order.

A number that JSON cannot hold (an infinite SQNR) is the string "inf", "-inf" or "nan".
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from edgecv.core.plain import from_plain, to_plain
from edgecv.errors import ArtifactError, UsageError
from edgecv.report.schema import SCHEMA_VERSION, Report

__all__ = ["REPORT", "from_json", "read_report", "to_json", "write_atomic", "write_report"]

REPORT = "report.json"
MAX_REPORT_BYTES = 64 * 1024 * 1024


def to_json(report: Report) -> str:
    """The report as JSON text with sorted keys; scores per sample are left out.

    Raises:
        TypeError: the recipe or the data description holds a value that JSON has no form for.
    """
    return (
        json.dumps(
            to_plain(report, "report", omit=("per_sample",)),
            indent=2,
            sort_keys=True,
            ensure_ascii=False,
            allow_nan=False,
        )
        + "\n"
    )


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
        return from_plain(Report, raw, "report")
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name} is not a valid report: {error}; write the report again") from error


def _no_constant(literal: str) -> float:
    raise ValueError(f"the literal {literal} is not allowed")
