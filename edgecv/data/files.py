"""Data sets that are files on disk: list them, check them once, then read them one by one."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.core.progress import Progress
from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec
from edgecv.data import imagefile
from edgecv.errors import DataError

CHECK_BATCH = 32
"""Files between two looks at the progress bar, which stands still while image decoders are kept quiet."""
SHOWN = 5


@dataclass(frozen=True)
class TruthFile:
    """A truth that is a file of its own (a mask, a depth map, a reference picture), read when its sample is.

    ``read`` makes the truth that the family's metric takes from the file's bytes, and raises ValueError with
    the reason where it cannot; every file is read once when the data set is opened.
    """

    path: Path
    read: Callable[[bytes], Any] = field(compare=False)

    def load(self) -> Any:
        """The truth.

        Raises:
            ValueError: the file is missing or broken.
        """
        return self.read(imagefile.read_bytes(self.path))


@dataclass(frozen=True)
class Entry:
    """One image file: its name in the data set ('/' between parts), where it lies, and its truth.

    ``truth`` is a class index, a `DetectionTruth`, a `TruthFile`, or None where the set has no labels. ``window``
    x1, y1, x2, y2 in whole pixels is the part of the picture that the sample is; its id is then the file's name,
    '#' and what tells the parts of a file apart.
    """

    id: str
    path: Path
    truth: Any
    window: tuple[int, int, int, int] | None = None

    @property
    def name(self) -> str:
        """The file's name in the data set."""
        return self.id if self.window is None else self.id.rpartition("#")[0]


