"""Video files and folders of pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from edgecv.core.frame import Frame
from edgecv.core.stream import StreamFacts
from edgecv.errors import CameraError, CorruptFrameError, UsageError
from edgecv.runtime.sources.capture import opened, quiet_opencv
from edgecv.runtime.sources.options import CameraOptions

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_DEFAULT_FPS = 30.0


@dataclass
class Pacer:
    """Holds a file back to its own rate: frame ``index`` is not given before ``index / fps`` seconds."""

    fps: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _started_s: float | None = None

    def wait_for(self, index: int) -> float:
        """Wait until the frame is due; when it was due."""
        if self._started_s is None:
            self._started_s = self.clock()
        due_s = self._started_s + index / self.fps
        wait_s = due_s - self.clock()
        if wait_s > 0:
            self.sleep(wait_s)
        return min(due_s, self.clock())


class VideoFile:
    """A video file, frame by frame. Frames carry the file's own time in ``media_s``."""

    def __init__(self, path: Path, options: CameraOptions) -> None:
        self._path, self._options = path, options
        self._capture: Any = None
        self._pacer: Pacer | None = None
        self._index = self._first = self._round_start = 0
        self._fps = _DEFAULT_FPS

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        if not self._path.is_file():
            raise UsageError(f"there is no video file {self._path}")
        self._capture = opened(str(self._path), cv2.CAP_FFMPEG, f"the video {self._path}")
        found = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._fps = self._options.fps or (found if 0 < found < 1000 else _DEFAULT_FPS)
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        size = (int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
        realtime = self._options.pace == "realtime"
        self._pacer, self._first = (Pacer(self._fps) if realtime else None), self._index
        endless = self._options.loop or count <= 0
        return StreamFacts(self._path.name, size, self._fps, realtime, None if endless else count)

    def read(self) -> Frame | None:
        """See `edgecv.core.stream.Source.read`."""
        if self._capture is None:
            raise CameraError(f"the video {self._path} is not open")
        with quiet_opencv():
            read, image = self._capture.read()
            if not read and self._options.loop and self._index > self._round_start:
                self._round_start = self._index
                self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                read, image = self._capture.read()
        if not read or image is None:
            return None
        index = self._index
        self._index += 1
        captured_s = self._pacer.wait_for(index - self._first) if self._pacer is not None else time.monotonic()
        media_s = None if self._pacer is not None else index / self._fps
        return Frame(image, captured_s, index, self._path.name, media_s)

    def close(self) -> None:
        """See `edgecv.core.stream.Source.close`."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class ImageFolder:
    """The pictures of a folder in the order of their names, or one picture."""

    def __init__(self, path: Path, options: CameraOptions) -> None:
        self._path, self._options = path, options
        self._files: list[Path] = []
        self._index = self._first = self._next = self._bad = 0
        self._pacer: Pacer | None = None

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        if self._path.is_file():
            self._files = [self._path]
        else:
            self._files = sorted(file for file in self._path.iterdir() if file.suffix.lower() in PICTURES)
        if not self._files:
            raise UsageError(f"the folder {self._path} holds no picture; allowed are {', '.join(PICTURES)}")
        fps = self._options.fps or _DEFAULT_FPS
        realtime = self._options.pace == "realtime"
        self._pacer, self._first = (Pacer(fps) if realtime else None), self._index
        return StreamFacts(self._path.name, None, fps, realtime, None if self._options.loop else len(self._files))

    def read(self) -> Frame | None:
        """See `edgecv.core.stream.Source.read`."""
        if self._next == len(self._files):
            if not self._options.loop or self._bad >= len(self._files):
                return None
            self._next = self._bad = 0
        file = self._files[self._next]
        self._next += 1
        with quiet_opencv():
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            self._bad += 1
            raise CorruptFrameError(f"{file} is no picture that can be read")
        index = self._index
        self._index += 1
        captured_s = self._pacer.wait_for(index - self._first) if self._pacer is not None else time.monotonic()
        fps = self._options.fps or _DEFAULT_FPS
        return Frame(image, captured_s, index, file.name, None if self._pacer is not None else index / fps)

    def close(self) -> None:
        """See `edgecv.core.stream.Source.close`."""
        self._files = []
        self._next = 0
