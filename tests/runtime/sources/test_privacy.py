"""No secret of an address gets into a message."""

from __future__ import annotations

import pytest

from edgecv.errors import CameraError, ToolchainError, UsageError
from edgecv.runtime.camera import Camera
from edgecv.runtime.sources import parse
from edgecv.runtime.sources.privacy import hidden, masked


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:hunter2@cam.local:554/a?token=b", "rtsp://***@cam.local:554/a"),
        ("rtsp://user:hunter2@ss@cam.local/a", "rtsp://***@cam.local/a"),
        ("rtsp://user:hun/ter2@cam.local/a", "rtsp://***@cam.local/a"),
        ("rtsp://user:hunter2?x@cam.local/a", "rtsp://***@cam.local/a"),
        ("http://cam.local/a#hunter2", "http://cam.local/a"),
        ("http://cam.local:8080/a", "http://cam.local:8080/a"),
        ("user:hunter2@cam.local/a", "***@cam.local/a"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert masked(address) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no answer from 'rtsp://u:hunter2@h/x?k=hunter2': timeout", "no answer from 'rtsp://***@h/x': timeout"),
        ("rtspsrc location=rtsp://u:hunter2@h/x ! a", "rtspsrc location=rtsp://***@h/x ! a"),
        ("rtspsrc user-id=me user-pw=hunter2 ! a", "rtspsrc user-id=*** user-pw=*** ! a"),
        ('rtspsrc user-pw = "hun ter2" ! a', "rtspsrc user-pw = *** ! a"),
        ("two: http://a:hunter2@b/c and rtsp://d:hunter2@e/f", "two: http://***@b/c and rtsp://***@e/f"),
        ("/dev/video0 is busy", "/dev/video0 is busy"),
        ("videotestsrc ! video/x-raw, width=640 ! appsink", "videotestsrc ! video/x-raw, width=640 ! appsink"),
    ],
)
def test_a_text_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert hidden(text) == shown


@pytest.mark.parametrize(
    "address",
    [
        "rtps://user:hunter2@cam.local/a",
        "user:hunter2@cam.local/a",
        "gst:rtspsrc location=rtsp://user:hunter2@cam.local/a ! fakesink",
        "http://user:hunter2@127.0.0.1:9/x",
        "http://127.0.0.1:9/x?token=hunter2",
        "http://us@er:hunter2@127.0.0.1:9/x",
    ],
)
def test_errors_tell_nothing(address: str) -> None:
    with pytest.raises((CameraError, UsageError, ToolchainError)) as caught:
        Camera(lambda: parse(address, {"timeout_s": 1})).open()
    assert "hunter2" not in str(caught.value)
