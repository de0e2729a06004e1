"""Videos with classes as a data set: a folder with one folder a class, or a CSV file that names files or parts of them.

Each sample is a clip, as the network of the recipe takes it (``model.input.clip``): the middle of a video or part.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.core.contract import Clip
from edgecv.core.progress import Progress
from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec
from edgecv.data.files import CHECK_BATCH, Entry, Listing, even_pick, fingerprint_of, inside, list_and_root, shown_skips
from edgecv.data.imagefile import EXTENSIONS
from edgecv.data.imagefolder import class_folders, data_folder, match_classes
from edgecv.data.video_file import VIDEOS, VideoFacts, look_at, read_clip
from edgecv.errors import DataError
from edgecv.vision.image import Image

START, END = "start_s", "end_s"


@dataclass(frozen=True)
class VideoEntry(Entry):
    """A video file or folder of frames with its class; ``start_s`` and ``end_s`` bound the part that counts."""

    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class ClipSource:
    """One sample before it is read: its name, class, a hash of what it is made of, and what reads its clip."""

    id: str
    truth: Any
    sha256: str
    read: Callable[[Clip], Image]


class ClipReader:
    """A `Reader` over clips: uint8 `(T, H, W, 3)` BGR and a class index each. Safe to use from several threads.

    Samples can be read once `with_clip` has said what a clip is.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        *,
        skipped: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        clip: Clip | None = None,
    ) -> None:
        self._sources, self._clip = tuple(sources), clip
        self.skipped: Mapping[str, str] = dict(skipped or {})
        self.notes = tuple(notes)
        self.ids: Sequence[str] = tuple(source.id for source in sources)
        self.truths: Sequence[Any] = tuple(source.truth for source in sources)

    def with_clip(self, clip: Clip) -> ClipReader:
        """The same data set, read in clips of this kind."""
        return ClipReader(self._sources, skipped=self.skipped, notes=self.notes, clip=clip)

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``.

        Raises:
            DataError: nothing said how long a clip is, or the file was changed since the data set was opened.
        """
        if self._clip is None:
            raise DataError(
                "this data set holds videos, and the network looks at one picture; take one for family video, whose "
                "input has a clip"
            )
        source = self._sources[index]
        return Sample(id=source.id, image=source.read(self._clip), truth=source.truth)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def sha256(self, index: int) -> str:
        """Hash of the video that the sample is from, and of the part that counts."""
        return self._sources[index].sha256

    def fingerprint(self) -> str:
        """Hash over the names, classes and contents of all samples."""
        return fingerprint_of((source.id, source.truth, source.sha256) for source in self._sources)


def list_video_folder(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The videos in class folders, sorted: files, and folders of pictures (frames in order of their names).

    Class folders are matched to ``labels`` as those of pictures are (`edgecv.data.imagefolder`).

    Raises:
        DataError: the folder is missing, holds no videos, or its classes do not fit the labels.
    """
    root = data_folder(spec, base=base)
    folders = class_folders(root)
    classes, notes = match_classes([folder.name for folder in folders], labels, place=str(root))
    entries = []
    for folder, truth in zip(folders, classes, strict=True):
        for item in sorted(folder.iterdir()):
            frames = item.is_dir() and any(file.suffix.lower() in EXTENSIONS for file in item.iterdir())
            if not item.name.startswith(".") and (frames or item.suffix.lower() in VIDEOS):
                entries.append(VideoEntry(item.relative_to(root).as_posix(), item, truth))
    if not entries:
        raise DataError(
            f"{root} has {len(folders)} class folders and no video in them; allowed are folders of pictures and files "
            f"ending in {', '.join(sorted(VIDEOS))}"
        )
    return Listing(str(root), tuple(entries), notes=tuple(notes))


