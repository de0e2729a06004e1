"""OpenCV's VideoCapture, kept quiet: USB cameras, GStreamer pipelines, and streams where PyAV is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2

from edgecv.core.frame import Frame
from edgecv.core.stream import StreamFacts
from edgecv.errors import CameraError
from edgecv.runtime.sources.options import CameraOptions

_STEADY_FAILURES = 3


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """OpenCV's own warnings stay away from the terminal; our errors say what they would."""
    log = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


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
    """A live camera through OpenCV. ``setup`` gets the open capture and asks it for size, rate and format."""

    def __init__(
        self,
        address: str | int,
        backend: int,
        name: str,
        options: CameraOptions,
        *,
        parameters: tuple[int, ...] = (),
        setup: Callable[[Any, CameraOptions], None] | None = None,
    ) -> None:
        self._address, self._backend, self._name = address, backend, name
        self._options, self._parameters, self._setup = options, parameters, setup
        self._capture: Any = None
        self._index = self._failures = 0

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        self._capture = opened(self._address, self._backend, self._name, parameters=self._parameters)
        with quiet_opencv():
            if self._setup is not None:
                self._setup(self._capture, self._options)
            size = (int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
            fps = float(self._capture.get(cv2.CAP_PROP_FPS))
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
            self._failures += 1
            if self._failures >= _STEADY_FAILURES:
                raise CameraError(f"{self._name}: {self._failures} frames in a row cannot be decoded")
            return self.read()
        self._failures = 0
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
