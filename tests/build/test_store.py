"""The store: one rename makes a step visible, failures leave nothing, two processes do a step once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecv.build.store import Store, default_root, explained, hash_of
from edgecv.errors import ToolchainError, UsageError

KEY = "ab" * 32


def test_hash_ignores_the_order_of_keys_and_sees_every_value() -> None:
    assert hash_of({"a": 1, "b": [1, 2]}) == hash_of({"b": [1, 2], "a": 1})
    assert hash_of({"a": 1}) != hash_of({"a": 2})
    assert len(hash_of(None)) == 64


def test_a_step_is_done_once_and_its_files_and_effect_are_kept(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def action(folder: Path) -> dict[str, int]:
        calls.append(folder)
        (folder / "model.bin").write_bytes(b"weights")
        return {"bytes": 7}

    first = store.run(KEY, kind="export", title="export it", action=action)
    second = store.run(KEY, kind="export", title="export it", action=action)

    assert first == second
    assert first.effect == {"bytes": 7}
    assert len(calls) == 1
    assert (store.folder(KEY) / "model.bin").read_bytes() == b"weights"
    assert not (tmp_path / "work" / KEY).exists()


def test_a_step_that_fails_leaves_nothing_and_can_be_done_again(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fails(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("half")
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        store.run(KEY, kind="export", title="", action=fails)

    assert store.record(KEY) is None
    assert not (tmp_path / "work" / KEY).exists()
    assert store.run(KEY, kind="export", title="", action=lambda folder: {}).kind == "export"


def test_a_stop_by_the_keyboard_keeps_the_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def stopped(folder: Path) -> dict[str, int]:
        (folder / "checkpoint").write_text("epoch 3")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.run(KEY, kind="finetune", title="", action=stopped)

    record = store.run(
        KEY, kind="finetune", title="", action=lambda folder: {"found": (folder / "checkpoint").read_text()}
    )
    assert record.effect == {"found": "epoch 3"}


def test_a_corrupt_record_is_done_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run(KEY, kind="export", title="", action=lambda folder: {"n": 1})
    (store.folder(KEY) / "step.json").write_text("{ cut")

    assert store.record(KEY) is None
    assert store.run(KEY, kind="export", title="", action=lambda folder: {"n": 2}).effect == {"n": 2}


CHILD = """
import sys, time
from pathlib import Path
from edgecv.build.store import Store

def action(folder):
    (folder / "half").write_text("half")
    print("started", flush=True)
    time.sleep(float(sys.argv[2]))
    with open(Path(sys.argv[1]) / "calls", "a") as stream:
        stream.write("x")
    return {}

Store(Path(sys.argv[1])).run("ab" * 32, kind="export", title="", action=action)
"""


def start(root: Path, seconds: float) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(root), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child


def test_killed_in_a_step_nothing_is_visible_and_the_lock_is_free(tmp_path: Path) -> None:
    child = start(tmp_path, 60)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    store = Store(tmp_path)
    assert store.record(KEY) is None
    started_s = time.monotonic()
    assert store.run(KEY, kind="export", title="", action=lambda folder: {"n": 3}).effect == {"n": 3}
    assert time.monotonic() - started_s < 5


def test_two_processes_do_a_step_once(tmp_path: Path) -> None:
    children = [start(tmp_path, 0.5), start(tmp_path, 0.5)]
    for child in children:
        assert child.wait(timeout=60) == 0
        assert child.stdout is not None
        child.stdout.close()
    assert (tmp_path / "calls").read_text() == "x"


def test_a_full_disk_says_so_and_keeps_nothing(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")

    def fills(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("half")
        with open("/dev/full", "w") as stream:
            stream.write("x" * 100_000)
        return {}

    store = Store(tmp_path)
    with pytest.raises(ToolchainError, match="no space is left below"):
        store.run(KEY, kind="export", title="", action=fills)
    assert store.record(KEY) is None
    assert not (tmp_path / "work" / KEY).exists()


def test_a_read_only_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be written.*--out or --cache"), explained(tmp_path):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(UsageError, match="cannot be written"), explained(tmp_path):
        raise OSError(30, "Read-only file system")


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), explained(tmp_path):
        raise FileNotFoundError(2, "no")


def test_the_store_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path / "here"))
    assert default_root() == tmp_path / "here"
    monkeypatch.delenv("EDGECV_CACHE")
    assert "edgecv" in str(default_root())
