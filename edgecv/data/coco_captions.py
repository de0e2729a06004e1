"""Pictures that people have described, as COCO writes it: several captions a picture, no classes and no boxes.

No family is judged on sentences. What they are good for is picking: calibration and a teacher's pictures that show
what the camera will see, where nobody has drawn boxes.

The format is that of X. Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", 2015,
arXiv:1504.00325.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecv.core.recipe import DataSpec
from edgecv.data.coco_file import Picture, Problems, pick_pictures, read_pictures, read_tables, refuse_none, unique
from edgecv.data.files import Entry, Listing, list_and_root
from edgecv.errors import DataError

__all__ = ["list_captions", "read_captions"]

_WORD = re.compile(r"\w+")


def list_captions(spec: DataSpec, *, base: Path, labels: Sequence[str] = ()) -> Listing:
    """The pictures of a captions json, in the file's order; no picture is opened.

    With ``spec.caption`` only those of which a caption has one of its words, whole and in any case. ``spec.only`` picks
    by file name or ``coco_url``; pictures lie below ``spec.root`` (the json's folder where that is not set). Truths
    are None; ``labels`` do not matter.

    Raises:
        DataError: a file is missing or no such json, nothing is picked, or entries are broken (a double id, an
            unknown picture, a caption that is no text or empty, a missing picture), named by their place in the file.
    """
    path, root = list_and_root(spec, base=base, what="captions json", article="a")
    tables = read_tables(path, what="captions", names=("images", "annotations"))
    problems = Problems(path)
    pictures = read_pictures(tables["images"], root, problems)
    captions = read_captions(tables["annotations"], pictures, problems)
    picked = pick_pictures(spec, tables["images"], pictures, root, problems)
    problems.refuse()
    if not picked:
        raise refuse_none(spec, path, pictures)
    notes = [f"{sum(len(captions[key]) for key in picked)} captions of {len(picked)} pictures"]
    if spec.caption is not None:
        wanted = _words(spec.caption)
        if not wanted:
            raise DataError(f"caption is {spec.caption!r}; words are needed, such as 'street car'")
        spoken = {word for key in picked for text in captions[key] for word in _words(text)}
        if not wanted & spoken:
            raise DataError(
                f"{path}: none of {len(picked)} pictures has a caption with {' or '.join(sorted(wanted))}; "
                "set caption to words that occur"
            )
        picked = [key for key in picked if any(wanted & _words(text) for text in captions[key])]
        notes.append(f"{len(picked)} pictures speak of {', '.join(sorted(wanted))}")
        notes += [f"no caption has {word}" for word in sorted(wanted - spoken)]
    entries = tuple(Entry(pictures[key].name, root / pictures[key].name, None) for key in picked)
    return Listing(str(path), entries, notes=tuple(notes))


def read_captions(table: list[Any], pictures: Mapping[Any, Picture], problems: Problems) -> dict[Any, list[str]]:
    """The captions of each of ``pictures``, by id, in the file's order; broken entries are problems."""
    found: dict[Any, list[str]] = {key: [] for key in pictures}
    for index, note in unique(table, "annotations", problems):
        image, text = note.get("image_id"), note.get("caption")
        if not isinstance(image, (int, str)) or image not in found:
            problems.add("annotations", index, note, f"image_id is {image!r}, which is not among the images")
        elif not isinstance(text, str) or not text.strip():
            problems.add("annotations", index, note, f"caption is {text!r}; a sentence is needed")
        else:
            found[image].append(text.strip())
    return found


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
