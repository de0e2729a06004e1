"""Settings of a camera, the same words for every kind; each kind uses those that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from edgecv.core.plain import PlainError, from_plain
from edgecv.errors import UsageError


@dataclass(frozen=True)
class CameraOptions:
    """What is asked of a camera; what it really gives stands in its `StreamFacts`.

    ``size`` is (width, height) in pixels as drivers count them; ``pixel_format`` a four-letter code such as
    MJPG or YUYV. ``pace`` is for files: ``fast`` as quick as they are read, ``realtime`` at their own rate,
    as a live camera would be. ``loop`` starts a file again at its end. ``timeout_s`` bounds connecting and
    reading over a network.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    pixel_format: str = ""
    pace: Literal["fast", "realtime"] = "fast"
    loop: bool = False
    timeout_s: float = 5.0
    transport: Literal["tcp", "udp"] = "tcp"

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size is {list(self.size)}; width and height must be 1 or more")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps is {self.fps}; above 0, up to 1000 is allowed")
        if self.pixel_format and len(self.pixel_format) != 4:
            raise ValueError(f"pixel_format is {self.pixel_format!r}; a code of four letters such as MJPG is needed")
        if not 0 < self.timeout_s <= 600:
            raise ValueError(f"timeout_s is {self.timeout_s}; above 0, up to 600 is allowed")


def camera_options(values: Mapping[str, Any]) -> CameraOptions:
    """Options from plain values; ``size`` also as "640x480".

    Raises:
        UsageError: an unknown option, or a value that is not allowed.
    """
    known = [item.name for item in fields(CameraOptions)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"a camera has no option {unknown[0]!r}; allowed: {', '.join(known)}")
    raw = dict(values)
    if isinstance(raw.get("size"), str):
        width, cross, height = raw["size"].partition("x")
        if not (cross and width.isdigit() and height.isdigit()):
            raise UsageError(f"the camera option size is {raw['size']!r}; WIDTHxHEIGHT is needed, such as 640x480")
        raw["size"] = [int(width), int(height)]
    try:
        return from_plain(CameraOptions, raw, "camera")
    except (PlainError, ValueError) as error:
        raise UsageError(str(error)) from error
