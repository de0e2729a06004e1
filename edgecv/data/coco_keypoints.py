"""Keypoints as COCO writes them: one json of images, a category with keypoint names, and persons.

The format is that of T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014, arXiv:1405.0312.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.data.coco_file import (
    Picture,
    Problems,
    box_problem,
    check_sizes,
    pick_pictures,
    read_pictures,
    read_tables,
    refuse_none,
    some,
    unique,
)
from edgecv.data.files import Entry, Listing, list_and_root
from edgecv.errors import DataError
from edgecv.families.pose_truth import PoseTruth, mirror_of
from edgecv.vision.crops import CROP_MARGIN, crop_window

_SEEN = (0, 1, 2)


@dataclass(frozen=True)
class _Person:
    """One sound annotation: its id, keypoints `(K, 3)`, box x1, y1, x2, y2, area in square pixels, crowd or not."""

    key: Any
    keypoints: np.ndarray[Any, Any]
    box: tuple[float, float, float, float]
    area: float
    crowd: bool


@dataclass
class _Persons:
    """The annotations of one picture, as they are collected."""

    picture: Picture
    found: list[_Person] = field(default_factory=list)


def list_keypoints(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """Whole pictures with all their persons or, with ``spec.crop``, one cut-out for each labelled person.

    The order is the file's; no picture is opened. Truths are `PoseTruth`. The one category that has keypoints and a
    name among ``labels`` counts; an empty list of them (face landmarks are often so) stands for points by number. A
    cut-out is what a second stage would look at (`edgecv.vision.crops`): the box
    widened to ``spec.crop`` (width / height) and made a quarter larger, ends at the picture's edges; its id is the
    picture's name, '#' and the annotation's id, and its truth that person alone. Crowds and persons without a labelled
    keypoint have none. ``spec.only`` picks pictures by file name or ``coco_url``, which lie below ``spec.root``.

    Raises:
        DataError: a file is missing or no such json, no category fits the labels, nothing is picked, or entries are
            broken (a wrong number of keypoints, one outside its picture or of an unknown visibility, ...), named by
            their place in the file.
    """
    path, root = list_and_root(spec, base=base, what="person keypoints json", article="a")
    tables = read_tables(path, what="person keypoints")
    problems = Problems(path)
    category, names = _category(tables["categories"], labels, problems)
    names = names or _numbered(tables["annotations"], category)
    pictures = read_pictures(tables["images"], root, problems)
    persons = {key: _Persons(picture) for key, picture in pictures.items()}
    left_out = sum(
        _add_person(index, note, (category, len(names)), persons, problems)
        for index, note in unique(tables["annotations"], "annotations", problems)
    )
    picked = pick_pictures(spec, tables["images"], pictures, root, problems)
    check_sizes(tables["images"], pictures, picked, problems)
    problems.refuse()
    if not picked:
        raise refuse_none(spec, path, pictures)
    notes = [f"{left_out} annotations are of other categories and do not count"] if left_out else []
    mirror = mirror_of(names)
    if spec.crop is None:
        whole = tuple(
            Entry(pictures[key].name, root / pictures[key].name, _truth(persons[key], persons[key].found, mirror))
            for key in picked
        )
        return Listing(str(path), whole, notes=tuple(notes))
    every = sum(len(persons[key].found) for key in picked)
    entries = tuple(entry for key in picked for entry in _cut_outs(persons[key], spec.crop, root, mirror))
    if not entries:
        raise DataError(f"{path} has {every} persons and none with a labelled keypoint; crop needs at least one")
    if every > len(entries):
        notes.append(f"{every - len(entries)} of {every} persons have no labelled keypoint and are not cut out")
    return Listing(str(path), entries, notes=tuple(notes))


def _category(table: list[Any], labels: Sequence[str], problems: Problems) -> tuple[Any, tuple[str, ...]]:
    """Id and keypoint names of the category that counts; () where it has points without names, as faces often do."""
    fitting, others = [], []
    for index, entry in unique(table, "categories", problems):
        name, keypoints = entry.get("name"), entry.get("keypoints")
        if keypoints is None or name not in labels:
            others.append(str(name))
        elif not isinstance(keypoints, list) or not all(isinstance(item, str) for item in keypoints):
            problems.add("categories", index, entry, f"keypoints are {keypoints!r}; a list of their names is needed")
        else:
            fitting.append((entry["id"], tuple(keypoints)))
    problems.refuse()
    if len(fitting) != 1:
        raise DataError(
            f"{problems.path}: {len(fitting)} categories have keypoints and a name among the labels "
            f"({some(list(labels))}); exactly one is needed. Other categories: {some(others)}. "
            "Set family.labels to its name."
        )
    return fitting[0]


def _numbered(table: list[Any], category: Any) -> tuple[str, ...]:
    """As many keypoints as the first annotation of the category has, named by number: "0", "1", ..."""
    for note in table:
        points = note.get("keypoints") if isinstance(note, dict) and note.get("category_id") == category else None
        if isinstance(points, list):
            return tuple(str(number) for number in range(max(1, len(points) // 3)))
    return ("0",)


def _add_person(
    index: int, note: dict[str, Any], wanted: tuple[Any, int], persons: Mapping[Any, _Persons], problems: Problems
) -> int:
    """Add one annotation to its picture; 1 where it is of another category."""
    category, count = wanted
    image, crowd = note.get("image_id"), bool(note.get("iscrowd", 0))
    mine = persons.get(image) if isinstance(image, (int, str)) else None
    if note.get("category_id") != category:
        return 1
    if mine is None:
        wrong = f"image_id is {image!r}, which is not among the images"
    else:
        wrong = box_problem(note.get("bbox"), mine.picture)
        wrong = wrong or _keypoint_problem(note.get("keypoints"), count, mine.picture)
    if wrong or mine is None:
        problems.add("annotations", index, note, wrong)
        return 0
    left, top, width, height = (float(value) for value in note["bbox"])
    area = note.get("area")
    covers = float(area) if isinstance(area, (int, float)) and math.isfinite(area) and area > 0 else width * height
    keypoints = np.array(note["keypoints"], dtype=np.float32).reshape(count, 3)
    box = (left, top, left + width, top + height)
    mine.found.append(_Person(note["id"], keypoints, box, covers, crowd))
    return 0


def _keypoint_problem(keypoints: Any, count: int, picture: Picture) -> str:
    """What is wrong with a person's flat list of x, y, visibility, in words; empty when nothing is."""
    if not isinstance(keypoints, list) or len(keypoints) != 3 * count:
        have = len(keypoints) if isinstance(keypoints, list) else repr(keypoints)
        return f"keypoints have {have} values; {3 * count} are needed: x, y and visibility of {count} keypoints"
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in keypoints):
        return "keypoints hold something that is no number; x, y and visibility of each are needed"
    for number in range(count):
        x, y, seen = keypoints[3 * number : 3 * number + 3]
        if seen not in _SEEN:
            return f"keypoint {number} has visibility {seen!r}; allowed are 0 (not labelled), 1 (hidden) and 2 (seen)"
        if seen and not (0 <= x <= picture.width and 0 <= y <= picture.height):
            size = f"{picture.width:g} x {picture.height:g}"
            return f"keypoint {number} is at {x:g}, {y:g}, outside its picture of {size} pixels"
    return ""


def _truth(where: _Persons, persons: Sequence[_Person], mirror: tuple[int, ...]) -> PoseTruth:
    count = len(persons)
    points = [person.keypoints for person in persons]
    return PoseTruth(
        np.array(points, dtype=np.float32).reshape(count, -1, 3) if count else np.zeros((0, 1, 3), np.float32),
        np.array([person.box for person in persons], dtype=np.float32).reshape(-1, 4),
        np.array([person.area for person in persons], dtype=np.float32),
        np.array([person.crowd for person in persons], dtype=bool),
        (round(where.picture.height), round(where.picture.width)),
        mirror,
    )


def _cut_outs(where: _Persons, aspect: float, root: Path, mirror: tuple[int, ...]) -> Iterator[Entry]:
    size = (round(where.picture.height), round(where.picture.width))
    for person in where.found:
        if person.crowd or not (person.keypoints[:, 2] > 0).any():
            continue
        window = crop_window(size, np.array(person.box), margin=CROP_MARGIN, aspect=aspect)
        if window is None:
            continue
        name = where.picture.name
        yield Entry(f"{name}#{person.key}", root / name, _truth(where, [person], mirror).cut(window), window)
