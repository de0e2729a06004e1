"""Compiles that run in processes of their own while the run goes on.

The compilers that take the torch program work on one core for many seconds, and all that they need is there long
before the run comes to them: the float graph before anything is trained, the int8 graph before its answers are
collected. A process for each such engine compiles into the store that the run looks into; a step that failed in one,
or that none has begun, is done by the run itself. Nothing is compiled while a time is measured (`Ahead.settle`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from edgecv.backends.common import quiet
from edgecv.build.context import Context
from edgecv.build.plan import ONNX_FED, FilePlan
from edgecv.build.store import Store
from edgecv.build.target_steps import compile_file
from edgecv.core.plain import from_plain, to_plain
from edgecv.core.target import Target

_NICE = 10
"""What the run itself does goes first: it waits for the other steps."""
_COMPILERS = {"litert": "litert_torch", "coreml": "coremltools"}
"""What an engine's compiler is imported as: loading it takes seconds, which are there before the first graph is."""
_LAST_S = 30.0
"""So long a process may take to end."""


@dataclass
class _Process:
    """A process that compiles: a line of JSON for each step goes in, an empty line comes back when it is done."""

    running: subprocess.Popen[str]
    open_steps: int = 0

    def give(self, job: Mapping[str, Any]) -> bool:
        """Whether it takes the step; a process that ended takes none."""
        taken = self.tell(job)
        self.open_steps += taken
        return taken

    def tell(self, line: Mapping[str, Any]) -> bool:
        """Whether it is told something that it does not answer."""
        assert self.running.stdin is not None  # it was started with a pipe
        try:
            self.running.stdin.write(json.dumps(line) + "\n")
        except OSError:
            return False
        return True

    def settle(self) -> None:
        """Wait until it has nothing left to do, or has ended."""
        assert self.running.stdout is not None  # it was started with a pipe
        while self.open_steps and self.running.stdout.readline():
            self.open_steps -= 1

    def close(self) -> None:
        """End it: at once where it is at a step, else as it ends by itself, so that its compilers tidy up."""
        if self.open_steps:
            self.running.kill()
        try:
            self.running.communicate(timeout=_LAST_S)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.communicate()


class Ahead:
    """The compile steps of a plan that up to ``jobs`` processes (0: none) do beside its other steps.

    ``taken`` are the keys of those that were given to one.
    """

    def __init__(self, context: Context, jobs: int) -> None:
        self.taken: set[str] = set()
        self._store, self._log, self._jobs = context.store, context.log, jobs
        self._processes: list[_Process] = []
        self._process_of: dict[str, _Process] = {}
        self._waiting: dict[str, tuple[FilePlan, Target]] = {}
        for plan in context.plan.targets if jobs else ():
            if plan.target.backend not in ONNX_FED:
                for file in (plan.float_reference, plan.optimized):
                    if context.store.record(file.compile.key) is None:
                        self._waiting[file.compile.key] = (file, plan.target)

    def prepare(self) -> None:
        """Let the compilers be loaded that will be wanted."""
        for backend in sorted({target.backend for _, target in self._waiting.values()} & set(_COMPILERS)):
            self._process(backend).tell({"load": _COMPILERS[backend], "log": str(self._log.absolute())})

    def offer(self) -> None:
        """Give away the steps whose graph has been exported."""
        for key, (file, target) in list(self._waiting.items()):
            if self._store.record(file.export.key) is not None:
                del self._waiting[key]
                if self._process(target.backend).give(self._job(file, target)):
                    self.taken.add(key)

    def settle(self) -> None:
        """Wait until nothing is compiled any more, so that a time can be measured."""
        for process in self._processes:
            process.settle()

    def close(self) -> None:
        """End the processes; a step that one of them is at is lost."""
        for process in self._processes:
            process.close()

    def _process(self, backend: str) -> _Process:
        """The process of an engine, so that its compiler is imported once."""
        if backend not in self._process_of:
            if len(self._processes) < self._jobs:
                self._processes.append(_started(self._log))
            self._process_of[backend] = self._processes[len(self._process_of) % self._jobs]
        return self._process_of[backend]

    def _job(self, file: FilePlan, target: Target) -> dict[str, Any]:
        return {
            "store": str(self._store.root.absolute()),
            "log": str(self._log.absolute()),
            "exported": str(self._store.folder(file.export.key).absolute()),
            "key": file.compile.key,
            "title": file.compile.title,
            "precision": file.precision,
            "target": to_plain(target),
        }


def _started(log: Path) -> _Process:
    command, pipe = [sys.executable, "-m", "edgecv.build.ahead"], subprocess.PIPE
    with log.open("a", encoding="utf-8") as errors:
        return _Process(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, bufsize=1))


def main() -> None:
    """Compile what each line of the standard input asks for, and answer each with an empty line."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    for line in sys.stdin:
        job = json.loads(line)
        log = Path(job["log"])
        if "load" in job:
            with quiet(log), suppress(Exception):  # what is wrong with it is said by the step that needs it
                import_module(job["load"])
            continue
        target = from_plain(Target, job["target"])
        action = partial(compile_file, Path(job["exported"]), job["precision"], target, log)
        with quiet(log):
            try:
                Store(Path(job["store"])).run(job["key"], kind="compile", title=job["title"], action=action)
            except Exception:  # noqa: BLE001 - the run does the step again, and says why it fails
                traceback.print_exc()
        print(flush=True)


if __name__ == "__main__":
    main()
