"""Small programs of a board that tell what sysfs does not: asked rarely, never waited for long."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

Runner = Callable[[Sequence[str]], str]
"""Runs a command and gives what it printed; "" where it failed. Replaced by fakes in tests."""

TIMEOUT_S = 1.0
EVERY_S = 1.0
"""A command runs at most so often; who asks earlier gets the last answer."""

_GIVE_UP_AFTER = 3


class Tools:
    """A board's own programs by name. One that is missing, or fails three times in a row, is not tried again."""

    def __init__(self, run: Runner | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run or _run
        self._clock = clock
        self._answers: dict[tuple[str, ...], tuple[float, str]] = {}
        self._failures: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def ask(self, *words: str) -> str:
        """What the command printed, at most a second ago; "" where it is not there or failed."""
        with self._lock:
            now_s = self._clock()
            asked = self._answers.get(words)
            if asked is not None and now_s - asked[0] < EVERY_S:
                return asked[1]
            if self._failures.get(words, 0) >= _GIVE_UP_AFTER:
                return ""
            answer = self._run(words)
            self._failures[words] = 0 if answer else self._failures.get(words, 0) + 1
            self._answers[words] = (now_s, answer)
            return answer


def _run(words: Sequence[str]) -> str:
    program = shutil.which(words[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", errors="replace").strip() if done.returncode == 0 else ""
