"""What the json files of COCO have in common: tables of entries with ids, pictures with sizes, boxes.

The format is that of T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014, arXiv:1405.0312.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecv.core.recipe import DataSpec
from edgecv.data.files import SHOWN, inside, wanted_name
from edgecv.errors import DataError

_TABLES = ("images", "annotations", "categories")


@dataclass
class Problems:
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


@dataclass(frozen=True)
class Picture:
    """One entry of the table of images: its path below the root, and its sides in pixels (infinite: not told)."""

    name: str
    width: float
    height: float


def read_tables(path: Path, *, what: str, names: Sequence[str] = _TABLES) -> dict[str, list[Any]]:
    """The tables ``names`` of a json file; ``what`` file is needed, for errors.

    Raises:
        DataError: it is no json, or lacks a table.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no json ({error}); a COCO {what} file is needed") from error
    tables = {name: found.get(name) if isinstance(found, dict) else None for name in names}
    missing = [name for name, table in tables.items() if not isinstance(table, list)]
    if missing:
        raise DataError(
            f"{path} has no list of {' and of '.join(missing)}; a COCO {what} file with the lists "
            f"{', '.join(names)} is needed"
        )
    return {name: list(table) for name, table in tables.items() if table is not None}


def unique(table: list[Any], name: str, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
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


def by_id(table: list[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The first entry of each id, with it."""
    seen: set[Any] = set()
    for entry in table:
        key = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(key, (int, str)) and key not in seen:
            seen.add(key)
            yield key, entry


def read_pictures(table: list[Any], root: Path, problems: Problems) -> dict[Any, Picture]:
    """The sound entries of the table of images, by id; the others are problems."""
    found: dict[Any, Picture] = {}
    for index, image in unique(table, "images", problems):
        file, sides = image.get("file_name"), [image.get(name, math.inf) for name in ("width", "height")]
        if not isinstance(file, str):
            problems.add("images", index, image, f"file_name is {file!r}; the path of a picture is needed")
            continue
        try:
            name = inside(file, root)
        except ValueError as error:
            problems.add("images", index, image, str(error))
            continue
        if not all(isinstance(side, (int, float)) and side > 0 for side in sides):
            problems.add(
                "images", index, image, f"width and height are {sides[0]!r} and {sides[1]!r}; pixels are needed"
            )
            continue
        found[image["id"]] = Picture(name, float(sides[0]), float(sides[1]))
    return found


def pick_pictures(
    spec: DataSpec, table: list[Any], pictures: Mapping[Any, Picture], root: Path, problems: Problems
) -> list[Any]:
    """Ids of the pictures that ``spec.only`` picks by file name or ``coco_url``, in the file's order.

    One that does not lie below ``root`` is a problem.
    """
    picked = [key for key, image in by_id(table) if key in pictures and _is_wanted(spec, pictures[key].name, image)]
    for key in picked:
        if not (root / pictures[key].name).is_file():
            problems.found.append(f"images (id {key}): {pictures[key].name} is not below {root}; set root, or use only")
    return picked


def check_sizes(table: list[Any], pictures: Mapping[Any, Picture], picked: Sequence[Any], problems: Problems) -> None:
    """Pictures that are picked and whose size is not told are problems: their truths come with that size."""
    wanted = set(picked)
    for index, image in enumerate(table):
        key = image.get("id") if isinstance(image, dict) else None
        if (
            isinstance(key, (int, str))
            and key in wanted
            and not math.isfinite(pictures[key].width * pictures[key].height)
        ):
            problems.add("images", index, image, "has no width and height; both are needed, in pixels")


def refuse_none(spec: DataSpec, path: Path, pictures: Mapping[Any, Picture]) -> DataError:
    """The error for a data set of which nothing is picked."""
    only = "" if spec.only is None else f" that fits only: {spec.only!r}"
    return DataError(f"{path} has {len(pictures)} images and none{only}; a data set needs at least one")


def _is_wanted(spec: DataSpec, name: str, image: dict[str, Any]) -> bool:
    return spec.only is None or wanted_name(spec.only, name, str(image.get("coco_url", "")))


def box_problem(box: Any, image: Picture) -> str:
    """What is wrong with a ``bbox`` (left, top, width, height), in words; empty when nothing is."""
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(item, (int, float)) for item in box)
    if not numbers or not all(math.isfinite(item) for item in box):
        return f"bbox is {box!r}; four numbers are needed: left, top, width, height"
    left, top, width, height = box
    if width <= 0 or height <= 0:
        return f"bbox is {box!r}, which has no area; width and height must be above 0"
    if left >= image.width or top >= image.height or left + width <= 0 or top + height <= 0:
        return f"bbox is {box!r}, outside its picture of {image.width:g} x {image.height:g} pixels"
    return ""


def some(names: Sequence[str]) -> str:
    """The first few names, and how many there are more."""
    return (", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")) or "none"
