"""`edgecv run` and what ends it from outside: signals at any moment, a full disk, viewers that never read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
HANDLED_WITHIN_S = 12.0


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgecv", "run", "--demo", "--frames", "1000000", "--report", str(folder / "out")]
    return subprocess.Popen(
        [*command, "--sink", f"jsonl={folder / 'o.jsonl'}", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )


def started(process: subprocess.Popen[str]) -> None:
    """Wait for the first line of progress: from then on the loop runs."""
    assert process.stderr is not None
    for line in process.stderr:
        if "fps" in line:
            return
    raise AssertionError("it ended before it ran")


def wait_for(port: int) -> None:
    """Wait until the page is served."""
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    raise AssertionError("no page was served")


@pytest.mark.parametrize(("number", "wait_s"), [(signal.SIGTERM, 0.0), (signal.SIGTERM, 0.37), (signal.SIGINT, 0.11)])
def test_a_signal_ends_it_with_the_report_written(tmp_path: Path, number: signal.Signals, wait_s: float) -> None:
    with start(tmp_path) as process:
        started(process)
        time.sleep(wait_s)
        process.send_signal(number)
        out, _ = process.communicate(timeout=HANDLED_WITHIN_S)
    assert process.returncode == 0
    assert f"signal {number.name}" in out
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert report["loop"]["ended"] == f"signal {number.name}"
    lines = (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == report["loop"]["frames"] > 0
    assert all(json.loads(line) for line in lines), "the last line is whole"


@pytest.mark.parametrize("wait_s", [0.02, 0.15, 0.4, 0.8, 1.3])
def test_kill_at_any_time_never_hangs(tmp_path: Path, wait_s: float) -> None:
    """While Python starts, the models load, the first frame runs: it ends, and what it wrote is whole."""
    with start(tmp_path) as process:
        time.sleep(wait_s)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=HANDLED_WITHIN_S)
    assert process.returncode in (0, -signal.SIGTERM), process.returncode
    if process.returncode == 0:
        assert json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["loop"]["ended"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full, a disk without room")
def test_a_full_disk_is_counted_and_the_loop_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgecv", "run", "--demo", "--frames", "120", "--quiet"]
    done = subprocess.run(
        [*command, "--report", str(tmp_path / "out"), "--sink", "jsonl=/dev/full"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loop = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["loop"]
    assert loop["frames"] == 120
    (sink,) = [item for item in loop["sinks"] if item["name"].startswith("jsonl")]
    assert sink["failed"] > 0
    assert any("space" in event["text"].lower() for event in loop["events"]), loop["events"]


def test_viewers_that_never_read_do_not_slow_it(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with start(tmp_path, "--live", f"127.0.0.1:{port}", "--frames", "400", "--policy", "every") as process:
        wait_for(port)
        viewers = []
        for _ in range(4):
            viewer = socket.create_connection(("127.0.0.1", port), timeout=5)
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            viewer.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            viewers.append(viewer)
        out, _ = process.communicate(timeout=60)
        for viewer in viewers:
            viewer.close()
    assert process.returncode == 0
    loop = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["loop"]
    assert loop["frames"] == 400
    assert "400 frames" in loop["ended"], out
