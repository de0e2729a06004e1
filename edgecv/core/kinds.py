"""The kinds of model family and of data set, as facts that a recipe is checked against.

They stand apart from the modules that do the work, so that a recipe is read without loading those.
A new family has its row in `FAMILY_KINDS`, a new reader its row in `DATA_KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FamilyKind = Literal["classification", "detection", "pose", "embedding"]
MetricName = Literal["top1", "top5", "ap", "ap50", "pck", "recall1", "map"]
DataKind = Literal["sklearn-digits", "imagefolder", "csv", "coco", "images"]


@dataclass(frozen=True)
class FamilyFacts:
    """What a recipe may ask of a family: its ``metrics`` (the usual one first), and kinds of ``data`` with its truths.

    ``loss`` says whether the family trains on labels; the others learn from a teacher alone (distillation).
    ``labels`` are the names that a model without a list of its own is taken to have; empty where names are needed.
    """

    metrics: tuple[MetricName, ...]
    data: tuple[DataKind, ...] = ()
    labels: tuple[str, ...] = ()
    loss: bool = False


@dataclass(frozen=True)
class DataFacts:
    """What ``path`` of a data set of this kind is (``what``, in words), and which other keys go with it.

    ``root`` is the folder of the pictures where ``path`` is a list of them; ``only`` picks pictures by name;
    ``truth`` is the folder or pattern of the files that hold each picture's truth.
    """

    path: Literal["none", "folder", "file", "pictures"]
    what: str = ""
    root: bool = False
    only: bool = False
    truth: bool = False


_CLASSES: tuple[DataKind, ...] = ("imagefolder", "csv", "sklearn-digits")

FAMILY_KINDS: dict[FamilyKind, FamilyFacts] = {
    "classification": FamilyFacts(("top1", "top5"), _CLASSES, loss=True),
    "detection": FamilyFacts(("ap", "ap50"), ("coco",)),
    "pose": FamilyFacts(("pck",), labels=("person",)),
    "embedding": FamilyFacts(("recall1", "map"), _CLASSES, labels=("person",)),
}

DATA_KINDS: dict[DataKind, DataFacts] = {
    "sklearn-digits": DataFacts("none"),
    "imagefolder": DataFacts("folder", "the folder that holds one folder a class"),
    "csv": DataFacts("file", "the csv file", root=True),
    "coco": DataFacts("file", "the instances json", root=True, only=True),
    "images": DataFacts("pictures", "a folder of pictures, or a glob", only=True),
}


def family_facts(kind: Any) -> FamilyFacts | None:
    """The facts of family ``kind``; None for anything that is no family's name."""
    return FAMILY_KINDS.get(kind) if isinstance(kind, str) else None  # type: ignore[call-overload]


def data_facts(kind: Any) -> DataFacts | None:
    """The facts of data of this ``kind``; None for anything that is no kind's name."""
    return DATA_KINDS.get(kind) if isinstance(kind, str) else None  # type: ignore[call-overload]


def kinds_with(key: str) -> tuple[DataKind, ...]:
    """The kinds of data that take ``key``: root, only or truth."""
    return tuple(kind for kind, facts in DATA_KINDS.items() if getattr(facts, key))
