"""OpenCV's VideoCapture, kept quiet: USB cameras, GStreamer pipelines, and streams where PyAV is missing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2

from edgecv.core.frame import Frame
from edgecv.core.stream import StreamFacts
from edgecv.errors import CameraError, CorruptFrameError
from edgecv.runtime.sources.options import CameraOptions

# FFmpeg inside OpenCV prints for itself. It looks here once, when the process first reads or writes a video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_RATE_TOLERANCE = 0.05

_quiet_lock = threading.Lock()
_quiet_users = 0
_loud_level = 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """OpenCV's own warnings stay away from the terminal; our errors say what they would.

    The level is one for the whole process: the first of several threads lowers it, the last one restores it.
    """
    global _quiet_users, _loud_level
    log = cv2.utils.logging
    with _quiet_lock:
        if _quiet_users == 0:
            _loud_level = log.getLogLevel()
            log.setLogLevel(log.LOG_LEVEL_SILENT)
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                log.setLogLevel(_loud_level)


def opened(address: str | int, backend: int, name: str, *, parameters: tuple[int, ...] = ()) -> Any:
    """An open VideoCapture.

    Raises:
        CameraError: it does not open; ``name`` says what in the message.
    """
    with quiet_opencv():
        capture = cv2.VideoCapture(address, backend, list(parameters))
        if capture.isOpened():
            return capture
        capture.release()
    raise CameraError(f"{name} does not open: it is not there, is in use, or is of a kind that OpenCV cannot read")


class OpenCvSource:
    """A live camera through OpenCV. ``setup`` gets the open capture and asks it for size, rate and format.

    ``check`` compares what was asked for with what is given; ``notes`` then says where they differ.
    """

    def __init__(
        self,
        address: str | int,
        backend: int,
        name: str,
        options: CameraOptions,
        *,
        parameters: tuple[int, ...] = (),
        setup: Callable[[Any, CameraOptions], None] | None = None,
        check: bool = False,
    ) -> None:
        self._address, self._backend, self._name = address, backend, name
        self._options, self._parameters, self._setup, self._check = options, parameters, setup, check
        self._capture: Any = None
        self._index = 0
        self.notes: tuple[str, ...] = ()

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        self._capture = opened(self._address, self._backend, self._name, parameters=self._parameters)
        with quiet_opencv():
            if self._setup is not None:
                self._setup(self._capture, self._options)
            size = (int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
            fps = float(self._capture.get(cv2.CAP_PROP_FPS))
            code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        if self._check:
            self.notes = differences(self._name, self._options, size, fps, code)
        known = size if min(size) > 0 else None
        return StreamFacts(self._name, known, fps if 0 < fps < 1000 else None, live=True)

    def read(self) -> Frame | None:
        """See `edgecv.core.stream.Source.read`. The time is taken when the driver hands the frame over."""
        if self._capture is None:
            raise CameraError(f"{self._name} is not open")
        with quiet_opencv():
            if not self._capture.grab():
                raise CameraError(f"{self._name} gives no more frames")
            captured_s = time.monotonic()
            read, image = self._capture.retrieve()
        if not read or image is None:
            raise CorruptFrameError(f"{self._name}: a picture cannot be decoded")
        index = self._index
        self._index += 1
        return Frame(image, captured_s, index, self._name)

    def close(self) -> None:
        """See `edgecv.core.stream.Source.close`."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def setup_v4l2(capture: Any, options: CameraOptions) -> None:
    """Ask a USB camera for format, size and rate (in this order: drivers reset the later ones), and no queue."""
    if options.pixel_format:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*options.pixel_format))
    if options.size is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size[1])
    if options.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, options.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)


def differences(name: str, options: CameraOptions, size: tuple[int, int], fps: float, code: int) -> tuple[str, ...]:
    """Where a driver gave something else than was asked for, one sentence each; what it does not tell is no difference.

    ``size`` is (height, width) in pixels, ``code`` the four letters of the pixel format as OpenCV's number.
    """
    found = []
    if options.size is not None and min(size) > 0 and options.size != (size[1], size[0]):
        asked = f"{options.size[0]}x{options.size[1]}"
        found.append(f"{name} gives {size[1]}x{size[0]}, {asked} was asked for")
    if options.fps is not None and fps > 0 and abs(fps - options.fps) > _RATE_TOLERANCE * options.fps:
        found.append(f"{name} gives {fps:g} frames a second, {options.fps:g} were asked for")
    letters = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24)) if code > 0 else ""
    if options.pixel_format and letters.strip() and letters.upper() != options.pixel_format.upper():
        found.append(f"{name} gives the format {letters}, {options.pixel_format} was asked for")
    return tuple(found)


def csi_pipeline(sensor: int, options: CameraOptions) -> str:
    """The GStreamer pipeline of a Jetson's CSI camera: frames stay on the GPU until they are BGR."""
    width, height = options.size or (1280, 720)
    fps = int(options.fps or 30)
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM), width={width}, height={height}, framerate={fps}/1, format=NV12 ! "
        "nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )
