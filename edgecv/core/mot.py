"""MOTChallenge text files: one line an object, ``frame, id, left, top, width, height, score, ...``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecv.errors import DataError

MAX_FRAME = 10_000_000


@dataclass(frozen=True)
class MotTable:
    """All objects of one sequence, in the order of the frames.

    ``frames`` `(N,)` int64 from 1; ``ids`` `(N,)` int64, -1 for detections; ``boxes`` `(N, 4)` float64 as x1, y1,
    x2, y2 in pixels, counted from 0; ``scores`` `(N,)` float64; ``classes`` `(N,)` int64, -1 where not given.
    """

    frames: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, rows: npt.NDArray[np.bool_]) -> "MotTable":
        """The objects of a mask `(N,)`."""
        return MotTable(self.frames[rows], self.ids[rows], self.boxes[rows], self.scores[rows], self.classes[rows])


def read_mot(path: str | Path, *, ignored: bool = False) -> MotTable:
    """Read a detections, result or ground-truth file (comma or space between the numbers).

    Coordinates of the files count from 1; those of the table from 0. The score of a ground-truth line is
    its flag: lines with flag 0 are to be ignored; they are left out unless ``ignored`` asks for them.

    Raises:
        DataError: the file cannot be read, or a line is wrong; file and line are named.
    """
    place = Path(path)
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{place} cannot be read as a MOT text file ({error})") from error
    rows = [_row(line, f"{place}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    table = np.array(rows, dtype=np.float64).reshape(-1, 8)
    table = table if ignored else table[table[:, 6] != 0]
    table = table[np.argsort(table[:, 0], kind="stable")]
    corner = table[:, 2:4] - 1.0
    boxes = np.concatenate([corner, corner + table[:, 4:6]], axis=1)
    return MotTable(
        table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), boxes, table[:, 6], table[:, 7].astype(np.int64)
    )


def mot_line(frame: int, track: int, box: Iterable[float], score: float) -> str:
    """One line of a result file: ``frame`` from 1, ``box`` x1, y1, x2, y2 counted from 0."""
    x1, y1, x2, y2 = box
    return f"{frame},{track},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1"


def _row(line: str, where: str) -> list[float]:
    parts = line.replace(",", " ").split()
    if len(parts) < 6:
        raise DataError(f"{where} has {len(parts)} numbers; a MOT line is frame, id, left, top, width, height, score")
    try:
        values = [float(part) for part in parts[:8]]
    except ValueError:
        raise DataError(f"{where} is {line[:80]!r}; only numbers are allowed") from None
    if not all(math.isfinite(value) for value in values):
        raise DataError(f"{where} holds a number that is not finite: {line[:80]!r}")
    if not (values[0] == int(values[0]) and 1 <= values[0] <= MAX_FRAME):
        raise DataError(f"{where}: the frame is {parts[0]}; whole numbers from 1 to {MAX_FRAME:,} are allowed")
    if values[4] < 0 or values[5] < 0:
        raise DataError(f"{where}: width and height are {parts[4]} and {parts[5]}; 0 or more is allowed")
    # Without a score an object counts; the class follows only after it.
    return values + [1.0, -1.0][len(values) - 6 :] if len(values) < 8 else values