@dataclass(frozen=True)
class Listing:
    """What a data set names, before a file is opened. ``skipped`` are those that cannot be used, and why."""

    place: str
    entries: tuple[Entry, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Checked:
    """A file that can be decoded. ``noisy``: its decoder prints to the error stream."""

    entry: Entry
    sha256: str
    noisy: bool
    truth_sha256: str = ""

    @property
    def truth(self) -> Any:
        """What a fingerprint takes for the truth."""
        return self.truth_sha256 or self.entry.truth


class _BadTruth(str):
    """Why a sample's truth cannot be used."""


class FileReader:
    """A `Reader` over image files; holds names and hashes, and decodes a picture when it is asked for.

    Safe to use from several threads.
    """

    def __init__(self, checked: Sequence[_Checked], *, skipped: Mapping[str, str], notes: Sequence[str]) -> None:
        self._checked = tuple(checked)
        self._skipped = dict(skipped)
        self.ids: Sequence[str] = tuple(item.entry.id for item in checked)
        self.truths: Sequence[Any] = tuple(item.entry.truth for item in checked)
        self.notes = tuple(notes)

    @property
    def skipped(self) -> Mapping[str, str]:
        """Files that were left out, by their name in the data set, and why."""
        return self._skipped

    def __len__(self) -> int:
        return len(self._checked)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``: uint8 `(H, W, 3)` BGR and its truth.

        Raises:
            DataError: the file was removed or damaged since the data set was opened.
        """
        item = self._checked[index]
        try:
            image = imagefile.load_image(item.entry.path, noisy=item.noisy)
        except DataError as error:
            raise DataError(f"{error}. It could be read when the data set was opened; do not change it now") from error
        if item.entry.window is not None:
            left, top, right, bottom = item.entry.window
            if image.shape[0] < bottom or image.shape[1] < right:
                raise DataError(
                    f"{item.entry.path} is {image.shape[1]} x {image.shape[0]} pixels, smaller than the data set says: "
                    f"{item.entry.id} ends at {right}, {bottom}. Correct the width and height that it names"
                )
            image = image[top:bottom, left:right]
        truth = item.entry.truth
        if isinstance(truth, TruthFile):
            try:
                truth = truth.load()
            except ValueError as error:
                raise DataError(f"{truth.path}: {error}. It could be read when the data set was opened") from error
        return Sample(id=item.entry.id, image=image, truth=truth)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def sha256(self, index: int) -> str:
        """Hash of the file, as it was when the data set was opened."""
        return self._checked[index].sha256

    def fingerprint(self) -> str:
        """Hash over the names, classes and contents of all samples."""
        return fingerprint_of((item.entry.id, item.truth, item.sha256) for item in self._checked)


def fingerprint_of(samples: Iterable[tuple[str, Any, str]]) -> str:
    """SHA-256 over (id, truth, content hash) of samples, in their order."""
    digest = hashlib.sha256()
    for name, truth, content in samples:
        digest.update(repr((name, truth_key(truth), content)).encode())
    return digest.hexdigest()


def truth_key(truth: Any) -> Any:
    """A truth as a value whose ``repr`` tells all of it: arrays as a hash, the rest as it is."""
    if not is_dataclass(truth):
        return truth
    digest = hashlib.sha256()
    for item in fields(truth):
        value = getattr(truth, item.name)
        plain = b"-" if value is None else repr(value).encode()
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else plain)
    return digest.hexdigest()


def even_pick(truths: Sequence[Any], limit: int | None) -> list[int]:
    """At most ``limit`` indices, spread evenly over the classes and within each, in rising order.

    Truths that are no class index count as one class.
    """
    if limit is None or limit >= len(truths):
        return list(range(len(truths)))
    strata = [int(truth) if isinstance(truth, (int, np.integer)) else 0 for truth in truths]
    by_class = sorted(range(len(truths)), key=lambda index: strata[index])
    return sorted(by_class[index * len(truths) // limit] for index in range(limit))


def inside(file: str, root: Path) -> str:
    """The file's path relative to ``root``, '/' between parts. Links are the owner's choice and stay as they are.

    Raises:
        ValueError: the name is empty, holds a zero byte or leaves ``root``.
    """
    if not file or "\0" in file:
        raise ValueError("the file name is empty" if not file else "the file name holds a zero byte")
    path = Path(os.path.normpath(root / file))
    if not path.is_relative_to(root) or path == root:
        raise ValueError(f"{file!r} leaves the folder {root}; put the image below it, or set root")
    return path.relative_to(root).as_posix()


def list_and_root(spec: DataSpec, *, base: Path, what: str, article: str) -> tuple[Path, Path]:
    """The file that lists a data set (``what`` it is, with its ``article``, for errors) and the folder of its pictures.

    Raises:
        DataError: there is no path, no such file or no such folder.
    """
    if spec.path is None:
        raise DataError(f"data of kind {spec.kind} has no path; add path: the {what}")
    path = Path(os.path.abspath(base / spec.path))
    if not path.is_file():
        problem = f"is a folder, not {article} {what}" if path.exists() else "does not exist"
        raise DataError(f"{path} {problem}; path is {spec.path!r}, relative to {base}")
    root = path.parent if spec.root is None else Path(os.path.abspath(base / spec.root))
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; root is {spec.root!r}, relative to {base}")
    return path, root


def wanted_name(only: str, *names: str) -> bool:
    """Whether one of ``names`` fits ``only``: a glob (``*``, ``?``, ``[...]``), or else a part of a name."""
    if any(sign in only for sign in "*?["):
        return any(fnmatch.fnmatchcase(name, only) for name in names)
    return any(only in name for name in names)


def check_files(listing: Listing, progress: Progress) -> FileReader:
    """Read and decode every file of ``listing`` once, large ones at an eighth of the size; hash it.

    This makes an evaluation well-defined: what can be read is known before it starts. A picture that cannot is
    in the reader's ``skipped``; the reader may be empty.

    Raises:
        DataError: truths are broken; the first few are named with what is wrong in them.
    """
    checked: list[_Checked] = []
    skipped, broken = dict(listing.skipped), dict[str, str]()
    with progress.task(f"check {listing.place}", len(listing.entries)) as task, _pool() as pool:
        for start in range(0, len(listing.entries), CHECK_BATCH):
            batch = listing.entries[start : start + CHECK_BATCH]
            for entry, outcome in zip(batch, _check_batch(batch, pool), strict=True):
                if isinstance(outcome, _Checked):
                    checked.append(outcome)
                elif isinstance(outcome, _BadTruth):
                    broken[str(entry.truth.path)] = outcome  # names alone may stand in several folders
                else:
                    skipped[entry.id] = outcome
            task.advance(len(batch))
    if broken:
        many = f"{len(broken)} truths are" if len(broken) > 1 else "1 truth is"
        raise DataError(
            f"{listing.place}: {many} broken: {shown_skips(broken)}. Correct them, or leave their pictures out by only."
        )
    return FileReader(checked, skipped=skipped, notes=listing.notes)


def open_files(listing: Listing, *, limit: int | None, strict: bool, progress: Progress) -> FileReader:
    """A reader over the files of ``listing`` that can be decoded.

    ``limit`` picks from the listed files before they are checked, so broken ones among them make the
    set smaller.

    Raises:
        DataError: nothing is left, or ``strict`` and some files cannot be used (all are listed).
    """
    kept = even_pick([entry.truth for entry in listing.entries], limit)
    reader = check_files(replace(listing, entries=tuple(listing.entries[index] for index in kept)), progress)
    skipped = reader.skipped
    share = f"{len(skipped)} of {len(skipped) + len(reader)} samples"
    if skipped and strict:
        raise DataError(
            f"{listing.place}: {share} cannot be used, and strict is set:\n"
            + "\n".join(f"  {name}: {reason}" for name, reason in skipped.items())
            + "\nRepair or remove them, or set strict: false to leave them out."
        )
    if not len(reader):
        raise DataError(f"{listing.place} has no image that can be read. {shown_skips(skipped)}".rstrip())
    if skipped:
        progress.line(f"{listing.place}: {share} left out. {shown_skips(skipped)}")
    for note in listing.notes:
        progress.line(f"{listing.place}: {note}")
    return reader


def shown_skips(skipped: Mapping[str, str]) -> str:
    """The first few reasons, in one line without a stop at its end."""
    lines = [f"{name}: {reason}" for name, reason in list(skipped.items())[:SHOWN]]
    more = len(skipped) - len(lines)
    return "; ".join(line.rstrip(".") for line in lines) + (f"; and {more} more" if more > 0 else "")


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="edgecv-check")


def _check_batch(batch: Sequence[Entry], pool: ThreadPoolExecutor) -> list[_Checked | str]:
    outcomes, complained = imagefile.quietly(lambda: list(pool.map(_check, batch)))
    if complained:  # find out about which files
        for index, entry in enumerate(batch):
            done, complained = imagefile.quietly(partial(_check, entry))
            outcomes[index] = replace(done, noisy=complained) if isinstance(done, _Checked) else done
    return outcomes


def _check(entry: Entry) -> _Checked | str:
    try:
        data = imagefile.read_bytes(entry.path)
        imagefile.decode(data, probe=True)
    except ValueError as error:
        return str(error)
    truth = ""
    if isinstance(entry.truth, TruthFile):
        try:
            stored = imagefile.read_bytes(entry.truth.path)
            entry.truth.read(stored)
        except ValueError as error:
            return _BadTruth(str(error))
        truth = hashlib.sha256(stored).hexdigest()
    return _Checked(entry, hashlib.sha256(data).hexdigest(), noisy=False, truth_sha256=truth)
