"""Read YAML that a user wrote: plain values, and the line that each of them stands on.

Only PyYAML's event stream is used, never its constructors, so that nothing in a file can make an
object. Plain words are read by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema):
``no`` and ``on`` are words, ``1e-3`` is a number, ``010`` is ten.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgecv.errors import Problem, RecipeError

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_ALIAS_VALUES = 10_000

KeyPath = tuple[str | int, ...]
"""Where a value stands: mapping keys and list positions from the top."""

_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.nan|\.NaN|\.NAN")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LARGEST_INTEGER = 2**63 - 1


@dataclass(frozen=True)
class Document:
    """A YAML file as plain values (dict, list, str, int, float, bool, None).

    ``lines`` gives the line of each path, counted from 1; ``problems`` is what is wrong with the text
    but did not stop the reading.
    """

    file: str
    value: Any
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def line(self, path: KeyPath) -> int | None:
        """Line of the value at ``path``, or of the nearest value around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A problem of the value at ``path``."""
        return Problem(self.file, self.line(path), dotted(path), message)


def dotted(path: KeyPath) -> str:
    """A path as it is written after ``--set``: ``steps.1.finetune.epochs``."""
    return ".".join(str(part) for part in path)


def read_yaml(path: Path, *, max_bytes: int = MAX_BYTES) -> Document:
    """Read one YAML file of at most ``max_bytes``.

    Raises:
        RecipeError: no readable regular file, too large, not UTF-8, empty, or not YAML.
    """
    data = _read_bytes(path, max_bytes)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = f"byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise RecipeError([Problem(str(path), line, "", message)]) from error
    return parse_yaml(text, file=str(path))


def parse_yaml(text: str, *, file: str) -> Document:
    """Parse YAML text; ``file`` is the name that problems carry.

    Raises:
        RecipeError: the text is empty, holds no or more than one document, or is not YAML.
    """
    if not _is_text(text):
        raise RecipeError([Problem(file, None, "", "the text is not valid Unicode (half a surrogate pair)")])
    builder = _Builder(file)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise RecipeError([Problem(file, line, "", f"not YAML: {what}")]) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1 if isinstance(error.position, int) else None
        raise RecipeError([Problem(file, line, "", f"not YAML: {error.reason}")]) from error
    except yaml.YAMLError as error:
        raise RecipeError([Problem(file, None, "", f"not YAML: {error}")]) from error
    if not builder.documents:
        raise RecipeError([Problem(file, None, "", "the file is empty; `edgecv init` writes a recipe to start from")])
    return Document(file, builder.documents[0], builder.lines, tuple(builder.problems))


def to_yaml(value: Any) -> str:
    """Plain values as YAML text that `parse_yaml` reads back as the same values."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    try:
        same = bool(parse_yaml(text, file="").value == value)
    except RecipeError:
        same = False
    # PyYAML quotes by YAML 1.1: the text 1e5 would come back as a number. JSON quotes all text, and is YAML.
    return text if same else json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    def refuse(message: str) -> RecipeError:
        return RecipeError([Problem(str(path), None, "", message)])

    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise refuse("is a folder; name the YAML file in it")
        if not stat.S_ISREG(status.st_mode):
            raise refuse("is not a regular file; name a YAML file")
        if status.st_size > max_bytes:
            raise refuse(f"has {status.st_size:,} bytes; a file of this kind has at most {max_bytes:,}. Is it YAML?")
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise refuse("there is no such file") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise refuse(f"cannot be read: {reason}") from error
    if len(data) > max_bytes:
        raise refuse(f"has more than {max_bytes:,} bytes")
    return data


@dataclass
class _Open:
    """A mapping or list that is being read."""

    path: KeyPath
    value: dict[str, Any] | list[Any]
    anchor: str | None
    first: int
    key: str | None = None
    skip: bool = False


@dataclass(frozen=True)
class _Anchored:
    value: Any
    path: KeyPath
    size: int


