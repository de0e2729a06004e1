"""Results in files: JSON lines, CSV, MOT text, video, pictures."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import cv2

from edgecv.core.mot import mot_line
from edgecv.core.results import Detections, label_of
from edgecv.core.stream import FrameResult, StreamFacts
from edgecv.errors import ToolchainError, UsageError
from edgecv.vision.draw import draw, picture_of

_FLUSH_EVERY = 30
_CSV_HEAD = ("frame", "captured_s", "track", "class", "label", "score", "x1", "y1", "x2", "y2")


class TextFile:
    """A line or more a result; whole lines only, on the disk at least every 30 results."""

    def __init__(self, path: Path, lines: Callable[[FrameResult], str], *, head: str = "") -> None:
        self._path, self._lines, self._head = path, lines, head
        self._stream: TextIO | None = None
        self._waiting = 0

    def open(self, facts: StreamFacts) -> None:
        """See `edgecv.core.stream.Sink.open`."""
        _parent(self._path)
        try:
            self._stream = self._path.open("w", encoding="utf-8", newline="")
            self._stream.write(self._head)
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written ({error.strerror}); choose another place") from error

    def write(self, item: FrameResult) -> None:
        """See `edgecv.core.stream.Sink.write`."""
        if self._stream is None:
            raise UsageError(f"{self._path} is not open")
        self._stream.write(self._lines(item))
        self._waiting += 1
        if self._waiting >= _FLUSH_EVERY:
            self._waiting = 0
            self._stream.flush()

    def close(self) -> None:
        """See `edgecv.core.stream.Sink.close`."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()


def json_lines(item: FrameResult) -> str:
    """One JSON object."""
    return json.dumps(item.to_dict(), separators=(",", ":")) + "\n"


def csv_head() -> str:
    """The first line of a CSV file."""
    return ",".join(_CSV_HEAD) + "\r\n"


def csv_lines(item: FrameResult) -> str:
    """One line an object; none for a result without objects."""
    if not isinstance(item.result, Detections):
        return ""
    found, buffer = item.result, _Lines()
    writer = csv.writer(buffer)
    for row in range(len(found)):
        track = "" if found.track_ids is None else int(found.track_ids[row])
        index = int(found.class_ids[row])
        box = (f"{value:.2f}" for value in found.boxes[row])
        score = f"{found.scores[row]:.4f}"
        writer.writerow(
            (item.frame.index, f"{item.frame.captured_s:.6f}", track, index, label_of(found.labels, index), score, *box)
        )
    return buffer.text


def mot_lines(item: FrameResult) -> str:
    """MOTChallenge result lines, frames from 1; objects without a track have id -1."""
    if not isinstance(item.result, Detections):
        return ""
    found = item.result
    ids = [-1] * len(found) if found.track_ids is None else found.track_ids.tolist()
    return "".join(
        mot_line(item.frame.index + 1, ids[row], found.boxes[row].tolist(), float(found.scores[row])) + "\n"
        for row in range(len(found))
    )


class _Lines:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class VideoFile:
    """The frames with what was found in them, as a video (H.264 where this OpenCV has it, else MPEG-4 or MJPEG)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None
        self._fps = 30.0
        self._size: tuple[int, int] | None = None

    def open(self, facts: StreamFacts) -> None:
        """See `edgecv.core.stream.Sink.open`."""
        if self._path.suffix.lower() not in (".mp4", ".avi", ".mkv"):
            raise UsageError(f"the video sink {self._path} must end in .mp4, .avi or .mkv")
        _parent(self._path)
        if not os.access(self._path.parent, os.W_OK):
            raise UsageError(f"{self._path.parent} cannot be written to; choose another place")
        self._fps = facts.fps or 30.0

    def write(self, item: FrameResult) -> None:
        """See `edgecv.core.stream.Sink.write`."""
        image = drawn(item)
        height, width = image.shape[:2]
        if self._writer is None:
            self._start((width, height))
        if self._size != (width, height):  # a video has one size
            image = cv2.resize(image, self._size)
        self._writer.write(image)

    def close(self) -> None:
        """See `edgecv.core.stream.Sink.close`."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _start(self, size: tuple[int, int]) -> None:
        codes = ("MJPG",) if self._path.suffix.lower() == ".avi" else ("mp4v", "MJPG")
        for code in codes:
            writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), self._fps, size)
            if writer.isOpened():
                self._writer, self._size = writer, size
                return
        raise ToolchainError(
            f"this OpenCV cannot write {self._path.suffix} videos; try .avi, or the sink images=FOLDER"
        )


class Pictures:
    """One file a frame, whole or not there: a JPEG of the frame with its result drawn on it.

    With ``results`` a PNG of what `picture_of` keeps: the restored picture itself, without loss.
    """

    def __init__(self, folder: Path, *, results: bool = False) -> None:
        self._folder, self._results = folder, results

    def open(self, facts: StreamFacts) -> None:
        """See `edgecv.core.stream.Sink.open`."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self._folder} cannot be made ({error.strerror}); choose another place") from error

    def write(self, item: FrameResult) -> None:
        """See `edgecv.core.stream.Sink.write`."""
        name = f"{item.frame.index:08d}"
        if self._results:
            write_picture(self._folder / f"{name}.png", picture_of(item.frame.image, item.result))
        else:
            write_picture(self._folder / f"{name}.jpg", drawn(item))

    def close(self) -> None:
        """See `edgecv.core.stream.Sink.close`."""


def write_picture(place: Path, image: Any) -> None:
    """Write a picture (uint8 BGR) by the ending of ``place``, .png or .jpg, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
        ToolchainError: this OpenCV lacks the format.
    """
    done, data = cv2.imencode(place.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 90] if place.suffix == ".jpg" else [])
    if not done:
        raise ToolchainError(f"OpenCV cannot encode {place.suffix} here")
    partial = place.with_suffix(".partial")
    try:
        partial.write_bytes(data.tobytes())
        partial.replace(place)
    except OSError as error:
        raise UsageError(f"{place} cannot be written ({error.strerror}); choose another place") from error


def drawn(item: FrameResult) -> Any:
    """A copy of the frame (other stages still read it) with the result drawn on it, BGR."""
    image = item.frame.image
    copied = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image.copy()
    draw(copied, item.result)
    return copied


def _parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be made ({error.strerror}); choose another place") from error
