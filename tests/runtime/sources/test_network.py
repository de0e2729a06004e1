"""Streams of a real server on this machine that ends, stalls, changes, sends rubbish, goes away and comes back."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from edgecv.core.stream import Source
from edgecv.errors import CameraError
from edgecv.runtime.camera import Camera, Persistence
from edgecv.runtime.sources import parse
from edgecv.runtime.sources.network import opencv_network
from edgecv.runtime.sources.options import CameraOptions

PLAN = Persistence(stall_s=2, first_s=0.01, longest_s=0.02)


def jpeg(size: tuple[int, int] = (48, 64)) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((*size, 3), 90, np.uint8))[1].tobytes())


class MjpegServer:
    """Sends what ``pictures`` yields to each viewer; can be stopped, and started again on the same port."""

    def __init__(self, pictures: Callable[[], Iterator[bytes]]) -> None:
        self.pictures, self.port, self.viewers = pictures, 0, 0
        self._sockets: list[socket.socket] = []
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/live.mjpg"

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.viewers += 1
                outer._sockets.append(self.connection)
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=f")
                    self.end_headers()
                    for data in outer.pictures():
                        head = f"--f\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                except OSError:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        # A short poll: `shutdown` waits for it.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for item in self._sockets:
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[], Iterator[bytes]]], MjpegServer]]:
    made: list[MjpegServer] = []

    def start(pictures: Callable[[], Iterator[bytes]]) -> MjpegServer:
        made.append(MjpegServer(pictures))
        return made[-1]

    yield start
    for server in made:
        server.stop()


def by_pyav(address: str) -> Callable[[], Source]:
    pytest.importorskip("av")
    return lambda: parse(address, {"timeout_s": 2})


def by_opencv(address: str) -> Callable[[], Source]:
    return lambda: opencv_network(address, CameraOptions(timeout_s=2))


BOTH = pytest.mark.parametrize("way", [by_pyav, by_opencv])


def endless(picture: bytes, pause_s: float = 0.005) -> Iterator[bytes]:
    while True:
        yield picture
        time.sleep(pause_s)


def test_a_stream_that_ends_is_sought_again(serve: Callable[..., MjpegServer]) -> None:
    server = serve(lambda: iter([jpeg()] * 3))
    with Camera(by_pyav(server.address), persistence=PLAN) as camera:
        assert camera.facts.live
        frames = [camera.read(timeout_s=10) for _ in range(45)]
        assert camera.counts.reconnects >= 12
    assert [frame.index for frame in frames] == list(range(frames[0].index, frames[0].index + 45))
    assert frames[0].image.shape == (48, 64, 3)


def test_a_server_that_goes_away_and_comes_back_twenty_times(serve: Callable[..., MjpegServer]) -> None:
    server = serve(lambda: endless(jpeg()))
    with Camera(by_pyav(server.address), persistence=PLAN) as camera:
        threads = 0
        for turn in range(20):
            assert camera.read_latest(max_age_s=1, timeout_s=5) is not None
            server.stop()
            end_s = time.monotonic() + 5
            while camera.counts.failed_connects + camera.counts.reconnects < turn + 1 and time.monotonic() < end_s:
                time.sleep(0.002)
            server.start()
            while camera.counts.reconnects < turn + 1 and time.monotonic() < end_s:
                time.sleep(0.002)
            assert camera.counts.reconnects == turn + 1, camera.counts
            threads = max(threads, sum(thread.name == "edgecv-camera-source" for thread in threading.enumerate()))
        frame = camera.read_latest(max_age_s=0.5, timeout_s=5)
        assert frame is not None
        assert time.monotonic() - frame.captured_s < 0.5, "no delay has grown"
    assert camera.counts.failed_connects >= 1
    assert threads <= 6


@BOTH
def test_a_stream_that_falls_silent_is_noticed(
    serve: Callable[..., MjpegServer], way: Callable[[str], Callable[[], Source]]
) -> None:
    gate = threading.Event()

    def pictures() -> Iterator[bytes]:
        yield from [jpeg()] * 40
        if server.viewers == 1:
            gate.wait(20)
        else:
            yield from endless(jpeg())

    server = serve(pictures)
    plan = Persistence(stall_s=0.3, first_s=0.01, longest_s=0.02)
    with Camera(way(server.address), persistence=plan, queue=100) as camera:
        started_s = time.monotonic()
        while camera.counts.reconnects < 1:
            camera.read(timeout_s=5)
        assert camera.counts.stalls == 1
        assert time.monotonic() - started_s < 3
        camera.read(timeout_s=5)
    gate.set()


@BOTH
def test_another_size_in_the_middle_of_a_stream(
    serve: Callable[..., MjpegServer], way: Callable[[str], Callable[[], Source]]
) -> None:
    def pictures() -> Iterator[bytes]:
        yield from [jpeg()] * 40
        yield from endless(jpeg((96, 128)))

    server = serve(pictures)
    with Camera(way(server.address), persistence=PLAN, queue=100) as camera:
        shapes = [camera.read(timeout_s=5).image.shape[:2] for _ in range(60)]
        assert camera.counts.size_changes >= 1 or way is by_opencv, "OpenCV scales to the first size by itself"
        assert camera.counts.stalls == 0
    assert shapes[0] == (48, 64)
    assert way is by_opencv or shapes[-1] == (96, 128)


def test_a_damaged_picture_does_not_end_the_stream(serve: Callable[..., MjpegServer]) -> None:
    draws = np.random.default_rng(0)

    def pictures() -> Iterator[bytes]:
        for index in range(10_000):
            yield b"\xff\xd8" + draws.bytes(400) if index >= 30 and index % 10 == 5 else jpeg()
            time.sleep(0.002)

    server = serve(pictures)
    with Camera(by_pyav(server.address), persistence=PLAN, queue=100) as camera:
        for _ in range(100):
            camera.read(timeout_s=5)
        assert camera.counts.corrupt >= 5
        assert camera.counts.reconnects == 0


def test_nothing_listens_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}/x"
    for way in (by_pyav, by_opencv):
        with pytest.raises(CameraError, match=r"does not (answer|open)"):
            Camera(way(address)).open()


@BOTH
def test_a_server_that_never_answers_is_noticed(way: Callable[[str], Callable[[], Source]]) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(4)
        started_s = time.monotonic()
        camera = Camera(way(f"http://127.0.0.1:{deaf.getsockname()[1]}/x"), persistence=Persistence(open_s=0.5))
        with pytest.raises(CameraError, match="did not open within"):
            camera.open()
        assert time.monotonic() - started_s < 2
