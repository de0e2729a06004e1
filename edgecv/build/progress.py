"""Progress bars where a person waits, plain lines where a log is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from edgecv.core.progress import PlainProgress, Progress, Task


class _BarTask:
    def __init__(self, bars: object, number: int) -> None:
        self._bars, self._number = bars, number

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Move the bar."""
        self._bars.update(self._number, advance=amount, note=note)  # type: ignore[attr-defined]


class BarProgress:
    """Bars by rich on a terminal; finished bars go away, lines stay."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, force_terminal=True, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Print one line that stays; square brackets are not markup."""
        self._console.print(text, markup=False)

    @contextmanager
    def task(self, name: str, total: int | None) -> Iterator[Task]:
        """A bar with count, time left and note."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console, transient=True) as bars:
            yield _BarTask(bars, bars.add_task(name, total=total, note=""))


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Progress on the real standard error, which stays reachable while third-party output is captured.

    Bars on a terminal, plain lines elsewhere.
    """
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        yield PlainProgress()  # no real file behind standard error, as under a test's capture
        return
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", buffering=1) as stream:
        yield BarProgress(stream) if stream.isatty() else PlainProgress(stream)
