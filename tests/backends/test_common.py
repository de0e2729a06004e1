"""Checks that all engines share, and keeping third-party chatter off the terminal."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from edgecv.backends import common
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ToolchainError, UsageError

SPECS = (TensorSpec("image", (1, 3, 4, 4), "float32", "NCHW"),)


def test_arrays_that_fit_pass() -> None:
    common.check_arrays([np.zeros((1, 3, 4, 4), np.float32)], SPECS)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([], "got 0 arrays; the model has 1 inputs: image"),
        ([np.zeros((1, 3, 4, 5), np.float32)], r"got float32 \[1, 3, 4, 5\]"),
        ([np.zeros((1, 3, 4, 4), np.float64)], r"got float64 .* takes float32 \[1, 3, 4, 4\] \(NCHW\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays: list[np.ndarray], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        common.check_arrays(arrays, SPECS)


def test_options_are_held_against_names_and_types() -> None:
    allowed: dict[str, type | tuple[type, ...]] = {"device": str, "level": (int, float)}
    common.check_options({"device": "CPU", "level": 2}, allowed, backend="x")
    with pytest.raises(UsageError, match=r"'devise' is not one of x's .* did you mean 'device'"):
        common.check_options({"devise": "CPU"}, allowed, backend="x")
    with pytest.raises(UsageError, match="level of x is 'high'; it must be a int or float"):
        common.check_options({"level": "high"}, allowed, backend="x")


def test_missing_modules_gives_the_command_that_installs_them() -> None:
    assert common.missing_modules(["json"], extra="host") is None
    found = common.missing_modules(["json", "no_such_engine", "no_such.part"], extra="openvino")
    assert found == "no_such_engine, no_such.part are not installed; run: pip install 'edgecv[openvino]'"
    with pytest.raises(ToolchainError, match="no_such_engine"):
        common.require(found)


def test_distribution_version_takes_the_first_that_is_installed() -> None:
    assert common.distribution_version("no-such-engine", "numpy") == np.__version__
    assert common.distribution_version("no-such-engine") == ""


@pytest.mark.parametrize(
    ("shape", "last", "layout"),
    [((1, 3, 8, 8), False, "NCHW"), ((1, 8, 8, 3), True, "NHWC"), ((1, 10), False, "NC"), ((5,), False, "OTHER")],
)
def test_layout_goes_by_rank(shape: tuple[int, ...], last: bool, layout: str) -> None:
    assert common.layout_of(shape, channels_last=last) == layout


def test_open_shapes_and_wrong_thread_counts_are_refused() -> None:
    assert common.static_shape("x", [1, np.int64(3)]) == (1, 3)
    for shape in ([1, "N"], [-1, 3], [1, None]):
        with pytest.raises(UsageError, match="open shape"):
            common.static_shape("x", shape)
    assert common.positive_threads(None) is None
    assert common.positive_threads(2) == 2
    with pytest.raises(UsageError, match="threads is 0"):
        common.positive_threads(0)


def test_quiet_sends_every_kind_of_output_to_the_log(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log.write_text("before\n", encoding="utf-8")
    with common.quiet(log):
        os.write(1, b"from C++ on 1\n")
        os.write(2, b"from C++ on 2\n")
        print("from print")
        print("from stderr", file=sys.stderr)
        logging.warning("from logging")
        warnings.warn("from warnings", UserWarning, stacklevel=1)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    text = log.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    for kind in ("C++ on 1", "C++ on 2", "print", "stderr", "logging", "warnings"):
        assert f"from {kind}" in text


def test_after_quiet_everything_is_as_before(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handlers, shown = logging.getLogger().handlers[:], warnings.showwarning
    made: list[logging.Handler] = []

    def fail() -> None:
        with common.quiet(log):
            made.append(logging.StreamHandler())  # as a library does that is imported inside
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    os.write(2, b"C++ again\n")
    made[0].emit(logging.LogRecord("x", logging.WARNING, "", 0, "kept handler", None, None))
    captured = capfd.readouterr()
    assert "C++ again" in captured.err
    assert "kept handler" in captured.err
    assert logging.getLogger().handlers == handlers
    assert warnings.showwarning is shown


def test_quiet_without_a_log_throws_output_away(capfd: pytest.CaptureFixture[str]) -> None:
    with common.quiet(None):
        os.write(2, b"gone\n")
    assert capfd.readouterr().err == ""


def test_quiet_blocks_may_be_nested(tmp_path: Path) -> None:
    with common.quiet(tmp_path / "a"):
        with common.quiet(tmp_path / "b"):
            os.write(2, b"inner\n")
        os.write(2, b"outer\n")
    assert (tmp_path / "b").read_text() == "inner\n"
    assert (tmp_path / "a").read_text() == "outer\n"
