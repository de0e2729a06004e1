"""A board's own programs: asked at most once a second, given up on when they fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgecv.measure import tools
from edgecv.measure.tools import Tools


class Program:
    """Answers from a list, then with nothing."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked, self.now_s = list(answers), 0, 0.0

    def __call__(self, words: Sequence[str]) -> str:
        self.asked += 1
        return self.answers.pop(0) if self.answers else ""


def test_it_runs_at_most_once_a_second() -> None:
    program = Program("one", "two")
    asked = Tools(program, clock=lambda: program.now_s)
    assert [asked.ask("vcgencmd", "x"), asked.ask("vcgencmd", "x")] == ["one", "one"]
    program.now_s = 0.99
    assert asked.ask("vcgencmd", "x") == "one"
    program.now_s = 1.0
    assert asked.ask("vcgencmd", "x") == "two"
    assert program.asked == 2


def test_other_arguments_are_another_command() -> None:
    program = Program("one", "two")
    asked = Tools(program, clock=lambda: program.now_s)
    assert (asked.ask("vcgencmd", "a"), asked.ask("vcgencmd", "b")) == ("one", "two")


def test_what_fails_three_times_is_not_tried_again() -> None:
    program = Program("one", "", "two")
    asked = Tools(program, clock=lambda: program.now_s)
    found = []
    for second in range(10):
        program.now_s = 2.0 * second
        found.append(asked.ask("vcgencmd", "x"))
    assert found[:4] == ["one", "", "two", ""], "one failure is forgiven"
    assert program.asked == 6


def script(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_real_program_is_run_without_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "boardtool", 'printf "%s\n" "$1"', monkeypatch)
    assert Tools().ask("boardtool", "$HOME; ls") == "$HOME; ls"


def test_a_missing_and_a_failing_program_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "boardtool", "echo half; exit 3", monkeypatch)
    assert Tools().ask("boardtool") == ""
    assert Tools().ask("no-such-program-here") == ""


def test_a_program_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "boardtool", "exec sleep 20", monkeypatch)
    monkeypatch.setattr(tools, "TIMEOUT_S", 0.1)
    started_s = time.monotonic()
    assert Tools().ask("boardtool") == ""
    assert time.monotonic() - started_s < 5
