"""A camera behind the loop's policy: which frame is next."""

from __future__ import annotations

from dataclasses import dataclass

from edgecv.core.frame import Frame
from edgecv.runtime.camera import Camera, EndOfStream
from edgecv.runtime.channel import Policy
from edgecv.runtime.loop import StreamEnd

_LATEST_MAX_AGE_S = 3600.0


@dataclass(frozen=True)
class CameraFeed:
    """``every`` takes all frames in order, ``latest`` the newest one that was not taken yet."""

    camera: Camera
    policy: Policy

    def take(self, timeout_s: float) -> Frame | None:
        """See `edgecv.runtime.loop.Feed.take`."""
        try:
            if self.policy == "every":
                return self.camera.async_read(timeout_s)
            return self.camera.read_latest(max_age_s=_LATEST_MAX_AGE_S, timeout_s=timeout_s)
        except EndOfStream:
            raise StreamEnd from None
