"""`edgecv bench` on the bundled detector: the protocol and the soak, through the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import cli, demo
from edgecv.commands import bench as module
from edgecv.measure.energy import PowerMeter
from edgecv.measure.host import Sampler
from edgecv.measure.latency import SMOKE
from edgecv.measure.power import find_power
from edgecv.report.schema_io import read_report
from tests.measure.boards import THROTTLED, orin_nano, write

ARTIFACT = str(demo.artifact("onnxruntime"))


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command looks at a made-up Jetson, which draws 7 W."""
    root = tmp_path / "board"
    orin_nano(root)
    monkeypatch.setattr(module, "Sampler", lambda zones, **named: Sampler(zones=zones, root=root))
    monkeypatch.setattr(module, "open_meter", lambda **named: (PowerMeter(find_power(root)[0]), ()))  # type: ignore[arg-type]
    return root


def test_a_soak_from_end_to_end(board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["bench", ARTIFACT, "--soak", "2s", "--fps", "30", "--threads", "1", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert "sustained rate" in shown.out
    assert "INA3221 VDD_IN" in shown.out
    assert "✓ PASS" in shown.out
    soak = read_report(out).artifacts[0].soak
    assert soak is not None
    assert (soak.asked_s, soak.paced_fps, soak.ended) == (2.0, 30.0, "the time was over")
    assert soak.frames + soak.dropped == pytest.approx(60, abs=2)
    assert soak.power is not None
    assert soak.power.mean_w == pytest.approx(7.0)
    assert soak.power.mj_per_frame == pytest.approx(7.0 * 1000 * soak.seconds / soak.frames)
    assert soak.file_sha256
    assert {path.name for path in out.iterdir()} == {"report.json", "report.md", "report.xml", "report.html"}


def test_json_has_the_series(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", ARTIFACT, "--soak", "1s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["series"][0]["fps"] > 0
    assert found["series"][0]["temperature_c"] == 48.125
    assert found["power"]["sensor"] == "INA3221 VDD_IN"


def test_throttling_does_not_void_a_soak(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(board, {THROTTLED: "4"})
    assert cli.main(["bench", ARTIFACT, "--soak", "1s"]) == 0
    assert "throttled after" in capsys.readouterr().out


def test_throttling_voids_a_bench_and_shows_when(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(board, {THROTTLED: "1"})
    assert cli.main(["bench", ARTIFACT, "--protocol", "smoke"]) == 4
    shown = capsys.readouterr()
    assert "the measurement is invalid: Raspberry Pi firmware: under-voltage" in shown.err
    assert "0.0 s  under-voltage: Raspberry Pi firmware: under-voltage" in shown.out


@pytest.mark.parametrize(
    ("budget", "code"),
    [
        (["--min-fps", "1"], 0),
        (["--min-fps", "1000000"], 3),
        (["--max-mj-per-frame", "100000"], 0),
        (["--max-mj-per-frame", "0.001"], 3),
    ],
)
def test_budgets(board: Path, budget: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", ARTIFACT, "--soak", "1s", *budget]) == code
    shown = capsys.readouterr()
    assert ("a budget is not met" in shown.err) == (code == 3)
    assert ("✗ FAIL" in shown.out) == (code == 3)


def test_an_energy_budget_without_a_sensor_is_undecided(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "open_meter", lambda **named: (None, ("RAPL: only root may read it",)))
    assert cli.main(["bench", ARTIFACT, "--soak", "1s", "--max-mj-per-frame", "5"]) == 4
    shown = capsys.readouterr()
    assert "no power sensor answered" in shown.err
    assert "only root may read it" in shown.out


def test_stopped_by_the_keyboard_it_writes_what_it_has(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "edgecv", "bench", ARTIFACT, "--soak", "20s", "--out", str(tmp_path / "out")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "fps" in line:
                break
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped early; 20 s were asked for" in out
    assert read_report(tmp_path / "out").artifacts[0].soak is not None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--soak", "soon"], "--soak is 'soon'; allowed is a time above 0, such as 90s, 10m or 1h"),
        (["--soak", "0.2s"], "allowed is 1 s to 24 h"),
        (["--soak", "25h"], "allowed is 1 s to 24 h"),
        (["--soak", "5s", "--fps", "0"], "the camera rate of a soak must be from 0.1 to 1000"),
        (["--min-fps", "10"], "--min-fps and --max-mj-per-frame are budgets of a soak"),
        (["--data", "synthetic:size=huge"], "size=huge"),
        (["--data", "frames:/nowhere/at-all.mp4"], "/nowhere/at-all.mp4"),
        (["--data", "frames:"], "--data is 'frames:'"),
    ],
)
def test_what_cannot_be_run(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", ARTIFACT, *arguments]) in (2, 5)
    assert says in capsys.readouterr().err


def test_a_folder_of_pictures_needs_no_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), random.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    arguments = ["bench", ARTIFACT, "--data", f"frames:{tmp_path}", "--protocol", "smoke", "--json"]
    assert cli.main(arguments) in (0, 4)
    found = json.loads(capsys.readouterr().out.splitlines()[0])
    assert found["paced_fps"] == 30.0
    assert found["end_to_end"]["samples"] >= SMOKE.min_runs
