"""Sinks: what they write, what they refuse, and MQTT against a real broker."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv.core.frame import Frame
from edgecv.core.mot import read_mot
from edgecv.core.results import Classification, Detections
from edgecv.core.stream import FrameResult, StreamFacts
from edgecv.core.trace import Trace
from edgecv.errors import EdgecvError, ToolchainError, UsageError
from edgecv.runtime.sinks import parse
from edgecv.runtime.sinks.runner import SinkRunner

FACTS = StreamFacts("test", (48, 64), 25.0, live=False)


def item(index: int, size: tuple[int, int] = (48, 64)) -> FrameResult:
    boxes = np.array([[4, 5, 20, 30], [30.25, 8, 50, 40]], dtype=np.float32)
    found = Detections(boxes, np.array([0.9, 0.5], np.float32), np.array([0, 1]), ("cat", "dog"), np.array([3, 4]))
    image = np.full((*size, 3), 40, np.uint8)
    return FrameResult(Frame(image, 10.0 + index, index, "test"), found, Trace(stages_ms={"infer": 2.5}))


def write(text: str, items: list[FrameResult]) -> None:
    _, sink, _ = parse(text)
    sink.open(FACTS)
    for each in items:
        sink.write(each)
    sink.close()
    sink.close()


def test_json_lines(tmp_path: Path) -> None:
    write(f"jsonl={tmp_path}/deep/o.jsonl", [item(0), item(1)])
    rows = [json.loads(line) for line in (tmp_path / "deep/o.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 1]
    assert rows[0]["objects"][1] == {
        "box": [30.25, 8.0, 50.0, 40.0],
        "score": 0.5,
        "class": 1,
        "label": "dog",
        "track": 4,
    }
    assert rows[0]["stages_ms"] == {"infer": 2.5}


def test_csv_and_mot(tmp_path: Path) -> None:
    write(f"csv={tmp_path}/o.csv", [item(7)])
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    assert [(row["frame"], row["track"], row["label"], row["x1"]) for row in rows] == [
        ("7", "3", "cat", "4.00"),
        ("7", "4", "dog", "30.25"),
    ]
    write(f"mot={tmp_path}/o.txt", [item(0), item(1)])
    table = read_mot(tmp_path / "o.txt")
    assert table.frames.tolist() == [1, 1, 2, 2]
    np.testing.assert_allclose(table.boxes[1], [30.25, 8, 50, 40], atol=0.01)


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_video_has_every_frame_with_the_boxes_on_it(tmp_path: Path, suffix: str) -> None:
    place = tmp_path / f"o.{suffix}"
    items = [item(index) for index in range(12)]
    write(f"video={place}", [*items, item(12, (24, 32))])
    capture = cv2.VideoCapture(str(place))
    frames = []
    while True:
        read, image = capture.read()
        if not read:
            break
        frames.append(image)
    assert len(frames) == 13
    assert frames[0].shape == (48, 64, 3)
    assert np.ptp(frames[0].astype(int)) > 60, "something is drawn on the even picture"
    assert (items[0].frame.image == 40).all(), "the loop's own frame stays as it was"


def test_pictures(tmp_path: Path) -> None:
    write(f"images={tmp_path}/p", [item(3)])
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["00000003.jpg"]
    assert cv2.imread(str(tmp_path / "p/00000003.jpg")).shape == (48, 64, 3)


def test_results_without_objects(tmp_path: Path) -> None:
    answer = Classification(np.array([0.2, 0.8], np.float32), np.array([1, 0]), ("a", "b"))
    plain = FrameResult(item(0).frame, answer, Trace())
    write(f"csv={tmp_path}/o.csv", [plain])
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1
    write(f"jsonl={tmp_path}/o.jsonl", [plain])
    assert json.loads((tmp_path / "o.jsonl").read_text())["classes"][0]["label"] == "b"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("film=a.mp4", "no known kind; allowed: video=..."),
        ("video", "names no place"),
        ("video=a.gif", "must end in .mp4"),
        ("mqtt=host", "HOST:PORT/TOPIC"),
        ("mqtt=host:a/b", "HOST:PORT/TOPIC"),
        ("csv=/proc/none/a.csv", "cannot be made"),
    ],
)
def test_wrong_sinks(text: str, words: str) -> None:
    with pytest.raises(EdgecvError) as caught:
        parse(text)[1].open(FACTS)
    assert words in str(caught.value)


def test_no_broker() -> None:
    pytest.importorskip("paho.mqtt.client")
    with pytest.raises(ToolchainError, match="does not answer"):
        parse("mqtt=127.0.0.1:9/a")[1].open(FACTS)


def test_no_window_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ToolchainError, match="--live :8080"):
        parse("window")[1].open(FACTS)


def test_a_full_disk_is_counted(tmp_path: Path) -> None:
    _, sink, _ = parse("jsonl=/dev/full")
    runner = SinkRunner("full", sink, policy="every")
    runner.open(FACTS)
    for index in range(200):
        runner.offer(item(index))
    runner.close()
    assert runner.status.failed > 0
    assert "No space left" in runner.status.error


class Slow:
    """A sink that takes its time."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s, self.seen = pause_s, []  # type: tuple[float, list[int]]

    def open(self, facts: StreamFacts) -> None:
        pass

    def write(self, each: FrameResult) -> None:
        time.sleep(self.pause_s)
        self.seen.append(each.frame.index)

    def close(self) -> None:
        pass


