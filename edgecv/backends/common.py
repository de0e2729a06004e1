"""What all backends share: checks of arrays and options, layouts, and quiet third-party code."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edgecv.core.tensor import Array, Layout, TensorSpec
from edgecv.errors import ToolchainError, UsageError

_capture_lock = threading.RLock()


def installed(module: str) -> bool:
    """Whether ``module`` can be imported; it is not imported (its parent package is, for a dotted name)."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def missing_modules(modules: Sequence[str], *, extra: str) -> str | None:
    """What of ``modules`` is not installed and the command that installs it; None when all are there."""
    absent = [module for module in modules if not installed(module)]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return f"{', '.join(absent)} {verb} not installed; run: pip install 'edgecv[{extra}]'"


def require(message: str | None) -> None:
    """Raise what `missing` found.

    Raises:
        ToolchainError: ``message`` is not None.
    """
    if message is not None:
        raise ToolchainError(message)


def distribution_version(*names: str) -> str:
    """Version of the first of these distributions that is installed, "" where none is."""
    from importlib import metadata  # 13 ms that the device half need not pay on import

    for name in names:
        found = next(iter(metadata.distributions(name=name)), None)
        if found is not None:
            return found.version
    return ""


def layout_of(shape: Sequence[int], *, channels_last: bool = False) -> Layout:
    """Layout that a tensor of this ``shape`` has in a vision network: rank 4 is a picture, rank 2 scores."""
    if len(shape) == 4:
        return "NHWC" if channels_last else "NCHW"
    return "NC" if len(shape) == 2 else "OTHER"


def check_arrays(arrays: Sequence[Array], specs: Sequence[TensorSpec]) -> None:
    """Hold the arrays of one inference against the engine's inputs.

    Raises:
        UsageError: wrong number, shape or type of arrays.
    """
    if len(arrays) != len(specs):
        raise UsageError(f"got {len(arrays)} arrays; the model has {len(specs)} inputs: {_names(specs)}")
    for array, spec in zip(arrays, specs, strict=True):
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise UsageError(
                f"input {spec.name!r} got {array.dtype} {list(array.shape)}; the model takes "
                f"{spec.dtype} {list(spec.shape)} ({spec.layout}). Use TensorSpec.quantize() on a float array."
            )


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs)


def check_options(options: Mapping[str, Any], allowed: Mapping[str, type | tuple[type, ...]], *, backend: str) -> None:
    """Hold engine options against the names and types that a backend knows.

    Raises:
        UsageError: an unknown name or a value of the wrong type.
    """
    for name, value in options.items():
        if name not in allowed:
            near = get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"engine option {name!r} is not one of {backend}'s ({', '.join(sorted(allowed))}){hint}")
        if not isinstance(value, allowed[name]):
            wanted = allowed[name]
            words = " or ".join(item.__name__ for item in (wanted if isinstance(wanted, tuple) else (wanted,)))
            raise UsageError(f"engine option {name} of {backend} is {value!r}; it must be a {words}")


def positive_threads(threads: int | None) -> int | None:
    """``threads`` as given; None leaves the choice to the engine.

    Raises:
        UsageError: below 1.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; it must be 1 or more, or null for the engine's default")
    return threads


def static_shape(name: str, shape: Sequence[Any]) -> tuple[int, ...]:
    """``shape`` as whole numbers.

    Raises:
        UsageError: a length is open (dynamic).
    """
    if any(not isinstance(length, (int, np.integer)) or length < 1 for length in shape):
        raise UsageError(
            f"tensor {name!r} has the open shape {list(shape)}; edgecv runs fixed shapes at batch 1. "
            "Export the model again with fixed sizes."
        )
    return tuple(int(length) for length in shape)


class _Switch:
    """A text stream that writes to the log while it is open, and to the real stream ever after.

    Libraries that are imported while output is captured keep the stream that they found (log
    handlers do); a closed file would make every later message an error.
    """

    def __init__(self, log: TextIO, behind: TextIO | None) -> None:
        self._log: TextIO | None = log
        self._behind = behind

    def write(self, text: str) -> int:
        stream = self._log or self._behind
        return stream.write(text) if stream is not None else len(text)

    def flush(self) -> None:
        stream = self._log or self._behind
        if stream is not None:
            stream.flush()

    def isatty(self) -> bool:
        return False

    def let_go(self) -> None:
        self._log = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log or self._behind, name)


@contextmanager
def quiet(log: Path | None) -> Iterator[None]:
    """Send everything that is printed, logged or warned in the with block to the end of ``log``.

    Also catches what C++ code writes to file descriptors 1 and 2. None throws it away. The whole
    process is affected while the block runs; a second thread that wants to enter waits.
    """
    with _capture_lock, ExitStack() as stack:
        target = os.devnull if log is None else os.fspath(log)
        stream = stack.enter_context(open(target, "a", encoding="utf-8", errors="replace", buffering=1))
        stack.enter_context(_descriptors(stream.fileno()))
        for redirect, behind in ((redirect_stdout, sys.stdout), (redirect_stderr, sys.stderr)):
            switch = _Switch(stream, behind)
            stack.callback(switch.let_go)
            stack.enter_context(redirect(switch))
        stack.enter_context(_root_logger(stream))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, category, filename, lineno, file=None, line=None: print(
            f"{category.__name__}: {message}", file=stream
        )
        yield


@contextmanager
def _descriptors(log_descriptor: int) -> Iterator[None]:
    """Let file descriptors 1 and 2 point to the log."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    saved = {}
    for descriptor in (1, 2):
        try:
            saved[descriptor] = os.dup(descriptor)
        except OSError:
            continue  # a process without a terminal may have it closed
        os.dup2(log_descriptor, descriptor)
    try:
        yield
    finally:
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)


@contextmanager
def _root_logger(stream: TextIO) -> Iterator[None]:
    """Let the root logger write to the log only: converters warn through it, and would set up their own."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    handler = logging.StreamHandler(stream)
    root.handlers[:] = [handler]
    try:
        yield
    finally:
        root.handlers[:] = handlers
