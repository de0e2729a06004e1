"""Where text stands in pictures: the json of MMOCR, and ICDAR's text files, one for each picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.data import imagefile
from edgecv.data.coco_file import Problems
from edgecv.data.files import Entry, Listing, TruthFile, inside, list_and_root, wanted_name
from edgecv.data.paired import list_paired, shown_size
from edgecv.errors import DataError
from edgecv.families.textdet_result import Polygon, TextTruth
from edgecv.vision.polygons import area

__all__ = ["list_icdar", "list_textdet", "parse_icdar"]

ILLEGIBLE = "###"
_ICDAR_NUMBERS = 8
_LEAST_AREA_PX = 1e-6


def list_textdet(spec: DataSpec, *, base: Path, labels: Sequence[str] = ()) -> Listing:
    """The pictures of an MMOCR text detection file (``data_list`` of ``img_path`` and ``instances``), in its order.

    An instance has a ``polygon`` (x, y, x, y, ..., at least three corners) or a ``bbox`` (x1, y1, x2, y2), maybe
    ``ignore`` and ``text``. Pictures lie below ``spec.root``, the file's folder where that is not set; ``spec.only``
    picks them by name.

    Raises:
        DataError: the file or folder is missing, is no such json, or entries are broken (they are named).
    """
    path, root = list_and_root(spec, base=base, what="textdet json", article="a")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no json ({error}); a text detection file of MMOCR is needed") from error
    table = found.get("data_list") if isinstance(found, dict) else None
    if not isinstance(table, list):
        raise DataError(f"{path} has no list of data_list; a text detection file of MMOCR is needed")
    problems, entries = Problems(path), dict[str, Entry]()
    for index, item in enumerate(table):
        file = item.get("img_path") if isinstance(item, dict) else None
        if not isinstance(file, str):
            problems.add("data_list", index, item, f"img_path is {file!r}; the path of a picture is needed")
            continue
        if spec.only is not None and not wanted_name(spec.only, file):
            continue
        try:
            name = inside(file, root)
        except ValueError as error:
            problems.add("data_list", index, item, str(error))
            continue
        if name in entries:
            problems.add("data_list", index, item, f"{file} stands there already")
        elif not (root / name).is_file():
            problems.add("data_list", index, item, f"{name} is not below {root}; set root, or use only")
        else:
            entries[name] = Entry(name, root / name, _json_truth(item, index, root / name, problems))
    problems.refuse()
    if not entries:
        only = "" if spec.only is None else f" that fits only: {spec.only!r}"
        raise DataError(f"{path} has no picture{only}; a data set needs at least one")
    return Listing(str(path), tuple(entries.values()))


def list_icdar(spec: DataSpec, *, base: Path, labels: Sequence[str] = ()) -> Listing:
    """The pictures of ``spec.path`` with the text files of ``spec.truth``, as ICDAR's tasks from 2015 on have them.

    A line is ``x1,y1,x2,y2,x3,y3,x4,y4,text``; where the text is `ILLEGIBLE` the piece is ignored. The file of
    ``img_1.jpg`` is ``gt_img_1.txt`` or ``img_1.txt``, and is empty where there is no text.

    Raises:
        DataError: no pictures, no such folder, or pictures without a file (they are named).
    """
    listing, found = list_paired(spec, base=base, what="text file", endings=(".txt",), names=_names)
    entries = (
        Entry(item.id, item.path, TruthFile(found[item.id], partial(_read, picture=item.path)))
        for item in listing.entries
    )
    return Listing(listing.place, tuple(entries))


def parse_icdar(text: str, size: tuple[int, int]) -> TextTruth:
    """The lines of one text file for a picture of (height, width) ``size``.

    Raises:
        ValueError: a line that is no quadrilateral with a text, with its number and what is wrong.
    """
    polygons: list[Polygon] = []
    texts: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split(",", _ICDAR_NUMBERS)
        try:
            if len(parts) <= _ICDAR_NUMBERS:
                raise ValueError(
                    f"{line!r} has {len(parts)} parts; eight numbers and a text are needed, parted by commas"
                )
            polygons.append(_polygon([_number(part) for part in parts[:_ICDAR_NUMBERS]], size))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        texts.append(parts[_ICDAR_NUMBERS].strip())
    return TextTruth(tuple(polygons), tuple(item == ILLEGIBLE for item in texts), tuple(texts))


def _names(stem: str) -> Iterable[str]:
    return (f"gt_{stem}", stem)


def _read(data: bytes, *, picture: Path) -> TextTruth:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 ({error})") from error
    return parse_icdar(text, shown_size(imagefile.read_bytes(picture)))


def _json_truth(item: dict[str, Any], index: int, path: Path, problems: Problems) -> TextTruth:
    """The instances of one picture; what is broken is a problem and left out."""
    rows = item.get("instances", [])
    height, width = item.get("height"), item.get("width")
    polygons: list[Polygon] = []
    ignored: list[bool] = []
    texts: list[str] = []
    if not isinstance(rows, list):
        problems.add("data_list", index, item, f"instances is {rows!r}; a list is needed")
        rows = []
    try:
        if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
            real = height, width
        else:
            real = shown_size(imagefile.read_bytes(path))
    except ValueError as error:
        problems.add("data_list", index, item, f"{path.name}: {error}")
        return TextTruth((), ())
    for place, row in enumerate(rows):
        try:
            if not isinstance(row, dict):
                raise ValueError(f"is {row!r}; an object with a polygon is needed")
            polygons.append(_polygon(_corners(row), real))
        except ValueError as error:
            problems.add("data_list", index, item, f"{path.name}: instances[{place}]: {error}")
            continue
        ignored.append(bool(row.get("ignore", False)))
        texts.append(str(row.get("text", "")))
    return TextTruth(tuple(polygons), tuple(ignored), tuple(texts) if any(texts) else ())


def _corners(row: dict[str, Any]) -> list[float]:
    if "polygon" in row:
        values = row["polygon"]
    else:
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"has no polygon, and bbox is {box!r}; x1, y1, x2, y2 are needed")
        values = [box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]]
    if not isinstance(values, list) or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    ):
        raise ValueError(f"polygon is {values!r}; a list of numbers is needed: x, y, x, y, ...")
    return [float(value) for value in values]


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{word.strip()!r} is no number; eight are needed before the text: x1,y1,...,x4,y4") from None


def _polygon(values: Sequence[float], size: tuple[int, int]) -> Polygon:
    """Corners of flat values, held against a picture of (height, width) ``size``."""
    if len(values) % 2 or len(values) < 6:
        raise ValueError(f"polygon has {len(values)} numbers; x and y of at least three corners are needed")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"polygon {list(values)} is not finite; pixels are needed")
    points = tuple((float(x), float(y)) for x, y in zip(values[::2], values[1::2], strict=True))
    height, width = size
    across, down = [x for x, _ in points], [y for _, y in points]
    if min(across) >= width or min(down) >= height or max(across) <= 0 or max(down) <= 0:
        raise ValueError(f"polygon {list(values)} lies outside its picture of {width} x {height} pixels")
    if area(np.array(points)) <= _LEAST_AREA_PX:
        raise ValueError(f"polygon {list(values)} has no area; corners in their order around the text are needed")
    return points
