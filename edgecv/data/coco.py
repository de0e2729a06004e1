"""Boxes as COCO writes them: one json of images, categories and annotations, beside a folder of pictures.

The format is that of T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014, arXiv:1405.0312.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.core.results import DetectionTruth
from edgecv.data.files import SHOWN, Entry, Listing, inside, list_and_root, wanted_name
from edgecv.errors import DataError

_TABLES = ("images", "annotations", "categories")


@dataclass
class _Problems:
    """What is wrong in one file, each with the entry's place in it."""

    path: Path
    found: list[str] = field(default_factory=list)

    def add(self, table: str, index: int, entry: Any, message: str) -> None:
        identity = f" (id {entry['id']})" if isinstance(entry, dict) and "id" in entry else ""
        self.found.append(f"{table}[{index}]{identity}: {message}")

    def refuse(self) -> None:
        """Stop where there are problems; the first few are shown."""
        if self.found:
            more = len(self.found) - SHOWN
            lines = [f"  {line}" for line in self.found[:SHOWN]] + ([f"  and {more} more"] if more > 0 else [])
            raise DataError(
                f"{self.path} has {len(self.found)} broken entries:\n" + "\n".join(lines) + "\nCorrect or remove them."
            )


@dataclass
class _Boxes:
    """The annotations of one picture, as they are collected."""

    width: float
    height: float
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    area: list[float] = field(default_factory=list)

    def truth(self) -> DetectionTruth:
        return DetectionTruth(
            np.array(self.boxes, dtype=np.float32).reshape(-1, 4),
            np.array(self.classes, dtype=np.int64),
            np.array(self.crowd, dtype=bool),
            np.array(self.area, dtype=np.float32),
        )


