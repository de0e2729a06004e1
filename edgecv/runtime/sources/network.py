"""Streams over a network: RTSP, HTTP, UDP. PyAV where it is installed, else OpenCV."""

from __future__ import annotations

import importlib.util
import re
import time
from typing import Any

import cv2

from edgecv.core.frame import Frame
from edgecv.core.stream import Source, StreamFacts
from edgecv.errors import CameraError, CorruptFrameError
from edgecv.runtime.sources.capture import OpenCvSource
from edgecv.runtime.sources.options import CameraOptions

_SECRET = re.compile(r"(?<=://)[^/@\s]*@")


def masked(address: str) -> str:
    """The address without user and password: it may stand in messages and reports."""
    return _SECRET.sub("***@", address).partition("?")[0]


def network_source(address: str, options: CameraOptions) -> Source:
    """The source of an address with one of the schemes rtsp, rtsps, http, https, udp, tcp, rtmp, srt."""
    if importlib.util.find_spec("av") is not None:
        return PyAvSource(address, options)
    limit_ms = int(options.timeout_s * 1000)
    parameters = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms)
    return OpenCvSource(address, cv2.CAP_FFMPEG, masked(address), options, parameters=parameters)


class PyAvSource:
    """A stream through PyAV (FFmpeg), set up for low delay: little probing, no reordering buffer."""

    def __init__(self, address: str, options: CameraOptions) -> None:
        self._address, self._options, self._name = address, options, masked(address)
        self._container: Any = None
        self._packets: Any = None
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
            raise CameraError(f"{self._name} does not answer ({_reason(error)})") from error
        stream.thread_type = "SLICE"  # frame threads would add a frame of delay each
        self._packets = self._container.decode(stream)
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
            picture = next(self._packets)
            captured_s = time.monotonic()
            image = picture.to_ndarray(format="bgr24")
        except StopIteration:
            raise CameraError(f"{self._name} ended the stream") from None
        except av.error.InvalidDataError as error:
            raise CorruptFrameError(f"{self._name}: a picture cannot be decoded ({_reason(error)})") from error
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise CameraError(f"{self._name} is gone ({_reason(error)})") from error
        index = self._index
        self._index += 1
        return Frame(image, captured_s, index, self._name)

    def close(self) -> None:
        """See `edgecv.core.stream.Source.close`."""
        container, self._container, self._packets = self._container, None, None
        if container is not None:
            container.close()


def _reason(error: Exception) -> str:
    return _SECRET.sub("***@", str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__)
