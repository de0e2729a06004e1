"""One real run of the digits recipe, shared by all tests that look at its results."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgecv.report.schema import Report
from edgecv.report.schema_io import read_report

SHORT = (
    "steps.1.finetune.epochs=6",
    "steps.2.quantize.epochs=2",
    "measure.protocol=smoke",
    "budgets.accuracy.max_drop=0.1",
    "budgets.latency.p50_ms=1000",
)
"""The shipped recipe with less training and shorter measuring; budgets that a busy machine meets."""


@dataclass(frozen=True)
class DigitsRun:
    """A finished run: its output folder, its store, what it printed, its report."""

    recipe: Path
    out: Path
    cache: Path
    stdout: str
    stderr: str
    code: int
    report: Report

    def command(self, *more: str, out: Path | None = None, cache: Path | None = None) -> list[str]:
        """The same command line, with other folders or more options."""
        return command(self.recipe, out or self.out, cache or self.cache, *more)


def command(recipe: Path, out: Path, cache: Path, *more: str) -> list[str]:
    """`edgecv optimize` with the short settings."""
    sets = [word for item in SHORT for word in ("--set", item)]
    words = [sys.executable, "-m", "edgecv", "optimize", str(recipe), "--out", str(out), "--cache", str(cache)]
    return [*words, *sets, *more]


@pytest.fixture(scope="session")
def digits_run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> DigitsRun:
    """The digits recipe on its five targets; two processes compile beside the run."""
    folder = tmp_path_factory.mktemp("digits")
    recipe = root / "recipes" / "classification" / "digits.yaml"
    words = command(recipe, folder / "out", folder / "cache", "--jobs", "2")
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert (folder / "out" / "report.json").is_file(), done.stderr
    report = read_report(folder / "out")
    return DigitsRun(recipe, folder / "out", folder / "cache", done.stdout, done.stderr, done.returncode, report)
