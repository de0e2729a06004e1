"""Addresses and real sources: files, folders, broken ones, a server that comes and goes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.errors import CameraError, ToolchainError, UsageError
from edgecv.runtime.camera import Camera, EndOfStream, Persistence
from edgecv.runtime.sources import parse
from edgecv.runtime.sources.capture import csi_pipeline
from edgecv.runtime.sources.network import masked
from edgecv.runtime.sources.options import CameraOptions, camera_options


def frames_of(address: str, **options: object) -> tuple[list[int], Camera]:
    with Camera(lambda: parse(address, options)) as camera:
        seen: list[int] = []
        with contextlib.suppress(EndOfStream):
            while True:
                seen.append(camera.read(timeout_s=5).index)
        return seen, camera


def video(path: Path, frames: int, size: tuple[int, int] = (96, 64)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, size)
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), index * 3 % 255, np.uint8))
    writer.release()
    return path


def test_a_video_is_read_to_its_end_with_its_own_times(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 20)
    with Camera(lambda: parse(str(path))) as camera:
        assert camera.facts.size == (64, 96)
        assert camera.facts.fps == 25.0
        assert camera.facts.frames == 20
        assert not camera.facts.live
        times = [camera.read().media_s for _ in range(20)]
    np.testing.assert_allclose(np.diff(times), 0.04)


def test_a_looping_video_goes_on(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 5)
    with Camera(lambda: parse(str(path), {"loop": True})) as camera:
        assert [camera.read().index for _ in range(17)] == list(range(17))


def test_a_file_at_its_own_rate_is_a_live_camera(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 10)
    with Camera(lambda: parse(str(path), {"pace": "realtime"})) as camera:
        assert camera.facts.live
        started_s = time.monotonic()
        frames = [camera.read() for _ in range(6)]
        assert time.monotonic() - started_s >= 4 / 25
    assert frames[0].media_s is None


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_truncated_video_ends(tmp_path: Path, keep: float) -> None:
    path = video(tmp_path / "a.avi", 40)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    try:
        seen, _ = frames_of(str(path))
    except CameraError:
        return  # so little is left that it does not open
    assert 0 < len(seen) <= 40


def test_a_video_with_broken_bytes_ends(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 40)
    data = bytearray(path.read_bytes())
    draws = np.random.default_rng(0)
    for place in draws.integers(6000, len(data) - 3000, 200):
        data[place] = int(draws.integers(0, 256))
    path.write_bytes(bytes(data))
    seen, camera = frames_of(str(path))
    assert len(seen) + camera.counts.corrupt <= 40


def test_no_video_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"this is no video" * 100)
    with pytest.raises(CameraError, match="does not open"):
        Camera(lambda: parse(str(path))).open()


def test_a_folder_with_a_broken_picture(tmp_path: Path) -> None:
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((8, 8 + index, 3), np.uint8))
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "note.txt").write_text("x")
    seen, camera = frames_of(str(tmp_path))
    assert seen == [0, 1, 2]
    assert camera.counts.corrupt == 1
    assert camera.counts.size_changes == 2
    alone, _ = frames_of(str(tmp_path / "0.png"))
    assert alone == [0]


def test_real_videos(shared_data: Path) -> None:
    seen, camera = frames_of(str(shared_data / "videos" / "street-night-8frames.mp4"))
    assert len(seen) == 8
    assert camera.facts.size == (1080, 1920)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nothing.mp4", "is no file, folder or address; allowed: 0 or /dev/video0"),
        ("csi:x", "csi:x has no such number"),
        ("synthetic:size=3", "no size=3"),
        ("synthetic:objects", "not NAME=VALUE"),
        ("synthetic:speed=3", "no speed=3; allowed: size"),
    ],
)
def test_wrong_addresses(address: str, words: str) -> None:
    with pytest.raises((UsageError, ToolchainError)) as caught:
        parse(address)
    assert words in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no picture"):
        Camera(lambda: parse(str(tmp_path))).open()


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(CameraError, match="/dev/video97 does not open"):
        Camera(lambda: parse("/dev/video97")).open()


@pytest.mark.skipif("GStreamer:                   YES" in cv2.getBuildInformation(), reason="this OpenCV has GStreamer")
def test_gstreamer_is_missing_here() -> None:
    for address in ("gst:videotestsrc ! appsink", "csi:0"):
        with pytest.raises(ToolchainError, match="without GStreamer"):
            parse(address)


def test_the_jetson_pipeline() -> None:
    text = csi_pipeline(1, CameraOptions(size=(1920, 1080), fps=60))
    assert text.startswith("nvarguscamerasrc sensor-id=1 ! ")
    assert "width=1920, height=1080, framerate=60/1" in text
    assert text.endswith("appsink drop=true max-buffers=1 sync=false")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fsp": 3}, "no option 'fsp'; allowed: size, fps"),
        ({"size": "640"}, "WIDTHxHEIGHT"),
        ({"size": "0x5"}, "1 or more"),
        ({"fps": 0}, "above 0"),
        ({"pixel_format": "MJPEG"}, "four letters"),
        ({"pace": "slow"}, "allowed: fast, realtime"),
    ],
)
def test_wrong_options(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        camera_options(values)
    assert words in str(caught.value)


def test_secrets_stay_out_of_messages() -> None:
    assert masked("rtsp://user:secret@cam.local:554/a?token=b") == "rtsp://***@cam.local:554/a"
    with pytest.raises(CameraError) as caught:
        Camera(lambda: parse("http://user:secret@127.0.0.1:9/x", {"timeout_s": 1})).open()
    assert "secret" not in str(caught.value)


class _Mjpeg(BaseHTTPRequestHandler):
    frames = 3

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=f")
        self.end_headers()
        _, data = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))
        for _ in range(self.frames):
            head = f"--f\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data.tobytes() + b"\r\n")


@pytest.fixture
def server() -> Iterator[str]:
    """An MJPEG server on this machine that ends the stream after three pictures, each time."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), _Mjpeg)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}/live.mjpg"
    made.shutdown()
    made.server_close()
    thread.join()


def test_a_stream_that_ends_is_sought_again_twenty_times(server: str) -> None:
    pytest.importorskip("av")
    plan = Persistence(stall_s=2, first_s=0.01, longest_s=0.02)
    with Camera(lambda: parse(server, {"timeout_s": 2}), persistence=plan) as camera:
        assert camera.facts.live
        frames = [camera.read(timeout_s=10) for _ in range(45)]
        assert camera.counts.reconnects >= 12
    assert [frame.index for frame in frames] == list(range(frames[0].index, frames[0].index + 45))
    assert frames[0].image.shape == (48, 64, 3)


def test_a_server_that_never_answers_is_noticed() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(4)
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/x"
        started_s = time.monotonic()
        camera = Camera(lambda: parse(address, {"timeout_s": 30}), persistence=Persistence(open_s=0.5))
        with pytest.raises(CameraError, match="did not open within"):
            camera.open()
        assert time.monotonic() - started_s < 3