def list_video_csv(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The rows of a CSV file with the columns of file and label and, where there are any, ``start_s`` and ``end_s``.

    A label is a class name, or else a class index from 0; an empty time is the video's start or end. Paths are
    relative to ``spec.root`` (the CSV file's folder where that is not set) and must stay inside it.

    Raises:
        DataError: the file or folder is missing, is no UTF-8 CSV, lacks a column or has no rows, or rows are broken:
            the first few are named by their lines.
    """
    path, root = list_and_root(spec, base=base, what="CSV file", article="a")
    by_name = {label: index for index, label in enumerate(labels)}
    entries: list[Entry] = []
    broken: dict[str, str] = {}
    seen: dict[str, int] = {}
    for line, row in _rows(spec, path):
        try:
            entry = _entry(row, root, by_name, len(labels))
            if entry.id in seen:
                raise ValueError(f"{entry.id!r} stands in line {seen[entry.id]} already")
        except ValueError as error:
            broken[f"{path}:{line}"] = str(error)
            continue
        seen[entry.id] = line
        entries.append(entry)
    if broken:
        raise DataError(f"{len(broken)} rows are broken: {shown_skips(broken)}. Correct or remove them.")
    if not entries:
        raise DataError(f"{path} has a header and no rows; a row names a video and its label")
    return Listing(str(path), tuple(entries))


def _rows(spec: DataSpec, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(rows, [])]
            names = {"file": spec.file_column, "label": spec.label_column, START: START, END: END}
            for key, name in names.items():
                count = header.count(name)
                if count > 1 or (count == 0 and key in ("file", "label")):
                    raise DataError(
                        f"{path}:1: {count} columns are named {name!r}; one is needed. The file's columns are: "
                        f"{', '.join(header) or 'none'}"
                    )
            places = {key: header.index(name) for key, name in names.items() if name in header}
            for row in rows:
                if any(cell.strip() for cell in row):
                    yield (
                        rows.line_num,
                        {key: row[at].strip() if at < len(row) else "" for key, at in places.items()},
                    )
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error}); save it as one") from error


def _entry(row: Mapping[str, str], root: Path, by_name: Mapping[str, int], classes: int) -> VideoEntry:
    name, label = inside(row["file"], root), row["label"]
    if label not in by_name and not (label.isascii() and label.isdigit() and int(label) < classes):
        raise ValueError(f"label {label!r} is neither a class name nor an index within 0..{classes - 1}")
    truth = by_name[label] if label in by_name else int(label)
    start_s, end_s = (_seconds(row.get(key, ""), key) for key in (START, END))
    if start_s is not None and end_s is not None and end_s <= start_s:
        raise ValueError(f"{END} is {end_s:g}; it must be more than {START}, {start_s:g}")
    part = "" if start_s is None and end_s is None else f"#{start_s or 0:g}-{'' if end_s is None else f'{end_s:g}'}"
    return VideoEntry(name + part, root / name, truth, start_s=start_s, end_s=end_s)


def _seconds(text: str, key: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{key} is {text!r}; a number of seconds, 0 or more, is needed")
    return value


def open_videos(listing: Listing, *, limit: int | None, strict: bool, progress: Progress) -> ClipReader:
    """A reader over the videos of ``listing`` that can be decoded; each file is gone through once.

    ``limit`` picks from the listed videos before they are looked at, evenly over the classes.

    Raises:
        DataError: nothing is left, or ``strict`` and some videos cannot be used (all are listed).
    """
    kept = even_pick([entry.truth for entry in listing.entries], limit)
    reader = check_videos(Listing(listing.place, tuple(listing.entries[index] for index in kept)), progress)
    share = f"{len(reader.skipped)} of {len(reader.skipped) + len(reader)} videos"
    if reader.skipped and (strict or not len(reader)):
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in reader.skipped.items())
        advice = "Repair or remove them" + (", or set strict: false to leave them out." if strict else ".")
        raise DataError(f"{listing.place}: {share} cannot be used:\n{reasons}\n{advice}")
    if reader.skipped:
        progress.line(f"{listing.place}: {share} left out. {shown_skips(reader.skipped)}")
    for note in listing.notes:
        progress.line(f"{listing.place}: {note}")
    return reader


def check_videos(listing: Listing, progress: Progress) -> ClipReader:
    """Go through every video of ``listing`` once; those that cannot be used are in the reader's ``skipped``."""
    sources: list[ClipSource] = []
    skipped = dict(listing.skipped)
    paths = list(dict.fromkeys(entry.path for entry in listing.entries))
    known: dict[Path, VideoFacts | str] = {}
    with (
        progress.task(f"check {listing.place}", len(paths)) as task,
        ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="edgecv-check") as pool,
    ):
        for start in range(0, len(paths), CHECK_BATCH):
            batch = paths[start : start + CHECK_BATCH]
            known.update(zip(batch, pool.map(_looked_at, batch), strict=True))
            task.advance(len(batch))
    for entry in listing.entries:
        facts, start_s, end_s = known[entry.path], getattr(entry, START, None), getattr(entry, END, None)
        if isinstance(facts, str):
            skipped[entry.id] = facts
        elif start_s is not None and facts.times_s is not None and start_s > facts.times_s[-1]:
            skipped[entry.id] = f"it is to start at {start_s:g} s, and the video ends at {facts.times_s[-1]:.2f} s"
        else:
            sources.append(_source(entry, facts, start_s, end_s))
    return ClipReader(sources, skipped=skipped, notes=listing.notes)


def _source(entry: Entry, facts: VideoFacts, start_s: float | None, end_s: float | None) -> ClipSource:
    def read(clip: Clip) -> Image:
        return read_clip(entry.path, facts, clip, start_s=start_s, end_s=end_s)

    part = "" if start_s is None and end_s is None else f" {start_s} {end_s}"
    return ClipSource(entry.id, entry.truth, facts.sha256 if not part else _hash(facts.sha256 + part), read)


def _hash(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def _looked_at(path: Path) -> VideoFacts | str:
    try:
        return look_at(path)
    except ValueError as error:
        return str(error)