def test_every_waits_and_latest_does_not() -> None:
    patient, hasty = Slow(0.002), Slow(0.01)
    runners = [SinkRunner("a", patient, policy="every"), SinkRunner("b", hasty, policy="latest", queue=2)]
    for runner in runners:
        runner.open(FACTS)
        for index in range(40):
            runner.offer(item(index))
        runner.close()
    assert patient.seen == list(range(40))
    assert hasty.seen[-1] == 39
    assert runners[1].status.dropped == 40 - len(hasty.seen) > 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """A real mosquitto on a free port of this machine; the function starts it again."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed (Debian package mosquitto)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "m.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        for old in running:
            old.terminate()
            old.wait()
        command = [program, "-c", str(tmp_path / "m.conf")]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        end_s = time.monotonic() + 5
        while time.monotonic() < end_s:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("mosquitto did not start")

    start()
    yield port, start
    running[-1].terminate()
    running[-1].wait()


def test_mqtt(broker: tuple[int, Callable[[], None]]) -> None:
    mqtt = pytest.importorskip("paho.mqtt.client")
    from paho.mqtt.enums import CallbackAPIVersion

    port, start = broker
    seen: list[tuple[str, str]] = []
    ready, came = threading.Event(), threading.Condition()

    def message(client: object, data: object, found: Any) -> None:
        with came:
            seen.append((found.topic, found.payload.decode()))
            came.notify_all()

    listener = mqtt.Client(CallbackAPIVersion.VERSION2)
    listener.on_message = message
    listener.on_connect = lambda client, *_: client.subscribe("cam/#", qos=1)
    listener.on_subscribe = lambda *_: ready.set()
    listener.connect("127.0.0.1", port)
    listener.loop_start()
    assert ready.wait(5)
    _, sink, policy = parse(f"mqtt=127.0.0.1:{port}/cam/1")
    assert policy == "latest"
    sink.open(FACTS)
    sink.write(item(5))
    with came:
        assert came.wait_for(lambda: any(topic == "cam/1" for topic, _ in seen), 5)
        assert came.wait_for(lambda: ("cam/1/status", "online") in seen, 5)
    assert json.loads(next(text for topic, text in seen if topic == "cam/1"))["frame"] == 5
    start()  # the broker dies and comes back: the sink finds it again by itself
    end_s, number = time.monotonic() + 15, 6
    while time.monotonic() < end_s and not any('"frame":1' in text for topic, text in seen if topic == "cam/1"):
        with contextlib.suppress(ToolchainError):
            sink.write(item(100 + number))
        number += 1
        time.sleep(0.1)
    assert any('"frame":1' in text for topic, text in seen if topic == "cam/1")
    sink.close()
    with came:
        assert came.wait_for(lambda: ("cam/1/status", "offline") in seen, 5)
    listener.loop_stop()


def test_usage_error_is_exit_code_2() -> None:
    assert UsageError.exit_code == 2
