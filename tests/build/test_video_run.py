"""The whole line for video: clips in, an int8 (2+1)D network out, proven, evaluated, and in the loop over a video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.contract import Clip
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.vision.motions import Motion

RECIPE = """\
recipe: 1
name: ways
model:
  source: python:edgecv.models.reference_video:r2plus1d
  options: {width: 8, blocks: 3}
  input: {size: [24, 32], mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25], clip: {frames: 6, fps: 6}}
family: {kind: video, labels: [left, right, grow]}
data:
  train: {kind: scenes-motions, split: train, limit: 240}
  eval: {kind: scenes-motions, split: test, limit: 60}
  calibration: {source: {kind: scenes-motions, split: train, limit: 24}, samples: 24}
steps:
  - finetune: {epochs: 8, lr: 1.0e-2, batch_size: 16, augment: crop, validation: 0.1}
  - prune: {ratio: 0.2, round_to: 2}
  - finetune: {epochs: 3, lr: 3.0e-3, batch_size: 16, augment: crop, validation: 0.1}
  - quantize: {method: ptq, scheme: portable}
targets: [host-onnxruntime, host-openvino, host-litert, iphone-15]
budgets: {accuracy: {min: 0.6}}
measure: {protocol: smoke}
"""
ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Report]:
    """A finished run: its folder, exit code and report."""
    folder = tmp_path_factory.mktemp("ways")
    (folder / "ways.yaml").write_text(RECIPE)
    words = ["optimize", str(folder / "ways.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder, code, read_report(folder / "out")


def optimized(report: Report, target: str) -> ArtifactFigures:
    return next(item for item in report.artifacts if item.target == target and item.role == "optimized")


def write_motion(path: Path, movement: str, seed: int) -> Path:
    """Two seconds of a movement as a video at 30 fps."""
    video = Motion(movement, seed)  # type: ignore[arg-type]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (96, 72))
    for number in range(57):
        writer.write(video.at(number / 30))
    writer.release()
    return path


def told_by_the_loop(artifact: Path, video: Path, *more: str) -> list[dict[str, Any]]:
    """What the camera loop says of each of a video's frames."""
    lines = video.with_suffix(".jsonl")
    words = ["run", "--model", str(artifact), "--camera", str(video), "--quiet", "--policy", "every"]
    assert cli.main([*words, "--sink", f"jsonl={lines}", *more]) == 0
    return [json.loads(line) for line in lines.read_text().splitlines()]


@pytest.mark.build
@pytest.mark.xdist_group("ways")
def test_clips_go_through_every_step(ways: tuple[Path, int, Report]) -> None:
    folder, code, report = ways
    assert code == 0, report.outcome
    for target in ENGINES:
        figures = optimized(report, target)
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("top1", 60)
        assert figures.accuracy.value > 0.75, "training on clips teaches nothing"
        assert figures.ladder is not None
        assert figures.ladder.first_broken is None
        assert figures.latency is not None
        manifest = read_manifest(folder / "out" / target)
        assert manifest.precision == "int8"
        assert manifest.contract.clip == Clip(frames=6, fps=6.0)
        assert manifest.inputs[0].shape == ((1, 24, 32, 18) if target == "host-litert" else (1, 18, 24, 32))
    assert optimized(report, "iphone-15").error == ""


@pytest.mark.build
@pytest.mark.xdist_group("ways")
def test_eval_verify_and_run_by_command(
    ways: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = ways
    artifact = str(folder / "out/host-onnxruntime")
    capsys.readouterr()
    assert cli.main(["verify", artifact]) == 0
    capsys.readouterr()
    for movement in ("left", "right"):
        (tmp_path / movement).mkdir()
        for seed in range(3):
            write_motion(tmp_path / movement / f"{seed}.avi", movement, 3_000_000 + seed)
    assert cli.main(["eval", artifact, "--json", "--data", f"videofolder:{tmp_path}"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["samples"] == 6
    assert figures["value"] >= 4 / 6
    video = str(tmp_path / "left/0.avi")
    assert cli.main(["run", artifact, video, "--json", "--save", str(tmp_path / "drawn")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {item["label"] for item in told["classes"]} == {"left", "right", "grow"}
    assert cv2.imread(str(tmp_path / "drawn/0.png")).shape == (72, 96, 3)
    picture = tmp_path / "one.png"
    assert cv2.imwrite(str(picture), np.zeros((20, 20, 3), np.uint8))
    assert cli.main(["run", artifact, str(picture)]) == 2
    assert "cannot look at a single picture" in capsys.readouterr().err


@pytest.mark.build
@pytest.mark.xdist_group("ways")
def test_the_loop_over_a_video_says_what_happens(
    ways: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = ways
    right = 0
    for movement in ("left", "right"):
        video = write_motion(tmp_path / f"{movement}.avi", movement, 3_000_010)
        drawn = f"video={tmp_path / movement}.mp4"
        lines = told_by_the_loop(folder / "out/host-openvino", video, "--sink", drawn)
        assert len(lines) == 57
        assert '"seconds": 0.0' in json.dumps(lines[0])
        assert '"seconds": 0.833' in json.dumps(lines[-1])
        best = [line["result"]["classes"][0]["label"] if "result" in line else line["classes"][0]["label"]
                for line in lines[30:]]  # fmt: skip
        right += best.count(movement)
    assert right > 27, "one of the two videos at least is told for most of its time"
    capture = cv2.VideoCapture(str(tmp_path / "left.mp4"))
    done, frame = capture.read()
    assert done
    change = np.abs(frame.astype(int) - Motion("left", 3_000_010).at(0.0)).max(axis=2)
    assert (change[:24, :60] > 60).sum() > 60, "the label is drawn"


@pytest.mark.build
@pytest.mark.xdist_group("ways")
def test_a_recipe_without_a_clip_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ways.yaml").write_text(RECIPE.replace(", clip: {frames: 6, fps: 6}", ""))
    assert cli.main(["optimize", str(tmp_path / "ways.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert "model.input.clip: is missing; video needs the frames" in capsys.readouterr().err
