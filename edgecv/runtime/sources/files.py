"""Video files and folders of pictures."""

from __future__ import annotations

import math
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
_READ_AHEAD = 64  # failed reads in a row that are taken for damaged frames before they are taken for the end
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # their headers count the frames; others only tell how long they are
_CUT_OFF = 0.95  # a few frames of the header may be outside what is to be shown; fewer than this is a cut-off file
_JPEG_TAIL = 65536


@dataclass
class Pacer:
    """Holds a file back to its own rate: frame ``index`` is not given before ``index / fps`` seconds."""

    fps: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _started_s: float | None = None

    def wait_for(self, index: float) -> float:
        """Wait until the frame is due; when it was due. Between two frames, ``index`` has a fraction."""
        if self._started_s is None:
            self._started_s = self.clock()
        due_s = self._started_s + index / self.fps
        wait_s = due_s - self.clock()
        if wait_s > 0:
            self.sleep(wait_s)
        return min(due_s, self.clock())


class VideoFile:
    """A video file, frame by frame. Frames carry the file's own time in ``media_s``.

    Damaged frames are left out: one `CorruptFrameError` each. Those that the decoder swallowed without a word
    (a gap in time, and fewer frames than the header counts) follow at the end, and one more where the video ends
    well before its header says: it was cut off. With the option ``fps`` the frames are that far apart,
    whatever the file says.
    """

    def __init__(self, path: Path, options: CameraOptions) -> None:
        self._path, self._options = path, options
        self._capture: Any = None
        self._pacer: Pacer | None = None
        self._held: Any = None
        self._index = self._promised = self._in_round = self._damaged = self._all_damaged = self._gaps = 0
        self._told = False
        self._file_fps = _DEFAULT_FPS
        self._fps = _DEFAULT_FPS
        self._round_start_s = self._media_s = self._stamp_s = 0.0
        self._first_s: float | None = None

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        if not self._path.is_file():
            raise UsageError(f"there is no video file {self._path}")
        self._capture = opened(str(self._path), cv2.CAP_FFMPEG, f"the video {self._path}")
        found = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._file_fps = found if 0 < found < 1000 else _DEFAULT_FPS
        self._fps = self._options.fps or self._file_fps
        counted = self._path.suffix.lower() in _COUNTED
        count = self._promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) if counted else 0
        size = (int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
        realtime = self._options.pace == "realtime"
        self._pacer, self._first_s = (Pacer(self._fps) if realtime else None), None
        self._held, self._told = None, False
        self._in_round = self._damaged = self._all_damaged = self._gaps = 0
        self._round_start_s, self._stamp_s = self._media_s, 0.0
        endless = self._options.loop or count <= 0
        return StreamFacts(self._path.name, size, self._fps, realtime, None if endless else count)

    def read(self) -> Frame | None:
        """See `edgecv.core.stream.Source.read`."""
        if self._capture is None:
            raise CameraError(f"the video {self._path} is not open")
        if self._damaged:
            self._damaged -= 1
            raise CorruptFrameError(f"a frame of {self._path} cannot be decoded")
        image, self._held = self._held, None
        if image is None:
            image, self._damaged = self._next_image()
            if self._damaged:
                self._held = image
                self._in_round += self._damaged
                self._all_damaged += self._damaged
                return self.read()
        if image is None:
            return self._end()
        media_s = self._time_of_last()
        self._in_round += 1
        self._media_s = media_s + 1 / self._fps
        index = self._index
        self._index += 1
        if self._pacer is None:
            return Frame(image, time.monotonic(), index, self._path.name, media_s)
        self._first_s = media_s if self._first_s is None else self._first_s
        captured_s = self._pacer.wait_for((media_s - self._first_s) * self._fps)
        return Frame(image, captured_s, index, self._path.name)

    def _next_image(self) -> tuple[Any, int]:
        """The next frame that can be decoded, and how many before it could not; None at the end."""
        with quiet_opencv():
            for failures in range(_READ_AHEAD):
                read, image = self._capture.read()
                if read and image is not None:
                    return image, failures
                if self._promised > 0 and self._in_round + failures >= self._promised:
                    break
        return None, 0

    def _time_of_last(self) -> float:
        """The file's own time of the frame just read; frames of uneven distance keep it."""
        stamp_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        if not math.isfinite(stamp_s) or (stamp_s <= 0 and self._in_round > 0):
            return self._media_s  # none is given: one frame's time after the last
        self._gaps += max(0, round((stamp_s - self._stamp_s) * self._file_fps) - 1)
        self._stamp_s = stamp_s
        return self._media_s if self._options.fps is not None else self._round_start_s + stamp_s

    def _end(self) -> Frame | None:
        """The end of the file: what is missing is told once; then once more from the start, or over."""
        if not self._told:
            self._told = True
            missing = max(0, self._promised - self._in_round)
            self._damaged = min(missing, max(0, self._gaps - self._all_damaged))
            if missing - self._damaged > (1 - _CUT_OFF) * self._promised:
                raise CorruptFrameError(f"{self._path} is cut off: {missing} of {self._promised} frames are missing")
            return self.read()
        if not self._options.loop or self._in_round == 0:
            return None
        self._in_round, self._round_start_s, self._stamp_s = 0, self._media_s, 0.0
        with quiet_opencv():
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
        return self.read()

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
        image = _picture(file)
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


def _picture(file: Path) -> Any:
    """The picture of a file as BGR; None where it cannot be read, or was cut off."""
    try:
        if file.suffix.lower() in (".jpg", ".jpeg"):
            # OpenCV fills up what a cut-off JPEG lacks with gray; a whole one has an end marker.
            with file.open("rb") as data:
                data.seek(max(0, file.stat().st_size - _JPEG_TAIL))
                if b"\xff\xd9" not in data.read():
                    return None
        with quiet_opencv():
            return cv2.imread(str(file), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
