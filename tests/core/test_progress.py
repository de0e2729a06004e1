"""Plain progress lines, and silence."""

from __future__ import annotations

import io

import pytest

from edgecv.core import progress
from edgecv.core.progress import PlainProgress, SilentProgress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    reading = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: reading[0])
    return reading


def test_lines_come_at_most_every_few_seconds(now: list[float]) -> None:
    stream = io.StringIO()
    with PlainProgress(stream, every_s=5.0).task("train", 100) as task:
        for second in range(12):
            now[0] = 100.0 + second
            task.advance(2, note=f"loss {second}")
    assert stream.getvalue().splitlines() == ["  train: 12/100  loss 5", "  train: 22/100  loss 10"]


def test_unknown_total(now: list[float]) -> None:
    stream = io.StringIO()
    with PlainProgress(stream).task("search", None) as task:
        now[0] += 10
        task.advance()
    assert stream.getvalue() == "  search: 1\n"


def test_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    PlainProgress().line("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    silent = SilentProgress()
    silent.line("hello")
    with silent.task("train", 3) as task:
        task.advance(3, "done")
    assert capsys.readouterr() == ("", "")
