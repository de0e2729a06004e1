"""The whole line for a network that streams: trained on clips, built to take frames, proven, evaluated, and run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.state import StateTensor
from edgecv.data.video_motions import draw_clip
from edgecv.report.schema import Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact

from .test_video_run import ENGINES, optimized, told_by_the_loop, write_motion

WEIGHTS = Path(__file__).resolve().parents[2] / "recipes/video/scenes-stream.safetensors"
RECIPE = f"""\
recipe: 1
name: ways-stream
model:
  source: python:edgecv.models.reference_streaming:x3d_stream
  weights: {WEIGHTS}
  input:
    size: [48, 64]
    mean: [0.5, 0.5, 0.5]
    std: [0.25, 0.25, 0.25]
    clip: {{frames: 12, fps: 8, stream: true}}
family: {{kind: video, labels: [still, left, right, up, down, grow, shrink, turn, wave]}}
data:
  train: {{kind: scenes-motions, split: train, limit: 54}}
  eval: {{kind: scenes-motions, split: test, limit: 63}}
  calibration: {{source: {{kind: scenes-motions, split: train, limit: 18}}, samples: 18}}
steps:
  - prune: {{ratio: 0.1, round_to: 4, importance: magnitude}}
  - finetune: {{epochs: 1, lr: 1.0e-3, batch_size: 18, augment: crop}}
  - quantize: {{method: ptq, scheme: portable}}
targets: [host-onnxruntime, host-openvino, host-litert, iphone-15]
budgets: {{accuracy: {{min: 0.8}}}}
measure: {{protocol: smoke}}
"""


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Report]:
    """A finished run: its folder, exit code and report."""
    folder = tmp_path_factory.mktemp("stream")
    (folder / "stream.yaml").write_text(RECIPE)
    words = ["optimize", str(folder / "stream.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder, code, read_report(folder / "out")


@pytest.mark.build
@pytest.mark.xdist_group("stream")
def test_frames_and_a_state_go_through_every_step(stream: tuple[Path, int, Report]) -> None:
    folder, code, report = stream
    assert code == 0, report.outcome
    for target in ENGINES:
        figures = optimized(report, target)
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("top1", 63)
        assert figures.accuracy.value >= 0.95
        assert figures.ladder is not None
        assert figures.ladder.first_broken is None
        manifest = read_manifest(folder / "out" / target)
        assert manifest.precision == "int8"
        last = target == "host-litert"
        assert manifest.inputs[0].shape == ((1, 48, 64, 3) if last else (1, 3, 48, 64)), "one frame"
        channels = [item.shape[-1 if last else 1] for item in manifest.state]
        assert len(channels) == 5
        assert sum(channels) < 32 + 48 + 72 + 108 + 108, "pruning cut what the state holds"
        first = manifest.state[0]
        if last:
            assert (first.shape, first.dtype) == ((1, 2, 192, channels[0]), "int8"), "LiteRT keeps what it saw in int8"
        else:
            assert first == StateTensor("state_in_0", "state_out_0", (1, channels[0], 2, 192), "float32")
    assert optimized(report, "iphone-15").error == ""


@pytest.mark.build
@pytest.mark.xdist_group("stream")
def test_the_engine_answers_a_clip_as_the_float_network_in_most_cases(stream: tuple[Path, int, Report]) -> None:
    folder, _, _ = stream
    with load_artifact(folder / "out/host-openvino") as one, load_artifact(folder / "out/host-onnxruntime") as other:
        assert one.manifest.contract.clip is not None
        for seed in range(4):
            clip = draw_clip("left", 3_000_100 + seed, one.manifest.contract.clip)
            whole = one.predict(clip).classes.scores
            assert np.abs(whole - other.predict(clip).classes.scores).max() < 0.1
            for frame in clip[:-1]:
                one.predict(frame)
            assert np.abs(one.predict(clip).classes.scores - whole).max() < 1e-5, "a clip begins anew"


@pytest.mark.build
@pytest.mark.xdist_group("stream")
def test_eval_verify_analyze_and_bench_by_command(
    stream: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = stream
    artifact = str(folder / "out/host-onnxruntime")
    capsys.readouterr()
    assert cli.main(["verify", artifact]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert cli.main(["eval", artifact, "--json", "--data", "scenes-motions:test", "--limit", "30"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] > 0.8
    assert cli.main(["analyze", artifact, "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)
    recipe = ["--recipe", str(folder / "stream.yaml"), "--cache", str(folder / "cache"), "--pictures", "1"]
    assert cli.main(["analyze", artifact, *recipe, "--json", "--no-times"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)


@pytest.mark.build
@pytest.mark.xdist_group("stream")
def test_a_damaged_state_is_found_by_verify(
    stream: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = stream
    manifest = json.loads((folder / "out/host-onnxruntime/manifest.json").read_text())
    copy = tmp_path / "artifact"
    copy.mkdir()
    for entry in (folder / "out/host-onnxruntime").iterdir():
        (copy / entry.name).write_bytes(entry.read_bytes())
    manifest["outputs"] = manifest["outputs"][:2]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert cli.main(["verify", str(copy)]) == 6
    assert "takes a frame and a state" in capsys.readouterr().err


@pytest.mark.build
@pytest.mark.xdist_group("stream")
def test_the_loop_over_a_video_says_what_happens(
    stream: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = stream
    right = 0
    for movement in ("left", "right"):
        video = write_motion(tmp_path / f"{movement}.avi", movement, 3_000_010)
        lines = told_by_the_loop(folder / "out/host-openvino", video)
        assert len(lines) == 57, "each frame is answered"
        assert '"seconds": 0.0' in json.dumps(lines[0])
        assert '"seconds": 1.375' in json.dumps(lines[-1])
        best = [line["classes"][0]["label"] for line in lines[42:]]
        right += best.count(movement)
    assert right >= 24, "both videos are told for most of their time"
    artifact = str(folder / "out/host-openvino")
    capsys.readouterr()
    assert cli.main(["run", artifact, str(tmp_path / "left.avi"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"][0]["label"] == "left"
