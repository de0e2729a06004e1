"""The live page: video with overlay, stages, heat; /metrics and /health. A sink that never slows the loop.

Nothing is fetched from elsewhere: the page works on a board without internet. A picture is encoded once
for all viewers, only while somebody watches, and always the newest one: a viewer that does not read
misses pictures, and costs nobody else anything.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2

from edgecv.core.stream import FrameResult, LoopStatus, StreamFacts
from edgecv.errors import UsageError
from edgecv.runtime.prometheus import CONTENT_TYPE, exposition
from edgecv.runtime.sinks.files import drawn

_HERE = Path(__file__).parent
_FILES = {"/": ("live_page.html", "text/html"), "/live.css": ("live_page.css", "text/css")}
_FILES["/live.js"] = ("live_page.js", "text/javascript")
_LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")
_MAX_VIEWERS = 16
_PICTURE_WIDTH = 960
_PICTURE_FPS = 15.0
_WATCHED_FOR_S = 3.0
_SEND_WITHIN_S = 5.0
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    + ("base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
)


def place_of(text: str) -> tuple[str, int]:
    """``[HOST]:PORT`` -> host and port; without a host, this machine only.

    Raises:
        UsageError: the port is missing or no number from 0 to 65535.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--live is {text!r}; [HOST]:PORT is needed, such as :8080, or 0.0.0.0:8080 for the network")
    return host.strip("[]") or "127.0.0.1", int(port)


class LiveServer:
    """See the module; implements `edgecv.core.stream.Sink`. ``status`` is asked for each look at the numbers.

    Bound to this machine unless ``place`` names another host. Then viewers need ``token``, which is made where none
    is given; ``address`` holds it once.
    """

    def __init__(self, place: str, status: Callable[[], LoopStatus], *, token: str = "") -> None:
        self._host, self._port = place_of(place)
        self.is_local = self._host in _LOCAL
        self.token = token or ("" if self.is_local else secrets.token_urlsafe(16))
        self.status = status
        self._server: _Server | None = None
        self._picture = b""
        self._number = 0
        self._changed = threading.Condition()
        self._watched_s = float("-inf")
        self._encoded_s = float("-inf")
        self.closing = False

    @property
    def address(self) -> str:
        """What to open in a browser."""
        shown = self._host if self._host not in ("0.0.0.0", "::") else socket.gethostname()
        return f"http://{shown}:{self._port}/" + (f"?token={self.token}" if self.token else "")

    def open(self, facts: StreamFacts) -> None:
        """Start to listen.

        Raises:
            UsageError: the address is in use or not this machine's.
        """
        try:
            self._server = _Server((self._host, self._port), self)
        except OSError as error:
            raise UsageError(
                f"the live page cannot listen on {self._host}:{self._port} ({error.strerror}); choose another port"
            ) from error
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="edgecv-live", daemon=True).start()

    def write(self, item: FrameResult) -> None:
        """Encode the newest frame where somebody watches; called on the sink's own thread."""
        now_s = time.monotonic()
        if now_s - self._watched_s > _WATCHED_FOR_S or now_s - self._encoded_s < 1 / _PICTURE_FPS:
            return
        self._encoded_s = now_s
        image = drawn(item)
        if image.shape[1] > _PICTURE_WIDTH:
            height = round(image.shape[0] * _PICTURE_WIDTH / image.shape[1])
            image = cv2.resize(image, (_PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA)
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])
        if done:
            with self._changed:
                self._picture, self._number = data.tobytes(), self._number + 1
                self._changed.notify_all()

    def close(self) -> None:
        """Stop listening; viewers' connections end."""
        self.closing = True
        with self._changed:
            self._changed.notify_all()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def newer(self, number: int, timeout_s: float) -> tuple[int, bytes]:
        """The newest picture, as soon as its number is above ``number``; an empty one after ``timeout_s``."""
        with self._changed:
            self._watched_s = time.monotonic()
            self._changed.wait_for(lambda: self._number > number or self.closing, timeout_s)
            return (self._number, self._picture) if self._number > number else (number, b"")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, place: tuple[str, int], live: LiveServer) -> None:
        self.live = live
        self.viewers = threading.BoundedSemaphore(_MAX_VIEWERS)
        if ":" in place[0]:
            self.address_family = socket.AF_INET6
        super().__init__(place, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Viewers come and go; a broken connection is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "edgecv"
    sys_version = ""
    timeout = _SEND_WITHIN_S

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal belongs to the loop."""

    def do_GET(self) -> None:
        """Answer one request."""
        if not self.server.viewers.acquire(blocking=False):
            self._send(503, b"too many viewers\n", "text/plain")
            return
        try:
            self._answer()
        except (OSError, ValueError):
            self.close_connection = True
        finally:
            self.server.viewers.release()

    def _answer(self) -> None:
        live, parts = self.server.live, urlsplit(self.path)
        if live.is_local and self._host_name() not in _LOCAL:
            # A page from elsewhere that made its name point here must not read the camera.
            self._send(403, b"this page is for localhost only\n", "text/plain")
            return
        if not self._allowed(parts.query):
            self._send(401, b"a token is needed: open the address that edgecv printed\n", "text/plain")
            return
        if parts.path in _FILES:
            name, kind = _FILES[parts.path]
            self._send(200, (_HERE / name).read_bytes(), f"{kind}; charset=utf-8")
        elif parts.path == "/status":
            self._send(200, json.dumps(asdict(live.status())).encode(), "application/json")
        elif parts.path == "/metrics":
            self._send(200, exposition(live.status()).encode(), CONTENT_TYPE)
        elif parts.path == "/health":
            status = live.status()
            well = status.state == "running" and status.fps > 0
            body = json.dumps({"ok": well, "state": status.state, "fps": status.fps, "frames": status.frames})
            self._send(200 if well else 503, body.encode(), "application/json")
        elif parts.path == "/frame.jpg":
            number, picture = live.newer(_number(parts.query), 2.0)
            self._send(200 if picture else 204, picture, "image/jpeg", {"X-Frame": str(number)})
        elif parts.path == "/stream.mjpg":
            self._stream()
        else:
            self._send(404, b"there is no such page\n", "text/plain")

    def _stream(self) -> None:
        """Pictures one after the other, for players; the page itself asks for single ones."""
        self.send_response(200)
        self._headers("multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        number = 0
        while not self.server.live.closing:
            number, picture = self.server.live.newer(number, 2.0)
            if picture:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
        self.close_connection = True

    def _send(self, code: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(code)
        self._headers(kind)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        live = self.server.live
        if live.token and parse_qs(urlsplit(self.path).query).get("token") == [live.token]:
            self.send_header("Set-Cookie", f"edgecv={live.token}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")

    def _host_name(self) -> str:
        return (self.headers.get("Host") or "").rsplit(":", 1)[0]

    def _allowed(self, query: str) -> bool:
        token = self.server.live.token
        if not token:
            return True
        cookie = SimpleCookie(self.headers.get("Cookie") or "").get("edgecv")
        bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        given = (parse_qs(query).get("token", [""])[0], bearer, cookie.value if cookie is not None else "")
        return any(hmac.compare_digest(text.encode(), token.encode()) for text in given)


def _number(query: str) -> int:
    text = parse_qs(query).get("after", ["0"])[0]
    return int(text) if text.isdigit() and len(text) < 19 else 0