def list_coco(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The pictures of an instances json with their true boxes, in the file's order; no picture is opened.

    Categories meet ``labels`` by name. Boxes of categories without a label are no truths, which is noted;
    so are labels without a category. ``spec.only`` picks pictures by file name or ``coco_url``. Pictures
    lie below ``spec.root`` (the json's folder where that is not set). Truths are `DetectionTruth`, with
    crowds and areas kept; a picture without a box is a sample too.

    Raises:
        DataError: a file is missing or no such json, names do not fit the labels, nothing is picked, or entries
            are broken (a double id, an unknown category or picture, a box without area or outside its picture,
            a missing picture), named by their place in the file.
    """
    path, root = coco_paths(spec, base=base)
    tables = _read(path)
    problems = _Problems(path)
    classes, notes = _classes(tables["categories"], labels, problems)
    names: dict[Any, str] = {}
    boxes: dict[Any, _Boxes] = {}
    for index, image in _unique(tables["images"], "images", problems):
        _add_image(index, image, root, (names, boxes), problems)
    picked = [key for key, image in _by_id(tables["images"]) if key in names and _is_wanted(spec, names[key], image)]
    left_out = 0
    for index, note in _unique(tables["annotations"], "annotations", problems):
        left_out += _add_box(index, note, classes, boxes, problems)
    for key in picked:
        if not (root / names[key]).is_file():
            problems.found.append(f"images (id {key}): {names[key]} is not below {root}; set root, or use only")
    problems.refuse()
    if not picked:
        only = "" if spec.only is None else f" that fits only: {spec.only!r}"
        raise DataError(f"{path} has {len(names)} images and none{only}; a data set needs at least one")
    if left_out:
        notes.append(f"{left_out} boxes are of categories without a label and do not count")
    entries = tuple(Entry(names[key], root / names[key], boxes[key].truth()) for key in picked)
    return Listing(str(path), entries, notes=tuple(notes))


def coco_paths(spec: DataSpec, *, base: Path) -> tuple[Path, Path]:
    """The instances json and the folder of its pictures.

    Raises:
        DataError: there is no path, no such file or no such folder.
    """
    return list_and_root(spec, base=base, what="instances json", article="an")


def _read(path: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no json ({error}); a COCO instances file is needed") from error
    tables = {name: found.get(name) if isinstance(found, dict) else None for name in _TABLES}
    missing = [name for name, table in tables.items() if not isinstance(table, list)]
    if missing:
        raise DataError(
            f"{path} has no list of {' and of '.join(missing)}; a COCO instances file with the lists "
            f"{', '.join(_TABLES)} is needed"
        )
    return {name: list(table) for name, table in tables.items() if table is not None}


def _unique(table: list[Any], name: str, problems: _Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries with an id of their own, with their places; the others are problems."""
    seen: dict[Any, int] = {}
    for index, entry in enumerate(table):
        key = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(key, (int, str)):
            problems.add(name, index, entry, "has no id that is a number or a text")
        elif key in seen:
            problems.add(name, index, entry, f"has the id of {name}[{seen[key]}]; ids must differ")
        else:
            seen[key] = index
            yield index, entry


def _by_id(table: list[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    seen: set[Any] = set()
    for entry in table:
        key = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(key, (int, str)) and key not in seen:
            seen.add(key)
            yield key, entry


def _classes(table: list[Any], labels: Sequence[str], problems: _Problems) -> tuple[dict[Any, int | None], list[str]]:
    """Class index of every category id (None without a label), and notes."""
    places = {label: index for index, label in enumerate(labels)}
    names: dict[Any, str] = {}
    for index, entry in _unique(table, "categories", problems):
        name = entry.get("name")
        if not isinstance(name, str) or name in names.values():
            problems.add("categories", index, entry, f"its name is {name!r}; each category needs a name of its own")
        else:
            names[entry["id"]] = name
    strange = [name for name in names.values() if name not in places]
    free = [label for label in labels if label not in names.values()]
    if names and ((strange and free) or len(free) == len(labels)):
        raise DataError(
            f"{problems.path}: the categories do not fit the {len(labels)} labels. Categories without a label: "
            f"{_some(strange)}. Labels without a category: {_some(free)}. Set family.labels to the categories' names."
        )
    notes = [f"{len(strange)} of {len(names)} categories have no label: {_some(strange)}"] if strange else []
    notes += [f"{len(free)} of {len(labels)} labels have no category: {_some(free)}"] if free else []
    return {key: places.get(name) for key, name in names.items()}, notes


def _add_image(
    index: int, image: dict[str, Any], root: Path, to: tuple[dict[Any, str], dict[Any, _Boxes]], problems: _Problems
) -> None:
    names, boxes = to
    file, sides = image.get("file_name"), [image.get(name, math.inf) for name in ("width", "height")]
    if not isinstance(file, str):
        problems.add("images", index, image, f"file_name is {file!r}; the path of a picture is needed")
        return
    try:
        name = inside(file, root)
    except ValueError as error:
        problems.add("images", index, image, str(error))
        return
    if not all(isinstance(side, (int, float)) and side > 0 for side in sides):
        problems.add("images", index, image, f"width and height are {sides[0]!r} and {sides[1]!r}; pixels are needed")
        return
    names[image["id"]] = name
    boxes[image["id"]] = _Boxes(float(sides[0]), float(sides[1]))


def _is_wanted(spec: DataSpec, name: str, image: dict[str, Any]) -> bool:
    return spec.only is None or wanted_name(spec.only, name, str(image.get("coco_url", "")))


def _add_box(
    index: int, note: dict[str, Any], classes: dict[Any, int | None], boxes: dict[Any, _Boxes], problems: _Problems
) -> int:
    """Add one annotation to its picture; 1 where its category has no label."""
    category, image = note.get("category_id"), note.get("image_id")
    mine = boxes.get(image) if isinstance(image, (int, str)) else None
    wrong = ""
    if not isinstance(category, (int, str)) or category not in classes:
        wrong = f"category_id is {category!r}, which is not among the {len(classes)} categories"
    elif mine is None:
        wrong = f"image_id is {image!r}, which is not among the images"
    else:
        wrong = _box_problem(note.get("bbox"), mine)
    if wrong or mine is None:
        problems.add("annotations", index, note, wrong)
        return 0
    label = classes[category]
    if label is None:
        return 1
    left, top, width, height = (float(value) for value in note["bbox"])
    area = note.get("area")
    mine.boxes.append((left, top, left + width, top + height))
    mine.classes.append(label)
    mine.crowd.append(bool(note.get("iscrowd", 0)))
    mine.area.append(float(area) if isinstance(area, (int, float)) and math.isfinite(area) else width * height)
    return 0


def _box_problem(box: Any, image: _Boxes) -> str:
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(item, (int, float)) for item in box)
    if not numbers or not all(math.isfinite(item) for item in box):
        return f"bbox is {box!r}; four numbers are needed: left, top, width, height"
    left, top, width, height = box
    if width <= 0 or height <= 0:
        return f"bbox is {box!r}, which has no area; width and height must be above 0"
    if left >= image.width or top >= image.height or left + width <= 0 or top + height <= 0:
        return f"bbox is {box!r}, outside its picture of {image.width:g} x {image.height:g} pixels"
    return ""


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")) or "none"
