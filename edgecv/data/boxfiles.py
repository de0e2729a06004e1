"""Boxes with a file for each picture: YOLO text, Pascal VOC xml, KITTI labels."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.core.results import DetectionTruth
from edgecv.data import imagefile
from edgecv.data.files import Entry, Listing, TruthFile
from edgecv.data.paired import list_paired, shown_size

_TOLERANCE = 1e-3
_KITTI_FIELDS = 15

Parse = Callable[[str, tuple[int, int], Sequence[str]], DetectionTruth]


@dataclass
class BoxRows:
    """The boxes of one picture as they are read; ``size`` is its (height, width)."""

    size: tuple[int, int]
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)

    def add(self, box: tuple[float, float, float, float], index: int, *, crowd: bool = False) -> None:
        """Take one box, x1, y1, x2, y2 in pixels.

        Raises:
            ValueError: it has no area or lies outside the picture.
        """
        x1, y1, x2, y2 = box
        shown = ", ".join(f"{value:g}" for value in box)
        if not all(map(math.isfinite, box)) or x2 <= x1 or y2 <= y1:
            raise ValueError(f"box {shown} has no area; x1 < x2 and y1 < y2 in pixels are needed")
        height, width = self.size
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise ValueError(f"box {shown} lies outside its picture of {width} x {height} pixels")
        self.boxes.append(box)
        self.classes.append(index)
        self.crowd.append(crowd)

    def truth(self) -> DetectionTruth:
        """All of them."""
        return DetectionTruth(
            np.array(self.boxes, dtype=np.float32).reshape(-1, 4),
            np.array(self.classes, dtype=np.int64),
            np.array(self.crowd, dtype=bool),
        )


def list_yolo(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The pictures of ``spec.path`` with the text files of ``spec.truth``: `class cx cy width height`, shares 0..1.

    Every picture needs its file, which is empty where nothing is to be found.

    Raises:
        DataError: no pictures, no such folder, or pictures without a file (they are named).
    """
    return _listed(spec, base, labels, ".txt", parse_yolo)


def list_voc(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The pictures of ``spec.path`` with the Pascal VOC xml files of ``spec.truth``.

    Objects marked difficult are neither to be found nor to be missed.

    Raises:
        DataError: no pictures, no such folder, or pictures without a file (they are named).
    """
    return _listed(spec, base, labels, ".xml", parse_voc)


def list_kitti(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The pictures of ``spec.path`` with the KITTI object labels of ``spec.truth``: 2D boxes by type.

    Regions of type DontCare, and types without a label, are neither to be found nor to be missed.

    Raises:
        DataError: no pictures, no such folder, or pictures without a file (they are named).
    """
    return _listed(spec, base, labels, ".txt", parse_kitti)


def _listed(spec: DataSpec, base: Path, labels: Sequence[str], ending: str, parse: Parse) -> Listing:
    listing, found = list_paired(spec, base=base, what="label file", endings=(ending,))
    entries = (
        Entry(item.id, item.path, TruthFile(found[item.id], partial(_read, parse, picture=item.path, labels=labels)))
        for item in listing.entries
    )
    return Listing(listing.place, tuple(entries))


def _read(parse: Parse, data: bytes, *, picture: Path, labels: Sequence[str]) -> DetectionTruth:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 ({error})") from error
    return parse(text, shown_size(imagefile.read_bytes(picture)), labels)


def parse_yolo(text: str, size: tuple[int, int], labels: Sequence[str]) -> DetectionTruth:
    """Boxes of a YOLO text file for a picture of (height, width) ``size``.

    Raises:
        ValueError: a line that is no box, with its number and what is wrong.
    """
    rows = BoxRows(size)
    for number, words in _lines(text):
        with _at(number):
            if len(words) != 5:
                kind = "a polygon" if len(words) > 5 else "too short"
                raise ValueError(f"{len(words)} values, {kind}; five are needed: class cx cy width height")
            values = _numbers(words[1:])
            if not all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in values):
                raise ValueError(f"{' '.join(words[1:])}: shares of the picture from 0 to 1 are needed, not pixels")
            cx, cy, width, height = values
            high, wide = size
            box = ((cx - width / 2) * wide, (cy - height / 2) * high, (cx + width / 2) * wide, (cy + height / 2) * high)
            rows.add(box, _class_number(words[0], labels))
    return rows.truth()


def parse_kitti(text: str, size: tuple[int, int], labels: Sequence[str]) -> DetectionTruth:
    """2D boxes of a KITTI label file for a picture of (height, width) ``size``.

    Raises:
        ValueError: a line that is no label, with its number and what is wrong.
    """
    rows, places = BoxRows(size), {label.casefold(): index for index, label in enumerate(labels)}
    for number, words in _lines(text):
        with _at(number):
            if len(words) < _KITTI_FIELDS:
                raise ValueError(f"{len(words)} values; at least {_KITTI_FIELDS} are needed, as in KITTI's label files")
            x1, y1, x2, y2 = _numbers(words[4:8])
            index = places.get(words[0].casefold())
            # A region where nothing is judged counts for every class.
            for place in [index] if index is not None else range(len(labels)):
                rows.add((x1, y1, x2, y2), place, crowd=index is None)
    return rows.truth()


def parse_voc(text: str, size: tuple[int, int], labels: Sequence[str]) -> DetectionTruth:
    """Boxes of a Pascal VOC xml file for a picture of (height, width) ``size``.

    Corners count from 1 and are part of the box (M. Everingham et al., VOC development kit), so x1 and y1 are one less
    here.

    Raises:
        ValueError: no such xml, an object that is no box or has no label, with its place and what is wrong.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no xml ({error})") from error
    if root.tag != "annotation":
        raise ValueError(f"the xml begins with <{root.tag}>; <annotation> is needed")
    said = [root.findtext(f"size/{name}", "") for name in ("height", "width")]
    if any(said) and [text.strip() for text in said] != [str(side) for side in size]:
        raise ValueError(
            f"it is of a picture of {said[1]} x {said[0]} pixels, and its picture has {size[1]} x {size[0]}"
        )
    rows, places = BoxRows(size), {label: index for index, label in enumerate(labels)}
    for number, item in enumerate(root.iter("object"), 1):
        with _at(number, what="object"):
            name = item.findtext("name", "").strip()
            if name not in places:
                raise ValueError(f"its name is {name!r}; labels are {', '.join(labels)}")
            corners = [item.findtext(f"bndbox/{key}", "") for key in ("xmin", "ymin", "xmax", "ymax")]
            x1, y1, x2, y2 = _numbers(corners)
            rows.add((x1 - 1, y1 - 1, x2, y2), places[name], crowd=item.findtext("difficult", "0").strip() == "1")
    return rows.truth()


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Number (from 1) and words of each line that holds any."""
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.split():
            yield number, words


@contextmanager
def _at(number: int, *, what: str = "line") -> Iterator[None]:
    """Names the place of a ValueError from within."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what} {number}: {error}") from error


def _numbers(words: Sequence[str]) -> tuple[float, float, float, float]:
    try:
        first, second, third, fourth = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"{' '.join(words).strip() or 'nothing'}: four numbers are needed") from None
    return first, second, third, fourth


def _class_number(word: str, labels: Sequence[str]) -> int:
    if not (word.isascii() and word.isdigit()) or int(word) >= len(labels):
        raise ValueError(
            f"class {word!r}; with {len(labels)} labels, a whole number from 0 to {len(labels) - 1} is needed"
        )
    return int(word)
