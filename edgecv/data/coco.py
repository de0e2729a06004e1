"""Boxes as COCO writes them: one json of images, categories and annotations, beside a folder of pictures.

The format is that of T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014, arXiv:1405.0312.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.core.results import DetectionTruth
from edgecv.data.coco_file import (
    Picture,
    Problems,
    box_problem,
    pick_pictures,
    read_pictures,
    read_tables,
    refuse_none,
    some,
    unique,
)
from edgecv.data.files import Entry, Listing, list_and_root
from edgecv.errors import DataError


@dataclass
class _Boxes:
    """The annotations of one picture, as they are collected."""

    picture: Picture
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
    tables = read_tables(path, what="instances")
    problems = Problems(path)
    classes, notes = category_classes(tables["categories"], labels, problems)
    pictures = read_pictures(tables["images"], root, problems)
    boxes = {key: _Boxes(picture) for key, picture in pictures.items()}
    left_out = 0
    for index, note in unique(tables["annotations"], "annotations", problems):
        left_out += _add_box(index, note, classes, boxes, problems)
    picked = pick_pictures(spec, tables["images"], pictures, root, problems)
    problems.refuse()
    if not picked:
        raise refuse_none(spec, path, pictures)
    if left_out:
        notes.append(f"{left_out} boxes are of categories without a label and do not count")
    entries = tuple(Entry(pictures[key].name, root / pictures[key].name, boxes[key].truth()) for key in picked)
    return Listing(str(path), entries, notes=tuple(notes))


def coco_paths(spec: DataSpec, *, base: Path) -> tuple[Path, Path]:
    """The instances json and the folder of its pictures.

    Raises:
        DataError: there is no path, no such file or no such folder.
    """
    return list_and_root(spec, base=base, what="instances json", article="an")


def category_classes(
    table: list[Any], labels: Sequence[str], problems: Problems
) -> tuple[dict[Any, int | None], list[str]]:
    """Class index of every category id (None without a label), and notes."""
    places = {label: index for index, label in enumerate(labels)}
    names: dict[Any, str] = {}
    for index, entry in unique(table, "categories", problems):
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
            f"{some(strange)}. Labels without a category: {some(free)}. Set family.labels to the categories' names."
        )
    notes = [f"{len(strange)} of {len(names)} categories have no label: {some(strange)}"] if strange else []
    notes += [f"{len(free)} of {len(labels)} labels have no category: {some(free)}"] if free else []
    return {key: places.get(name) for key, name in names.items()}, notes


def _add_box(
    index: int, note: dict[str, Any], classes: dict[Any, int | None], boxes: dict[Any, _Boxes], problems: Problems
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
        wrong = box_problem(note.get("bbox"), mine.picture)
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
