"""A Raspberry Pi camera, against a small stand-in for the picamera2 package with its shapes and clock."""

from __future__ import annotations

import sys
import time
import types
from typing import Any

import numpy as np
import pytest

from edgecv.errors import CameraError, ToolchainError
from edgecv.runtime.sources import parse
from edgecv.runtime.sources.options import CameraOptions
from edgecv.runtime.sources.picamera import PiCamera


class Request:
    def __init__(self, stamp_ns: int | None) -> None:
        self.stamp_ns, self.released = stamp_ns, False

    def make_array(self, name: str) -> np.ndarray[Any, Any]:
        return np.zeros((480, 640, 3), np.uint8)

    def get_metadata(self) -> dict[str, int]:
        return {} if self.stamp_ns is None else {"SensorTimestamp": self.stamp_ns}

    def release(self) -> None:
        self.released = True


class Picamera2:
    """Gives 640x480 whatever it is asked for. ``fails`` is where it raises; ``age_s`` how old its frames are."""

    fails = ""
    age_s: float | None = 0.05
    made: list["Picamera2"] = []

    @staticmethod
    def set_logging(level: int) -> None:
        pass

    def __init__(self, number: int) -> None:
        if self.fails == "make":
            raise IndexError("list index out of range")
        self.closed, self.requests, self.wanted = 0, [], {}
        self.made.append(self)

    def create_video_configuration(self, **wanted: Any) -> dict[str, Any]:
        return wanted

    def configure(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        if self.fails == "configure":
            raise RuntimeError("in use")

    def camera_configuration(self) -> dict[str, Any]:
        return {"main": {"size": (640, 480)}}

    def start(self) -> None:
        pass

    def capture_request(self) -> Request:
        if self.fails == "read":
            raise RuntimeError("unplugged")
        stamp_ns = None if self.age_s is None else int((time.clock_gettime(time.CLOCK_BOOTTIME) - self.age_s) * 1e9)
        self.requests.append(Request(stamp_ns))
        return self.requests[-1]

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type[Picamera2]:
    kind = type("Picamera2", (Picamera2,), {"made": []})
    module = types.ModuleType("picamera2")
    module.Picamera2 = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    return kind


def test_frames_carry_the_time_of_the_sensor(package: type[Picamera2]) -> None:
    source = parse("picamera:0", {"size": "640x480", "fps": 25})
    facts = source.open()
    assert (facts.name, facts.size, facts.fps, facts.live) == ("picamera:0", (480, 640), 25.0, True)
    frame = source.read()
    assert frame is not None
    assert time.monotonic() - frame.captured_s == pytest.approx(0.05, abs=0.02)
    (camera,) = package.made
    assert camera.wanted["controls"] == {"FrameRate": 25.0}
    assert all(request.released for request in camera.requests)
    source.close()
    source.close()
    assert camera.closed == 1


@pytest.mark.parametrize("age_s", [None, 3600.0, -5.0])
def test_a_stamp_that_cannot_be_is_not_used(package: type[Picamera2], age_s: float | None) -> None:
    package.age_s = age_s
    source = PiCamera(0, CameraOptions())
    source.open()
    before_s = time.monotonic()
    frame = source.read()
    assert frame is not None
    assert before_s <= frame.captured_s <= time.monotonic()


def test_another_size_than_asked_is_noted(package: type[Picamera2]) -> None:
    source = PiCamera(0, CameraOptions(size=(1920, 1080)))
    source.open()
    assert source.notes == ("picamera:0 gives 640x480, 1920x1080 was asked for",)


def test_one_that_does_not_start_is_let_go(package: type[Picamera2]) -> None:
    package.fails = "configure"
    with pytest.raises(CameraError, match=r"does not start \(in use\)"):
        PiCamera(0, CameraOptions()).open()
    assert package.made[0].closed == 1
    package.fails = "make"
    with pytest.raises(CameraError, match="does not start"):
        PiCamera(7, CameraOptions()).open()


def test_one_that_is_unplugged(package: type[Picamera2]) -> None:
    source = PiCamera(0, CameraOptions())
    source.open()
    package.fails = "read"
    with pytest.raises(CameraError, match=r"is gone \(unplugged\)"):
        source.read()


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(ToolchainError, match="apt install python3-picamera2"):
        PiCamera(0, CameraOptions()).open()
