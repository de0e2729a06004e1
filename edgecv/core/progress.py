"""Progress of long work, as plain lines; the host half adds a bar where a person waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO


class Task(Protocol):
    """One piece of long work that is under way."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Report ``amount`` more units done; ``note`` is shown behind the count (a loss, a figure)."""
        ...


class Progress(Protocol):
    """Where long work reports to."""

    def line(self, text: str) -> None:
        """Print one line that stays."""
        ...

    def task(self, name: str, total: int | None) -> "TaskContext":
        """A context that gives a `Task`; ``total`` is None where it is not known."""
        ...


TaskContext = AbstractContextManager[Task]
"""What ``with progress.task(...) as task`` needs."""


class _PlainTask:
    def __init__(self, progress: "PlainProgress", name: str, total: int | None) -> None:
        self._progress, self._name, self._total = progress, name, total
        self._done = 0
        self._shown_s = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._shown_s >= self._progress.every_s:
            self._shown_s = now
            of = "" if self._total is None else f"/{self._total}"
            self._progress.line(f"  {self._name}: {self._done}{of}" + (f"  {note}" if note else ""))


class PlainProgress:
    """Plain lines, at most one every ``every_s`` seconds per task: for CI logs and pipes."""

    def __init__(self, stream: TextIO | None = None, *, every_s: float = 5.0) -> None:
        self._stream = stream
        self.every_s = every_s

    def line(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)

    @contextmanager
    def task(self, name: str, total: int | None) -> Iterator[Task]:
        yield _PlainTask(self, name, total)


class _SilentTask:
    def advance(self, amount: int = 1, note: str = "") -> None:
        pass


class SilentProgress:
    """Says nothing: the default where edgecv is used as a library."""

    def line(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, name: str, total: int | None) -> Iterator[Task]:
        yield _SilentTask()
