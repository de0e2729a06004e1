"""Boxes of a tracking sequence: the ground truth of the MOTChallenge with the sequence's frames."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecv.core.mot import MotTable, read_mot
from edgecv.core.recipe import DataSpec
from edgecv.core.results import DetectionTruth
from edgecv.data.files import SHOWN, Entry, Listing, list_and_root
from edgecv.data.imagefolder import image_paths
from edgecv.errors import DataError

CLASSES: Mapping[str, int] = {
    "pedestrian": 1,
    "person": 1,
    "person on vehicle": 2,
    "car": 3,
    "bicycle": 4,
    "motorbike": 5,
    "non motorized vehicle": 6,
    "static person": 7,
}
"""Numbers of the labels that can be told apart (A. Milan et al., "MOT16", 2016, arXiv:1603.00831)."""
_LIKE_PEDESTRIANS = (2, 7, 8, 12)
"""Persons on vehicles, static ones, distractors and reflections: where pedestrians are meant, nobody judges them."""


def list_mot(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """Every frame of a sequence with its boxes; ``spec.path`` is its gt.txt.

    The frames lie in ``spec.root`` (by default the folder img1 beside that of the gt.txt) and are named by their
    numbers from 1, such as 000001.jpg; a frame without a line shows nothing. Boxes of a label's class count (all of
    them where the file gives no classes; the first label is meant then). Those with flag 0, and what is like a
    pedestrian without being one, are neither to be found nor to be missed.

    Raises:
        DataError: a file or folder is missing, a line is wrong (file and line are named) or has no area, no label is a
            class of the MOTChallenge, or frames with boxes have no picture.
    """
    given = spec if spec.root is not None or spec.path is None else replace(spec, root=_beside(spec.path))
    path, root = list_and_root(given, base=base, what="gt.txt of a sequence", article="a")
    table = read_mot(path, ignored=True)
    _check_area(table, path)
    pictures = _numbered(root)
    lost = sorted(set(table.frames.tolist()) - set(pictures))
    if lost:
        some = ", ".join(map(str, lost[:SHOWN]))
        raise DataError(
            f"{path} has boxes in {len(lost)} frames without a picture in {root}, such as {some}; name the folder of "
            "the frames by root"
        )
    index, judged = _classes(table, labels, path)
    entries = []
    for frame, file in sorted(pictures.items()):
        rows = np.flatnonzero((table.frames == frame) & (index >= 0))
        truth = DetectionTruth(table.boxes[rows].astype(np.float32), index[rows], ~judged[rows])
        entries.append(Entry(file.relative_to(root).as_posix(), file, truth))
    return Listing(str(path), tuple(entries))


def _beside(path: str) -> str:
    """The folder of a sequence's frames, as the MOTChallenge has them."""
    return os.path.join(os.path.dirname(path), os.pardir, "img1")


def _check_area(table: MotTable, path: Path) -> None:
    flat = np.flatnonzero((table.boxes[:, 2:] <= table.boxes[:, :2]).any(axis=1))
    if len(flat):
        frame, track = int(table.frames[flat[0]]), int(table.ids[flat[0]])
        raise DataError(
            f"{path}: {len(flat)} boxes have no area, such as frame {frame}, id {track}; width and height above 0 are "
            "needed. Correct or remove them"
        )


def _numbered(root: Path) -> dict[int, Path]:
    """The pictures in ``root`` by the numbers that are their names."""
    found = {int(path.stem): path for path in image_paths(root) if path.stem.isascii() and path.stem.isdigit()}
    if not found:
        raise DataError(f"{root} has no picture that is named by a frame's number, such as 000001.jpg")
    return found


def _classes(table: MotTable, labels: Sequence[str], path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The label of each box (-1: of none of them), and whether it is judged."""
    places = {CLASSES[label.casefold()]: at for at, label in enumerate(labels) if label.casefold() in CLASSES}
    flagged = table.scores != 0
    if (table.classes < 0).all():
        return np.zeros(len(table), dtype=np.int64), flagged
    if not places:
        raise DataError(
            f"{path} has classes of the MOTChallenge, and none of the labels ({', '.join(labels[:SHOWN])}) is one: "
            f"{', '.join(CLASSES)}. Set family.labels"
        )
    index = np.array([places.get(int(number), -1) for number in table.classes], dtype=np.int64)
    judged = flagged & (index >= 0)
    if 1 in places:
        alike = (index < 0) & np.isin(table.classes, _LIKE_PEDESTRIANS)
        index[alike] = places[1]
    return index, judged
