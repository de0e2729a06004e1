"""Downloads against a server on this machine that misbehaves on request."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgecv.core.recipe import Weights
from edgecv.errors import ArtifactError, ModelError, ToolchainError
from edgecv.models.fetch import fetch_weights

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves CONTENT; ``script`` holds what the next answers do, then all is well."""

    def __init__(self) -> None:
        self.script: list[str] = []
        self.ranges: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                action = server.script.pop(0) if server.script else "ok"
                asked = self.headers.get("Range")
                server.ranges.append(asked)
                if action.isdigit():
                    self.send_error(int(action))
                    return
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and action != "no-range" else 0
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(CONTENT) - start))
                self.end_headers()
                body = CONTENT[start:]
                self.wfile.write(body[: len(body) // 2] if action == "cut" else body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/net.safetensors"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def fetch(server: Server, cache: Path, *, sha256: str = SHA256, pauses: list[float] | None = None) -> Path:
    pauses = [] if pauses is None else pauses
    weights = Weights(url=server.url, sha256=sha256)
    return fetch_weights(weights, base=cache, cache=cache / "cache", sleep=pauses.append)


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path)
    assert path == tmp_path / "cache" / SHA256
    assert path.read_bytes() == CONTENT
    assert fetch(server, tmp_path) == path
    assert len(server.ranges) == 1
    assert [item.name for item in path.parent.iterdir()] == [SHA256]


def test_a_damaged_file_in_the_cache_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / SHA256).write_bytes(b"damaged")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_wrong_hash_shows_both_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        fetch(server, tmp_path, sha256="0" * 64)
    assert SHA256 in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cut_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.script = ["cut", "cut"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.script = ["cut", "no-range"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_refused_range_starts_again(server: Server, tmp_path: Path) -> None:
    server.script = ["cut", "416"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] is None


def test_a_busy_server_is_asked_again_with_growing_pauses(server: Server, tmp_path: Path) -> None:
    server.script = ["503", "503", "429"]
    pauses: list[float] = []
    assert fetch(server, tmp_path, pauses=pauses).read_bytes() == CONTENT
    assert len(pauses) == 3
    assert pauses == sorted(pauses)


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.script = ["503"] * 9
    with pytest.raises(ToolchainError, match=r"5 attempts.*status 503"):
        fetch(server, tmp_path)
    assert len(server.ranges) == 5
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_file_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.script = ["404"]
    with pytest.raises(ModelError, match=r"answered 404 .*model\.weights\.url"):
        fetch(server, tmp_path)
    assert len(server.ranges) == 1


def test_nobody_answers(tmp_path: Path) -> None:
    weights = Weights(url="http://127.0.0.1:9/net", sha256=SHA256)
    with pytest.raises(ToolchainError, match="could not be downloaded"):
        fetch_weights(weights, base=tmp_path, cache=tmp_path, sleep=lambda _: None)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (Weights(url="http://127.0.0.1/net"), "needs model.weights.sha256"),
        (Weights(url="file:///etc/hostname", sha256=SHA256), "allowed are http and https"),
        (Weights(path="absent.pt"), "there is no file"),
        (Weights(), "a path or a url"),
    ],
)
def test_what_cannot_be_fetched(weights: Weights, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        fetch_weights(weights, base=tmp_path, cache=tmp_path)


def test_local_files_are_held_against_their_hash(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(CONTENT)
    assert fetch_weights(Weights(path="net.pt", sha256=SHA256), base=tmp_path, cache=tmp_path).name == "net.pt"
    with pytest.raises(ArtifactError, match=SHA256):
        fetch_weights(Weights(path="net.pt", sha256="1" * 64), base=tmp_path, cache=tmp_path)
