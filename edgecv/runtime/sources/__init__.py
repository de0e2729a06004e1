"""Where pictures come from: an address becomes a `Source`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2

from edgecv.core.stream import Source
from edgecv.errors import ToolchainError, UsageError
from edgecv.runtime.sources.capture import OpenCvSource, csi_pipeline, setup_v4l2
from edgecv.runtime.sources.files import PICTURES, ImageFolder, VideoFile
from edgecv.runtime.sources.network import network_source
from edgecv.runtime.sources.options import CameraOptions, camera_options
from edgecv.runtime.sources.picamera import PiCamera
from edgecv.runtime.sources.privacy import hidden

ADDRESSES = (
    "0 or /dev/video0 (USB camera), FILE.mp4, FOLDER of pictures, rtsp://..., http://..., udp://..., "
    "gst:PIPELINE, csi:0 (Jetson), picamera:0 (Raspberry Pi), synthetic:"
)
_NETWORK = re.compile(r"(rtsps?|https?|udp|tcp|rtmp|srt)://", re.IGNORECASE)


def parse(address: str | int, options: Mapping[str, Any] | CameraOptions | None = None) -> Source:
    """The source of an address; nothing is opened yet. ``options`` are the fields of `CameraOptions`.

    Raises:
        UsageError: the address is of no known kind, names no file, or an option is wrong.
        ToolchainError: this OpenCV was built without what the address needs.
    """
    text = str(address).strip()
    if text.startswith("synthetic:"):
        return _synthetic(text, options)
    chosen = options if isinstance(options, CameraOptions) else camera_options(options or {})
    if _NETWORK.match(text):
        return network_source(text, chosen)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in _PREFIXES:
        return _PREFIXES[prefix](rest, chosen)
    if text.isdigit() or text.startswith("/dev/video"):
        return _v4l2(text, chosen)
    path = Path(text)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in PICTURES):
        return ImageFolder(path, chosen)
    if path.is_file():
        return VideoFile(path, chosen)
    raise UsageError(f"the camera {hidden(text)!r} is no file, folder or address; allowed: {ADDRESSES}")


def _v4l2(place: str, options: CameraOptions) -> Source:
    device: str | int = int(place) if place.isdigit() else place
    name = f"/dev/video{place}" if place.isdigit() else place
    return OpenCvSource(device, cv2.CAP_V4L2, name, options, setup=setup_v4l2, check=True)


def _gstreamer(pipeline: str, options: CameraOptions, *, name: str = "GStreamer pipeline") -> Source:
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise ToolchainError(
            "this OpenCV was built without GStreamer; on a Jetson use the system's OpenCV (apt install python3-opencv, "
            "virtual environment with --system-site-packages)"
        )
    if "appsink" not in pipeline:
        raise UsageError(
            f"the pipeline {hidden(pipeline)!r} has no appsink; end it with: ! videoconvert ! appsink drop=true"
        )
    return OpenCvSource(pipeline, cv2.CAP_GSTREAMER, name, options)


def _csi(sensor: str, options: CameraOptions) -> Source:
    number = _number(sensor, "csi")
    return _gstreamer(csi_pipeline(number, options), options, name=f"csi:{number}")


def _picamera(number: str, options: CameraOptions) -> Source:
    return PiCamera(_number(number, "picamera"), options)


def _number(text: str, kind: str) -> int:
    if text and not text.isdigit():
        raise UsageError(f"the camera {kind}:{text} has no such number; allowed are {kind}:0, {kind}:1, ...")
    return int(text or 0)


def _synthetic(text: str, options: Mapping[str, Any] | CameraOptions | None) -> Source:
    from edgecv.runtime.sources.synthetic import synthetic_source

    return synthetic_source(text.partition(":")[2], options if isinstance(options, Mapping) else {})


_PREFIXES: dict[str, Callable[[str, CameraOptions], Source]] = {
    "v4l2": _v4l2,
    "gst": _gstreamer,
    "csi": _csi,
    "picamera": _picamera,
}