class _Builder:
    """Turns events into values with an explicit stack, so that deep nesting cannot exhaust Python's."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.documents: list[Any] = []
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Anchored] = {}
        self._count = 0
        self._alias_values = 0

    def take(self, event: yaml.Event) -> None:
        line = 1 if event.start_mark is None else event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._start(event, line)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor or "", line)
        elif isinstance(event, yaml.DocumentStartEvent) and self.documents:
            self._fatal(line, "a second document starts here; a file holds one")

    def _fatal(self, line: int, message: str) -> None:
        raise RecipeError([*self.problems, Problem(self.file, line, "", message)])

    def _path(self, line: int) -> KeyPath:
        """Path of the value that comes next; its line is that of its key where it has one."""
        if not self._stack:
            path: KeyPath = ()
        else:
            top = self._stack[-1]
            path = (*top.path, len(top.value) if isinstance(top.value, list) else top.key or "")
        self.lines.setdefault(path, line)
        return path

    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].value, dict) and self._stack[-1].key is None

    def _key(self, key: str, line: int) -> None:
        top = self._stack[-1]
        assert isinstance(top.value, dict)
        path = (*top.path, key)
        top.skip = key in top.value
        if top.skip:
            message = f"the key {key!r} stands here again (first on line {self.lines[path]}); remove one of the two"
            self.problems.append(Problem(self.file, line, dotted(path), message))
        else:
            self.lines[path] = line
        top.key = key

    def _put(self, value: Any) -> None:
        self._count += 1
        if not self._stack:
            self.documents.append(value)
            return
        top = self._stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
            return
        if not top.skip:
            top.value[top.key or ""] = value
        top.key = None

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        if self._wants_key() and event.tag is None and event.anchor is None:
            self._key(event.value, line)
            return
        if self._wants_key():
            self._fatal(line, "a key has a tag or an anchor; keys are plain words")
        path = self._path(line)
        self._refuse_tag(event.tag, path, line)
        value = event.value
        if event.implicit[0]:
            value, wrong = plain_value(event.value)
            if wrong:
                self.problems.append(Problem(self.file, line, dotted(path), wrong))
        if isinstance(value, str) and ("\0" in value or not _is_text(value)):
            self.problems.append(Problem(self.file, line, dotted(path), "text with NUL or half a surrogate pair"))
            value = ""
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(value, path, 1)
        self._put(value)

    def _start(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int) -> None:
        if self._wants_key():
            self._fatal(line, "a list or mapping is used as a key; keys are plain words")
        if len(self._stack) >= MAX_DEPTH:
            self._fatal(line, f"nested more than {MAX_DEPTH} levels deep")
        path = self._path(line)
        self._refuse_tag(event.tag, path, line)
        empty: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        if event.anchor is not None:
            self._anchors.pop(event.anchor, None)
        self._stack.append(_Open(path, empty, event.anchor, self._count))

    def _end(self) -> None:
        done = self._stack.pop()
        if done.anchor is not None:
            self._anchors[done.anchor] = _Anchored(done.value, done.path, self._count - done.first + 1)
        self._put(done.value)

    def _alias(self, anchor: str, line: int) -> None:
        if self._wants_key():
            self._fatal(line, f"the alias *{anchor} is used as a key; keys are plain words")
        known = self._anchors.get(anchor)
        if known is None:
            self._fatal(line, f"the alias *{anchor} has no finished anchor &{anchor} before it")
        assert known is not None
        self._alias_values += known.size
        if self._alias_values > MAX_ALIAS_VALUES:
            self._fatal(line, f"aliases expand to more than {MAX_ALIAS_VALUES:,} values; write the values out")
        if len(self._stack) + _depth(known.value) > MAX_DEPTH:
            self._fatal(line, f"aliases nest more than {MAX_DEPTH} levels deep")
        self._path(line)
        self._count += known.size - 1
        self._put(_copy(known.value))

    def _refuse_tag(self, tag: str | None, path: KeyPath, line: int) -> None:
        if tag is not None:
            message = f"the tag {tag!r} is not allowed; write a plain value"
            self.problems.append(Problem(self.file, line, dotted(path), message))


def plain_value(word: str) -> tuple[Any, str | None]:
    """A plain (unquoted) word as a value, and what is wrong with it, if anything."""
    if word in _WORDS:
        return _WORDS[word], None
    if _NOT_FINITE.fullmatch(word):
        return 0, f"{word} is not a finite number; put text in quotes"
    if _INTEGER.fullmatch(word) or _OTHER_BASE.fullmatch(word):
        if len(word) > 20:
            return 0, f"the number {word[:20]}... is too large; put text in quotes"
        number = int(word) if _INTEGER.fullmatch(word) else int(word, 0)
        if abs(number) > _LARGEST_INTEGER:
            return 0, f"the number {word} is too large; put text in quotes"
        return number, None
    if _FLOAT.fullmatch(word):
        real = float(word)
        return (real, None) if math.isfinite(real) else (0, f"the number {word[:20]} is too large")
    return word, None


def _is_text(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _depth(value: Any) -> int:
    children: Iterator[Any] = iter(())
    if isinstance(value, dict):
        children = iter(value.values())
    elif isinstance(value, list):
        children = iter(value)
    else:
        return 0
    return 1 + max((_depth(child) for child in children), default=0)
