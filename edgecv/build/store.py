"""The content-addressed store: finished steps by the hash of everything that made them.

Layout below the root::

    steps/ab/abcd…/   one finished step: its files and step.json, never changed again
    work/abcd…/       a step under way; a training step that was killed finds its checkpoint here
    locks/abcd….lock  held by the process that works on a step

A step becomes visible by one rename of its folder, so a reader sees all of it or nothing, and a
process killed at any point loses only the step it was in.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from edgecv.errors import ToolchainError, UsageError

RECORD = "step.json"
LOCK_TIMEOUT_S = 6 * 3600.0


@dataclass(frozen=True)
class StepRecord:
    """What the store remembers of a finished step; ``seconds`` is wall time when it was done."""

    kind: str
    title: str
    key: str
    seconds: float
    effect: dict[str, Any] = field(default_factory=dict)


def default_root() -> Path:
    """Where the store lives unless ``--cache`` or EDGECV_CACHE says otherwise: the platform's cache folder."""
    named = os.environ.get("EDGECV_CACHE")
    return Path(named) if named else user_cache_path("edgecv", appauthor=False)


def hash_of(value: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full disk and a folder that cannot be written into errors that say what to do.

    Raises:
        ToolchainError: no space is left (exit code 5).
        UsageError: the folder is read-only or not ours (exit code 2).
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = _free_bytes(path)
            raise ToolchainError(
                f"no space is left below {path} ({free / 1e6:.0f} MB free). Nothing half-written was kept; "
                "free some space, or name another place with --cache and --out, and run the same command again: "
                "finished steps are not done again."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UsageError(
                f"{path} cannot be written ({error.strerror}). "
                "Name a folder that you may write to with --out or --cache."
            ) from error
        raise


class Store:
    """Finished steps below ``root``; the folder is made when the first step is kept."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Where the finished step ``key`` is, or will be."""
        return self.root / "steps" / key[:2] / key

    def work(self, key: str) -> Path:
        """Where the step ``key`` is worked on; a training step keeps its checkpoint there."""
        return self.root / "work" / key

    def record(self, key: str) -> StepRecord | None:
        """The finished step ``key``, or None where it is still to be done."""
        try:
            return StepRecord(**json.loads((self.folder(key) / RECORD).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            self._drop(self.folder(key))
            return None

    def run(self, key: str, *, kind: str, title: str, action: Callable[[Path], Mapping[str, Any]]) -> StepRecord:
        """The finished step ``key``; ``action`` does it now where it is not finished yet.

        ``action`` gets an empty folder (or the one of a run that was killed) and returns the
        step's effect as plain values. Two processes that want the same step do it once.

        Raises:
            ToolchainError: the disk is full, or another process held the step for hours.
            UsageError: the store's folder cannot be written.
        """
        done = self.record(key)
        if done is not None:
            return done
        with explained(self.root):
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(self.root / "locks" / f"{key}.lock", timeout=LOCK_TIMEOUT_S):
                    done = self.record(key)
                    return done if done is not None else self._do(self.work(key), key, kind, title, action)
            except Timeout:
                raise ToolchainError(
                    f"another process has held {self.root / 'locks' / key}.lock for {LOCK_TIMEOUT_S / 3600:.0f} h; "
                    "end that process, or name another store with --cache"
                ) from None

    def _do(
        self, work: Path, key: str, kind: str, title: str, action: Callable[[Path], Mapping[str, Any]]
    ) -> StepRecord:
        work.mkdir(parents=True, exist_ok=True)
        started_s = time.perf_counter()
        try:
            effect = dict(action(work))
            record = StepRecord(kind, title, key, round(time.perf_counter() - started_s, 3), effect)
            text = json.dumps(record.__dict__, sort_keys=True, indent=1)
            (work / RECORD).write_text(text, encoding="utf-8")
            _sync(work)
            final = self.folder(key)
            final.parent.mkdir(parents=True, exist_ok=True)
            os.rename(work, final)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                self._drop(work)
            raise
        return record

    @staticmethod
    def _drop(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Have the disk hold every file before the rename makes them visible (power loss on a laptop)."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _free_bytes(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
