"""Every error a user can meet, and the exit code it ends the command with.

::

    EdgecvError            1  a defect of edgecv itself
    ├── UsageError         2  wrong command line, unusable path or option
    │   ├── RecipeError    2  the recipe, a target file or a data description is wrong
    │   ├── ModelError     2  the model cannot be built, or does not fit its family
    │   └── DataError      2  images, labels or a calibration set that cannot be used
    ├── BudgetError        3  everything ran, and a budget of the recipe is not met
    ├── MeasurementError   4  a measurement is invalid or inconclusive
    ├── ToolchainError     5  an engine, a converter, a device or disk space is missing
    │   └── CameraError    5  a camera is not there, went away, or does not answer
    └── ArtifactError      6  a file is corrupt, was changed, or must not be trusted

A message says what was found, what is allowed and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ArtifactError",
    "BudgetError",
    "CameraError",
    "CorruptFrameError",
    "DataError",
    "EdgecvError",
    "MeasurementError",
    "ModelError",
    "Problem",
    "RecipeError",
    "ToolchainError",
    "UsageError",
]


class EdgecvError(Exception):
    """Base of all errors that edgecv raises on purpose."""

    exit_code = 1


class UsageError(EdgecvError):
    """The command line, a path or an option cannot be used as given."""

    exit_code = 2


class ModelError(UsageError):
    """The model cannot be built from its source, or does not fit its family."""


class DataError(UsageError):
    """A data set or a calibration set cannot be used."""


class BudgetError(EdgecvError):
    """The work is done and a budget is not met."""

    exit_code = 3


class MeasurementError(EdgecvError):
    """A measurement is invalid (throttled, too noisy) or inconclusive."""

    exit_code = 4


class ToolchainError(EdgecvError):
    """Something outside edgecv that this work needs is missing here."""

    exit_code = 5


class CameraError(ToolchainError):
    """A camera is not there, went away, or does not answer."""


class CorruptFrameError(CameraError):
    """One picture of a stream cannot be decoded; the next may be whole."""


class ArtifactError(EdgecvError):
    """A file is corrupt, was changed since it was made, or must not be trusted."""

    exit_code = 6


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file that a user wrote.

    ``line`` counts from 1; None where the problem has no line (a missing file).
    """

    file: str
    line: int | None
    where: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


class RecipeError(UsageError):
    """A recipe (or a target or calibration file) has one or more problems, all of them listed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
