"""Streams over a network: RTSP, HTTP, UDP. PyAV where it is installed, else OpenCV."""

from __future__ import annotations

import importlib.util
import time
from collections import deque
from typing import Any

import cv2

from edgecv.core.frame import Frame
from edgecv.core.stream import Source, StreamFacts
from edgecv.errors import CameraError, CorruptFrameError
from edgecv.runtime.sources.capture import OpenCvSource
from edgecv.runtime.sources.options import CameraOptions
from edgecv.runtime.sources.privacy import hidden, masked

_MAX_STAMPS = 64


def network_source(address: str, options: CameraOptions) -> Source:
    """The source of an address with one of the schemes rtsp, rtsps, http, https, udp, tcp, rtmp, srt."""
    if importlib.util.find_spec("av") is not None:
        return PyAvSource(address, options)
    return opencv_network(address, options)


def opencv_network(address: str, options: CameraOptions) -> OpenCvSource:
    """A network stream through OpenCV's FFmpeg, with limits on connecting and reading."""
    limit_ms = int(options.timeout_s * 1000)
    parameters = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms)
    return OpenCvSource(address, cv2.CAP_FFMPEG, masked(address), options, parameters=parameters)


class PyAvSource:
    """A stream through PyAV (FFmpeg), set up for low delay: no buffer before the decoder, none for reordering.

    A frame's time is when its packet came in, before it is decoded. Each frame is an array of its own: frames
    wait in queues and with sinks for as long as these like, so a buffer could not be used again safely.
    """

    def __init__(self, address: str, options: CameraOptions) -> None:
        self._address, self._options, self._name = address, options, masked(address)
        self._container: Any = None
        self._stream: Any = None
        self._packets: Any = None
        self._decoded: deque[tuple[Any, float]] = deque()
        self._stamps: dict[int | None, float] = {}
        self._index = 0

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        import av

        av.logging.set_level(av.logging.PANIC)
        settings = {"fflags": "nobuffer", "flags": "low_delay", "max_delay": "0"}
        if self._address.startswith("rtsp"):
            settings["rtsp_transport"] = self._options.transport
        try:
            self._container = av.open(
                self._address, options=settings, timeout=(self._options.timeout_s, self._options.timeout_s)
            )
            stream = self._container.streams.video[0]
        except (OSError, ValueError, IndexError, av.error.FFmpegError) as error:
            self.close()
            raise CameraError(f"{self._name} does not answer ({self._reason(error)})") from error
        stream.thread_type = "SLICE"  # frame threads would add a frame of delay each
        self._stream, self._packets = stream, self._container.demux(stream)
        size = (stream.height, stream.width) if stream.height and stream.width else None
        rate = stream.average_rate
        fps = float(rate) if rate else None
        return StreamFacts(self._name, size, fps, live=True)

    def read(self) -> Frame | None:
        """See `edgecv.core.stream.Source.read`."""
        import av

        if self._packets is None:
            raise CameraError(f"{self._name} is not open")
        try:
            while not self._decoded:
                self._decode_next()
            picture, captured_s = self._decoded.popleft()
            if picture.is_corrupt:
                raise CorruptFrameError(f"{self._name}: a picture is damaged")
            image = picture.to_ndarray(format="bgr24")
        except StopIteration:
            raise CameraError(f"{self._name} ended the stream") from None
        except av.error.InvalidDataError as error:
            raise CorruptFrameError(f"{self._name}: a picture cannot be decoded ({self._reason(error)})") from error
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise CameraError(f"{self._name} is gone ({self._reason(error)})") from error
        index = self._index
        self._index += 1
        return Frame(image, captured_s, index, self._name)

    def _decode_next(self) -> None:
        """Take one packet from the network and decode it; a damaged one leaves the stream usable."""
        import av

        try:
            packet = next(self._packets)
        except av.error.InvalidDataError:
            self._packets = self._container.demux(self._stream)  # an iterator that raised is finished
            raise
        came_s = time.monotonic()
        self._stamps[packet.pts] = came_s
        while len(self._stamps) > _MAX_STAMPS:
            self._stamps.pop(next(iter(self._stamps)))
        for picture in packet.decode():
            self._decoded.append((picture, self._stamps.pop(picture.pts, came_s)))

    def close(self) -> None:
        """See `edgecv.core.stream.Source.close`."""
        container, self._container, self._packets, self._stream = self._container, None, None, None
        self._decoded.clear()
        self._stamps.clear()
        if container is not None:
            container.close()

    def _reason(self, error: Exception) -> str:
        lines = hidden(str(error), self._address).strip().splitlines()
        return lines[0][:200] if lines else type(error).__name__
