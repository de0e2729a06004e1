"""The whole line for detectors that learn from labels: boxes in; int8 networks out, proven, evaluated, in the loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.results import Detections
from edgecv.core.stream import FrameResult
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec
from edgecv.vision.boxes import iou
from edgecv.vision.scenes import Scene, SceneSpec

ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")
RECIPE = """\
recipe: 1
name: things
model:
  source: python:edgecv.models.reference_detection:{network}
  weights: {{path: {weights}}}
  input: {{size: [160, 192], mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25], resize: stretch}}
family: {{kind: detection, head: {head}, labels: [disc, box, triangle, person], score_threshold: 0.01,
  max_detections: 60}}
data:
  train: {{kind: scenes-boxes, split: train, limit: 24}}
  eval: {{kind: scenes-boxes, split: test, limit: 20}}
  calibration: {{source: {{kind: scenes-boxes, split: train, limit: 8}}, samples: 8}}
steps:
  - prune: {{importance: taylor, ratio: 0.1, round_to: 2}}
  - finetune: {{epochs: 1, lr: 5.0e-4, batch_size: 8, augment: crop-flip}}
  - quantize: {{method: ptq, scheme: portable}}
targets: [host-onnxruntime, host-openvino, host-litert, iphone-15]
budgets: {{accuracy: {{metric: ap50, max_drop: 0.9}}}}
measure: {{protocol: smoke}}
"""
HEADS = {"yolo11_like": "yolo", "yolo11_end2end": "yolo-end2end"}
END2END = pytest.param("yolo11_end2end", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["yolo11_like", END2END])
def things(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> tuple[Path, int, Report]:
    """A finished run of a network: its folder, exit code and report."""
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    weights = root / "recipes/detection/scenes-yolo.safetensors"
    (folder / "things.yaml").write_text(RECIPE.format(network=name, head=HEADS[name], weights=weights))
    words = ["optimize", str(folder / "things.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder, code, read_report(folder / "out")


def optimized(report: Report, target: str) -> ArtifactFigures:
    return next(item for item in report.artifacts if item.target == target and item.role == "optimized")


@pytest.mark.build
@pytest.mark.xdist_group("boxes")
def test_detectors_learn_from_boxes_and_go_through_every_step(things: tuple[Path, int, Report]) -> None:
    folder, code, report = things
    assert code == 0, report.outcome
    effects = {step.kind: step.effect for step in report.steps}
    assert float(effects["prune"]["macs_after"]) < float(effects["prune"]["macs_before"])
    assert effects["finetune"]["epochs"] == 1
    assert "held_out_minus_loss" in effects["finetune"]
    for target in (*ENGINES, "iphone-15"):
        figures = optimized(report, target)
        assert figures.error == ""
        assert read_manifest(folder / "out" / target).precision == "int8"
        if target not in ENGINES:
            continue
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("ap50", 20)
        assert figures.accuracy.value > 0.5, "objects are lost on the way"


@pytest.mark.build
@pytest.mark.xdist_group("boxes")
def test_the_engines_find_the_same_boxes(things: tuple[Path, int, Report]) -> None:
    folder, _, _ = things
    picture = Scene(SceneSpec(seed=4100)).at(3.0).image
    found = []
    for target in ENGINES:
        with load_artifact(folder / "out" / target) as model:
            result = model.predict(picture)
        assert isinstance(result, Detections)
        found.append(result)
    for other in found[1:]:
        assert abs(len(other) - len(found[0])) <= 3
        sure = found[0].select(found[0].scores > 0.3)
        assert len(sure) > 2
        assert np.median(iou(sure.boxes, other.boxes).max(axis=1)) > 0.9


@pytest.mark.build
@pytest.mark.xdist_group("boxes")
@pytest.mark.parametrize("things", ["yolo11_like"], indirect=True)
def test_eval_verify_and_run_by_command(things: tuple[Path, int, Report], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, report = things
    artifact = str(folder / "out/host-onnxruntime")
    capsys.readouterr()
    words = ["eval", artifact, "--json", "--metric", "ap50", "--data", "scenes-boxes:test", "--limit", "20"]
    assert cli.main(words) == 0
    accuracy = optimized(report, "host-onnxruntime").accuracy
    assert accuracy is not None
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(accuracy.value)
    assert cli.main(["verify", artifact]) == 0


@pytest.mark.build
@pytest.mark.xdist_group("boxes")
@pytest.mark.parametrize("things", ["yolo11_like", END2END], indirect=True)
def test_in_the_camera_loop(things: tuple[Path, int, Report], tmp_path: Path) -> None:
    folder, _, _ = things
    seen: list[FrameResult] = []
    spec = PipelineSpec(
        camera="synthetic:size=320x240,seed=5",
        detect=(str(folder / "out/host-openvino"),),
        sinks=(f"video={tmp_path / 'out.mp4'}",),
        policy="every",
        frames=12,
        threads=1,
    )
    with open_session(spec, on_result=seen.append) as session:
        session.start()
        assert session.wait(120)
    assert session.error is None
    assert len(seen) == 12
    assert sum(int((item.result.scores > 0.3).sum()) for item in seen) > 12
    assert (tmp_path / "out.mp4").stat().st_size > 1000
