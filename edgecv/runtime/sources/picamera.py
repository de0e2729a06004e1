"""A Raspberry Pi camera through libcamera, by picamera2 (Debian package python3-picamera2)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edgecv.core.frame import Frame
from edgecv.core.stream import StreamFacts
from edgecv.errors import CameraError, ToolchainError
from edgecv.runtime.sources.options import CameraOptions


class PiCamera:
    """Frames of picamera2 as BGR; the time is the sensor's own where the kernel gives it."""

    def __init__(self, number: int, options: CameraOptions) -> None:
        self._number, self._options = number, options
        self._name = f"picamera:{number}"
        self._camera: Any = None
        self._index = 0

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise ToolchainError(
                "picamera2 is not installed; on Raspberry Pi OS: sudo apt install python3-picamera2, "
                "and make the virtual environment with --system-site-packages"
            ) from error
        try:
            camera = Picamera2(self._number)
            size = self._options.size or (1280, 720)
            controls = {"FrameRate": float(self._options.fps)} if self._options.fps else {}
            # libcamera's "RGB888" is what numpy and OpenCV see as B, G, R.
            main = {"size": size, "format": "RGB888"}
            camera.configure(camera.create_video_configuration(main=main, controls=controls, buffer_count=4))
            camera.start()
        except (RuntimeError, IndexError, OSError) as error:
            raise CameraError(f"{self._name} does not start ({error}); check the cable, and other users") from error
        self._camera = camera
        width, height = camera.camera_configuration()["main"]["size"]
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
        # SensorTimestamp is on CLOCK_BOOTTIME, which is the monotonic clock but for time in suspend.
        now_s = time.monotonic()
        stamp_s = stamp_ns / 1e9 if stamp_ns else now_s
        captured_s = stamp_s if 0 <= now_s - stamp_s < 5 else now_s
        index = self._index
        self._index += 1
        return Frame(image, captured_s, index, self._name)

    def close(self) -> None:
        """See `edgecv.core.stream.Source.close`."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.stop()
            camera.close()
