"""OpenCV's captures: what a driver gave against what was asked, and its silence."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from edgecv.errors import CameraError, CorruptFrameError
from edgecv.runtime.sources.capture import OpenCvSource, differences, quiet_opencv, setup_v4l2
from edgecv.runtime.sources.options import CameraOptions

YUYV = cv2.VideoWriter.fourcc(*"YUYV")


class Driver:
    """What `cv2.VideoCapture` is to a source: remembers what it is asked in which order, gives what it likes."""

    def __init__(self, readable: bool = True) -> None:
        self.asked: list[int] = []
        self.readable, self.released = readable, 0

    def set(self, key: int, value: float) -> bool:
        self.asked.append(key)
        return True

    def grab(self) -> bool:
        return True

    def retrieve(self) -> tuple[bool, object]:
        return self.readable, np.zeros((4, 4, 3), np.uint8) if self.readable else None

    def release(self) -> None:
        self.released += 1


def test_format_is_asked_for_before_size_before_rate() -> None:
    driver = Driver()
    setup_v4l2(driver, CameraOptions(size=(640, 480), fps=30, pixel_format="MJPG"))
    assert driver.asked == [
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_BUFFERSIZE,
    ]


def test_each_difference_is_one_sentence() -> None:
    options = CameraOptions(size=(1280, 720), fps=60, pixel_format="MJPG")
    assert differences("cam", options, (480, 640), 30.0, YUYV) == (
        "cam gives 640x480, 1280x720 was asked for",
        "cam gives 30 frames a second, 60 were asked for",
        "cam gives the format YUYV, MJPG was asked for",
    )


@pytest.mark.parametrize(
    ("options", "size", "fps", "code"),
    [
        (CameraOptions(), (480, 640), 30.0, YUYV),
        (CameraOptions(size=(640, 480), fps=30, pixel_format="yuyv"), (480, 640), 29.97, YUYV),
        (CameraOptions(size=(640, 480), fps=30, pixel_format="MJPG"), (0, 0), 0.0, 0),
        (CameraOptions(pixel_format="MJPG"), (480, 640), 30.0, -1),
    ],
)
def test_what_was_given_or_is_not_told_is_no_difference(
    options: CameraOptions, size: tuple[int, int], fps: float, code: int
) -> None:
    assert differences("cam", options, size, fps, code) == ()


def test_a_picture_that_cannot_be_decoded_is_one_corrupt_frame() -> None:
    source = OpenCvSource(0, cv2.CAP_ANY, "cam", CameraOptions())
    with pytest.raises(CameraError, match="cam is not open"):
        source.read()
    driver = source._capture = Driver(readable=False)
    for _ in range(5):
        with pytest.raises(CorruptFrameError):
            source.read()
    driver.readable = True
    frame = source.read()
    assert frame is not None
    assert frame.index == 0
    source.close()
    source.close()
    assert driver.released == 1


def test_threads_that_quieten_opencv_restore_its_level() -> None:
    log = cv2.utils.logging
    level = log.getLogLevel()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet_opencv():
            inside.set()
            leave.wait(5)

    with quiet_opencv():
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(5)
    assert log.getLogLevel() == log.LOG_LEVEL_SILENT, "the other one still needs silence"
    leave.set()
    thread.join()
    assert log.getLogLevel() == level
