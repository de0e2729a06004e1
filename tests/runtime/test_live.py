"""The live page: numbers, pictures, metrics, who may look, and viewers that never read."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.frame import Frame
from edgecv.core.results import Detections
from edgecv.core.stream import FrameResult, LoopStatus, SinkStatus, StageStatus, StreamFacts
from edgecv.core.trace import Trace
from edgecv.errors import UsageError
from edgecv.runtime.live import LiveServer, place_of
from edgecv.runtime.prometheus import exposition
from edgecv.runtime.timeline import Timeline

FACTS = StreamFacts("test", (48, 64), 25.0, live=True)


def status(frames: int = 10) -> LoopStatus:
    return LoopStatus(
        state="running",
        uptime_s=12.5,
        fps=24.9,
        frames=frames,
        dropped=3,
        deadline_misses=1,
        age_p50_ms=41.5,
        age_p95_ms=None,
        stages=(StageStatus("preprocess", 2.1, 3.0, 9.0), StageStatus("infer", 18.2, 25.0, 44.0)),
        sinks=(SinkStatus('jsonl="a"', 9, 0, 1, True, "disk full"),),
        temperature_c={"cpu-thermal": 61.5},
        power_w={"VDD_IN": 7.25},
        flags=("throttled",),
        level="int8-640",
    )


def item(index: int) -> FrameResult:
    image = np.full((240, 320, 3), (index * 20) % 250, np.uint8)
    box = np.array([[20 + index % 100, 30, 120 + index % 100, 200]], np.float32)
    found = Detections(box, np.array([0.9], np.float32), np.array([0]), ("person",), np.array([1]))
    return FrameResult(Frame(image, time.monotonic(), index), found, Trace())


@pytest.fixture
def live() -> Iterator[LiveServer]:
    server = LiveServer(":0", status)
    server.open(FACTS)
    yield server
    server.close()
    server.close()


def get(address: str, path: str = "", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    base, _, query = address.partition("?")
    request = urllib.request.Request(base + path + (f"?{query}" if query else ""), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def test_numbers_metrics_and_health(live: LiveServer) -> None:
    code, body, headers = get(live.address, "status")
    assert code == 200
    assert json.loads(body)["level"] == "int8-640"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    code, body, _ = get(live.address, "metrics")
    lines = body.decode().splitlines()
    assert 'edgecv_stage_milliseconds{stage="infer",quantile="0.95"} 25' in lines
    assert 'edgecv_temperature_celsius{zone="cpu-thermal"} 61.5' in lines
    assert "edgecv_frames_total 10" in lines
    assert 'edgecv_sink_results_total{sink="jsonl=\\"a\\"",outcome="failed"} 1' in lines
    ages = [line for line in lines if line.startswith("edgecv_frame_age")]
    assert len(ages) == 1, "an unknown percentile is absent"
    assert get(live.address, "health")[0] == 200
    live.status = lambda: LoopStatus("stopped", 1, 0, 0, 0, 0, None, None)
    assert get(live.address, "health")[0] == 503
    assert get(live.address, "nothing")[0] == 404


def test_pictures_are_made_only_for_viewers(live: LiveServer) -> None:
    live.write(item(0))
    assert live.newer(0, 0.01) == (0, b""), "nobody watched when it came"
    live.write(item(1))
    code, body, headers = get(live.address, "frame.jpg")
    assert code == 200
    assert headers["X-Frame"] == "1"
    picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (240, 320, 3)
    assert get(live.address, "frame.jpg?after=1")[0] in (200, 204)


def test_viewers_that_never_read_cost_nothing(live: LiveServer) -> None:
    place = ("127.0.0.1", int(live.address.rsplit(":", 1)[1].strip("/")))
    deaf = [socket.create_connection(place) for _ in range(4)]
    for viewer in deaf:
        viewer.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.1)
    times = []
    for index in range(200):
        started_s = time.perf_counter()
        live.write(item(index))
        times.append(time.perf_counter() - started_s)
        time.sleep(0.002)
    assert max(times) < 0.5
    assert get(live.address, "status")[0] == 200
    for viewer in deaf:
        viewer.close()


def test_a_page_from_elsewhere_may_not_look(live: LiveServer) -> None:
    assert get(live.address, "status", Host="evil.example")[0] == 403


def test_outside_this_machine_a_token_is_needed() -> None:
    server = LiveServer("0.0.0.0:0", status)
    server.open(FACTS)
    try:
        port = server.address.split(":")[2].partition("/")[0]
        base = f"http://127.0.0.1:{port}/"
        assert len(server.token) >= 16
        assert server.token in server.address
        assert get(base, "status")[0] == 401
        assert get(f"{base}?token=wrong", "status")[0] == 401
        code, _, headers = get(f"{base}?token={server.token}")
        assert code == 200
        assert "HttpOnly" in headers["Set-Cookie"]
        assert "SameSite=Strict" in headers["Set-Cookie"]
        assert get(base, "status", Cookie=f"edgecv={server.token}")[0] == 200
        assert get(base, "metrics", Authorization=f"Bearer {server.token}")[0] == 200
    finally:
        server.close()


@pytest.mark.parametrize("text", ["8080", ":", ":x", "host", ":70000"])
def test_wrong_places(text: str) -> None:
    with pytest.raises(UsageError, match="PORT is needed"):
        place_of(text)


def test_a_port_in_use(live: LiveServer) -> None:
    port = live.address.rsplit(":", 1)[1].strip("/")
    with pytest.raises(UsageError, match="choose another port"):
        LiveServer(f":{port}", status).open(FACTS)


def test_every_metric_has_its_type() -> None:
    names = [line.split("{")[0].split(" ")[0] for line in exposition(status()).splitlines() if not line.startswith("#")]
    typed = [line.split(" ")[2] for line in exposition(status()).splitlines() if line.startswith("# TYPE")]
    assert set(names) == set(typed)


def test_timeline(tmp_path: Path) -> None:
    timeline = Timeline()
    for index in range(3):
        trace = Trace()
        trace.add("preprocess", 1.0 + index, 1.002 + index)
        trace.add("infer", 1.002 + index, 1.02 + index)
        timeline.add(FrameResult(Frame(np.zeros((4, 4), np.uint8), 1.0, index), Detections.empty(), trace))
    timeline.write(tmp_path / "deep" / "t.json")
    events = json.loads((tmp_path / "deep" / "t.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == 6
    assert spans[1]["name"] == "infer"
    assert spans[1]["dur"] == pytest.approx(18_000, abs=0.2)
    assert {event["args"]["name"] for event in events if event["ph"] == "M"} == {"preprocess", "infer"}
    with pytest.raises(UsageError, match="cannot be written"):
        timeline.write(Path("/proc/none/t.json"))
