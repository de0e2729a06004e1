"""A Raspberry Pi camera through libcamera, by picamera2 (Debian package python3-picamera2)."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

import numpy as np

from edgecv.core.frame import Frame
from edgecv.core.stream import StreamFacts
from edgecv.errors import CameraError, ToolchainError
from edgecv.runtime.sources.capture import differences
from edgecv.runtime.sources.options import CameraOptions

_OLDEST_S = 5.0  # a stamp that is older is no stamp of this frame


class PiCamera:
    """Frames of picamera2 as BGR; the time is the sensor's own where the kernel gives it."""

    def __init__(self, number: int, options: CameraOptions) -> None:
        self._number, self._options = number, options
        self._name = f"picamera:{number}"
        self._camera: Any = None
        self._index = 0
        self.notes: tuple[str, ...] = ()

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise ToolchainError(
                "picamera2 is not installed; on Raspberry Pi OS: sudo apt install python3-picamera2, "
                "and make the virtual environment with --system-site-packages"
            ) from error
        Picamera2.set_logging(logging.ERROR)
        size = self._options.size or (1280, 720)
        controls = {"FrameRate": float(self._options.fps)} if self._options.fps else {}
        try:
            self._camera = camera = Picamera2(self._number)
            # libcamera's "RGB888" is what numpy and OpenCV see as B, G, R.
            main = {"size": size, "format": "RGB888"}
            camera.configure(camera.create_video_configuration(main=main, controls=controls, buffer_count=4))
            camera.start()
            width, height = camera.camera_configuration()["main"]["size"]
        except (RuntimeError, IndexError, OSError) as error:
            self.close()  # one that is left half open would be "in use" at the next try
            raise CameraError(f"{self._name} does not start ({error}); check the cable, and other users") from error
        self.notes = differences(self._name, CameraOptions(size=self._options.size), (height, width), 0.0, 0)
        return StreamFacts(self._name, (height, width), self._options.fps, live=True)

    def read(self) -> Frame | None:
        """See `edgecv.core.stream.Source.read`."""
        if self._camera is None:
            raise CameraError(f"{self._name} is not open")
        try:
            request = self._camera.capture_request()
            try:
                image = np.ascontiguousarray(request.make_array("main")[..., :3])
                stamp_ns = request.get_metadata().get("SensorTimestamp")
            finally:
                request.release()
        except (RuntimeError, OSError) as error:
            raise CameraError(f"{self._name} is gone ({error})") from error
        # SensorTimestamp is on the clock that goes on in suspend; only its distance from now is of use.
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - stamp_ns / 1e9 if stamp_ns else 0.0
        captured_s = time.monotonic() - (age_s if 0 <= age_s < _OLDEST_S else 0.0)
        index = self._index
        self._index += 1
        return Frame(image, captured_s, index, self._name)

    def close(self) -> None:
        """See `edgecv.core.stream.Source.close`."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with contextlib.suppress(RuntimeError, OSError):
                camera.stop()
            with contextlib.suppress(RuntimeError, OSError):
                camera.close()
