"""Masks of objects as COCO writes them: polygons, or runs of pixels, in one json beside a folder of pictures.

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
from edgecv.data.coco import category_classes, coco_paths
from edgecv.data.coco_file import (
    Picture,
    Problems,
    box_problem,
    check_sizes,
    pick_pictures,
    read_pictures,
    read_tables,
    refuse_none,
    unique,
)
from edgecv.data.files import Entry, Listing
from edgecv.families.instance_truth import InstanceTruth, mask_codec

_FIRST_CODE = ord("0")
_SHARE, _SIGN, _MORE = 0x1F, 0x10, 0x20


@dataclass
class _Objects:
    """The annotations of one picture, as they are collected."""

    picture: Picture
    codes: list[bytes] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)

    def truth(self) -> InstanceTruth:
        height, width = round(self.picture.height), round(self.picture.width)
        codec, size = mask_codec(), [height, width]
        areas = [float(codec.area({"size": size, "counts": code})) for code in self.codes]
        return InstanceTruth(
            tuple(self.codes),
            np.array(self.boxes, dtype=np.float32).reshape(-1, 4),
            np.array(self.classes, dtype=np.int64),
            np.array(self.crowd, dtype=bool),
            np.array(areas, dtype=np.float32),
            (height, width),
        )


def list_coco_masks(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The pictures of an instances json with the masks of their objects, in the file's order; no picture is opened.

    As `edgecv.data.coco.list_coco`, but truths are `InstanceTruth`: polygons are drawn as COCO's own code does,
    runs of pixels (of crowds) taken as they are.

    Raises:
        DataError: as `list_coco`; or a segmentation is broken, of another size than its picture or outside it, or a
            picture's size is not told: named by their place in the file.
        ToolchainError: faster-coco-eval is not installed.
    """
    path, root = coco_paths(spec, base=base)
    tables = read_tables(path, what="instances")
    problems = Problems(path)
    classes, notes = category_classes(tables["categories"], labels, problems)
    pictures = read_pictures(tables["images"], root, problems)
    picked = pick_pictures(spec, tables["images"], pictures, root, problems)
    check_sizes(tables["images"], pictures, picked, problems)
    objects = {key: _Objects(pictures[key]) for key in picked}
    left_out = 0
    for index, note in unique(tables["annotations"], "annotations", problems):
        image = note.get("image_id")
        if not isinstance(image, (int, str)) or image not in pictures:
            problems.add("annotations", index, note, f"image_id is {image!r}, which is not among the images")
        elif image in objects:
            left_out += _add_object(index, note, classes, objects[image], problems)
    problems.refuse()
    if not picked:
        raise refuse_none(spec, path, pictures)
    if left_out:
        notes.append(f"{left_out} objects are of categories without a label and do not count")
    entries = tuple(Entry(pictures[key].name, root / pictures[key].name, objects[key].truth()) for key in picked)
    return Listing(str(path), entries, notes=tuple(notes))


def _add_object(
    index: int, note: dict[str, Any], classes: dict[Any, int | None], mine: _Objects, problems: Problems
) -> int:
    """Add one annotation to its picture; 1 where its category has no label."""
    category, picture = note.get("category_id"), mine.picture
    if not isinstance(category, (int, str)) or category not in classes:
        wrong = f"category_id is {category!r}, which is not among the {len(classes)} categories"
        problems.add("annotations", index, note, wrong)
        return 0
    label = classes[category]
    if label is None:
        return 1
    wrong = box_problem(note.get("bbox"), picture)
    if wrong or not math.isfinite(picture.width * picture.height):  # a size that is missing was told already
        if wrong:
            problems.add("annotations", index, note, wrong)
        return 0
    try:
        code = _code(note.get("segmentation"), (round(picture.height), round(picture.width)))
    except ValueError as error:
        problems.add("annotations", index, note, str(error))
        return 0
    left, top, width, height = (float(value) for value in note["bbox"])
    mine.codes.append(code)
    mine.boxes.append((left, top, left + width, top + height))
    mine.classes.append(label)
    mine.crowd.append(bool(note.get("iscrowd", 0)))
    return 0


def _code(segmentation: Any, size: tuple[int, int]) -> bytes:
    """The compressed run-length code of a segmentation in a picture of (height, width) ``size``.

    Raises:
        ValueError: it is neither polygons nor runs of pixels, or does not fit the picture.
    """
    codec = mask_codec()
    if isinstance(segmentation, dict):
        runs = {"size": list(size), "counts": _runs(segmentation, size)}
        code: bytes = codec.frPyObjects(runs, *size)["counts"]
        return code
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"segmentation is {_shown(segmentation)}; a list of polygons, or size and counts, are needed")
    for number, polygon in enumerate(segmentation):
        _check_polygon(number, polygon, size)
    whole: bytes = codec.merge(codec.frPyObjects(segmentation, *size))["counts"]
    return whole


def _check_polygon(number: int, polygon: Any, size: tuple[int, int]) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        have = f"{len(polygon)} values" if isinstance(polygon, list) else repr(polygon)
        raise ValueError(f"polygon {number} has {have}; x and y of at least three corners are needed")
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in polygon):
        raise ValueError(f"polygon {number} holds something that is no number; x and y of its corners are needed")
    for name, values, side in (("x", polygon[0::2], size[1]), ("y", polygon[1::2], size[0])):
        low, high = min(values), max(values)
        # Corners a little outside are usual; a whole picture away they are of another picture, or in another unit.
        if high <= 0 or low >= side or low < -side or high > 2 * side:
            shown = f"{size[1]} x {size[0]} pixels"
            raise ValueError(f"polygon {number} has {name} from {low:g} to {high:g}, outside its picture of {shown}")


def _runs(segmentation: dict[str, Any], size: tuple[int, int]) -> list[int]:
    """The lengths of the runs of pixels that are not covered and covered in turn, of a sound run-length code."""
    told, counts = segmentation.get("size"), segmentation.get("counts")
    if told != list(size):
        raise ValueError(f"segmentation has size {told!r}; its picture has [height, width] {list(size)}")
    runs = _read_code(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError(
            f"segmentation has counts {_shown(counts)}; lengths of runs, or COCO's code of them, are needed"
        )
    if sum(runs) != size[0] * size[1]:
        raise ValueError(
            f"segmentation has counts that sum to {sum(runs)}; its picture has {size[0]} x {size[1]} = "
            f"{size[0] * size[1]} pixels"
        )
    return runs


def _read_code(text: str) -> list[int]:
    """The lengths that a compressed code stands for: six bits a letter, from the fourth on the difference to the last
    but one.

    Raises:
        ValueError: a letter is none of the code, or the code ends within a number.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - _FIRST_CODE
        if not 0 <= bits < 2 * _MORE:
            raise ValueError(f"segmentation has counts with {letter!r}, which is no letter of COCO's run-length code")
        value |= (bits & _SHARE) << shift
        shift += 5
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("segmentation has counts that end within a number; the code is cut off")
    return runs


def _shown(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 40 else f"{words[:37]}..."
