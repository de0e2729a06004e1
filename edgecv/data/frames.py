"""Pictures out of videos, without labels: what a camera recorded, to calibrate with or for a teacher to answer.

Each video gives one picture a second, since neighbouring frames show the same.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from edgecv.core.progress import Progress
from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec
from edgecv.data.files import Listing, even_pick, fingerprint_of, shown_skips
from edgecv.data.unlabelled import list_kind
from edgecv.data.video_file import VIDEOS, look_at
from edgecv.errors import CameraError, DataError
from edgecv.runtime.sources.capture import opened, quiet_opencv
from edgecv.vision.image import Image

APART_S = 1.0
"""Seconds between two pictures of a video."""
SAME_S = 0.001
"""Times of the same frame differ by less."""
NEAR = 64
"""So many frames ahead are gone through; what lies farther off, or behind, is looked for by its number."""


@dataclass(frozen=True)
class _Frame:
    """A picture of a video, by its number from 0 and its time; the id is the file's name, '#' and the number."""

    id: str
    path: Path
    number: int
    time_s: float
    sha256: str


@dataclass
class _Player:
    """A video that is open in front of the frame ``at``."""

    capture: cv2.VideoCapture
    path: Path
    at: int = 0

    def grab(self, frame: _Frame) -> bool:
        """Go to ``frame``, by its number if it is not near; whether it is there."""
        if not self.at <= frame.number <= self.at + NEAR:
            self.at = frame.number + 1
            self.capture.set(cv2.CAP_PROP_POS_FRAMES, frame.number)
            # Some files do not say where their frames are: the time tells whether it is the right one.
            return bool(self.capture.grab()) and abs(self._time_s() - frame.time_s) < SAME_S
        while self.at <= frame.number:
            self.at += 1
            if not self.capture.grab():
                return False
        return True

    def _time_s(self) -> float:
        return float(self.capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000


@dataclass
class FramesReader:
    """A `Reader` of frames, which keeps the video open that it read last.

    Safe to use from several threads, which wait for one another.
    """

    frames: tuple[_Frame, ...]
    skipped: Mapping[str, str]
    notes: tuple[str, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _player: _Player | None = field(default=None, repr=False)

    @property
    def ids(self) -> Sequence[str]:
        """The frames' names, in the order of the videos and of time."""
        return [frame.id for frame in self.frames]

    @property
    def truths(self) -> Sequence[None]:
        """None for each: there are no labels."""
        return [None] * len(self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Frame ``index``: uint8 `(H, W, 3)` BGR, without a truth.

        Raises:
            DataError: the video changed since the data set was opened.
        """
        frame = self.frames[index]
        with self._lock, quiet_opencv():
            image = self._read(frame)
        return Sample(id=frame.id, image=image, truth=None)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def sha256(self, index: int) -> str:
        """Hash of the video's bytes and of the frame's number."""
        return self.frames[index].sha256

    def fingerprint(self) -> str:
        """Hash over the names and contents of all samples."""
        return fingerprint_of((frame.id, None, frame.sha256) for frame in self.frames)

    def _read(self, frame: _Frame) -> Image:
        player = self._player
        if player is None or player.path != frame.path:
            player = self._open(frame.path)
        if not player.grab(frame):  # from the start, then, one frame after the other
            player = self._open(frame.path)
            while player.at < frame.number and player.capture.grab():
                player.at += 1
            if player.at < frame.number or not player.grab(frame):
                raise DataError(
                    f"{frame.path}: frame {frame.number} was there when the data set was opened; do not change it"
                )
        done, image = player.capture.retrieve()
        if not done:
            raise DataError(f"{frame.path}: frame {frame.number} cannot be decoded; remove the video or repair it")
        return np.asarray(image)

    def _open(self, path: Path) -> _Player:
        if self._player is not None:
            self._player.capture.release()
        try:
            self._player = _Player(opened(str(path), cv2.CAP_FFMPEG, "the video"), path)
        except CameraError as error:
            raise DataError(f"{error}. It could be read when the data set was opened") from error
        return self._player


def list_frames(spec: DataSpec, *, base: Path, labels: Sequence[str] = ()) -> Listing:
    """The video ``spec.path``, all videos below that folder, or those that fit that glob (`unlabelled.list_images`).

    Raises:
        DataError: there is no path, no such file or folder, or no video.
    """
    return list_kind(spec, base=base, what="videos", extensions=VIDEOS, single=True)


def open_frames(
    listing: Listing, *, limit: int | None, strict: bool, progress: Progress, ids: Collection[str] | None = None
) -> FramesReader:
    """A reader of one picture a second of each video, and of its first; ``limit`` takes an even pick of them.

    ``ids`` names the pictures that are wanted instead; the reader may then be empty.

    Raises:
        DataError: no video can be read, or ``strict`` and one cannot.
    """
    entries = listing.entries
    if ids is not None:
        wanted = {name.rpartition("#")[0] for name in ids}
        entries = tuple(entry for entry in entries if entry.id in wanted)
    frames: list[_Frame] = []
    skipped: dict[str, str] = {}
    with progress.task(f"look at {listing.place}", len(entries)) as task:
        for entry in entries:
            try:
                facts = look_at(entry.path)
            except ValueError as error:
                skipped[entry.id] = str(error)
            else:
                times = facts.times_s or ()
                for number in _spread(times):
                    digest = hashlib.sha256(f"{facts.sha256} {number}".encode()).hexdigest()
                    frames.append(_Frame(f"{entry.id}#{number}", entry.path, number, times[number], digest))
            task.advance(1)
    if ids is not None:
        return FramesReader(tuple(frame for frame in frames if frame.id in ids), skipped)
    if skipped and (strict or not frames):
        hint = "Repair or remove them, or set strict: false to leave them out." if strict and frames else ""
        raise DataError(f"{listing.place}: {shown_skips(skipped)}. {hint}".rstrip())
    if skipped:
        progress.line(f"{listing.place}: {len(skipped)} of {len(entries)} videos left out. {shown_skips(skipped)}")
    return FramesReader(tuple(frames[index] for index in even_pick([None] * len(frames), limit)), skipped)


def _spread(times_s: Sequence[float]) -> list[int]:
    """The numbers of the first frame and of each that is `APART_S` or more behind the one chosen before."""
    chosen: list[int] = []
    for number, time_s in enumerate(times_s):
        if not chosen or time_s - times_s[chosen[-1]] >= APART_S - 1e-6:
            chosen.append(number)
    return chosen
