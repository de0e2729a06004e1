"""The whole line for two-stage networks: scenes in, int8 files of fixed shapes out, and through the camera loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.results import Detections, Poses
from edgecv.core.stream import FrameResult
from edgecv.report.schema import Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec
from edgecv.vision.scenes import Scene, SceneSpec
from tests.lines import ENGINES, TARGETS, rungs_of

RECIPE = """\
recipe: 1
name: {kind}
model:
  source: python:edgecv.models.reference_two_stage:small_two_stage
{network}
{family}
data:
  eval: {{kind: {data}, split: test, limit: 10}}
  calibration: {{source: {{kind: {data}, split: train, limit: 8}}, samples: 8, select: random}}
steps:
{steps}
  - quantize: {{method: ptq, scheme: portable, ranges: minmax, keep_float: [rpn.head.cls_logits, rpn.head.bbox_pred]}}
targets: [{targets}]
budgets: {{accuracy: {{metric: {metric}, max_drop: 0.9}}}}
measure: {{protocol: smoke}}
"""
UNTRAINED = """\
  options: {{kind: {kind}, height: 64, width: 96, candidates: 32, proposals: 16, detections: 4}}
  input: {{size: [64, 96], mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}}"""
TRAINED = """\
  options: {{kind: {kind}, height: 128, width: 160, candidates: 64, proposals: 32, detections: 12}}
  weights: {weights}
  input: {{size: [128, 160], mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}}"""
FAMILIES = {
    "faster": "family: {kind: detection, head: rcnn, background: true, labels: [disc, box, triangle, person], "
    "score_threshold: 0.05, iou_threshold: 0.5, max_detections: 10}",
    "mask": "family: {kind: instance, head: rois, background: true, labels: [disc, box, triangle, person], "
    "score_threshold: 0.01, iou_threshold: 0.5}",
    "keypoint": "family: {kind: pose, head: rois, background: true, labels: [person], score_threshold: 0.01}",
}
DATA = {
    "faster": ("scenes-boxes", "ap50"),
    "mask": ("scenes-instances", "mask_ap50"),
    "keypoint": ("scenes-keypoints", "oks_ap50"),
}


def built(
    kind: str, folder: Path, *, targets: str, steps: str = "", weights: Path | None = None
) -> tuple[Path, Report, int]:
    """A finished run of a network, with random weights where none are given, and its exit code."""
    data, metric = DATA[kind]
    network = (UNTRAINED if weights is None else TRAINED).format(kind=kind, weights=weights)
    text = RECIPE.format(
        kind=kind, family=FAMILIES[kind], data=data, metric=metric, targets=targets, steps=steps, network=network
    )
    (folder / f"{kind}.yaml").write_text(text)
    words = ["optimize", str(folder / f"{kind}.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder / "out", read_report(folder / "out"), code


@pytest.fixture(scope="module")
def faster(tmp_path_factory: pytest.TempPathFactory, root: Path) -> tuple[Path, Report]:
    """A trained Faster R-CNN, a little pruned, in int8 on every target."""
    folder = tmp_path_factory.mktemp("faster")
    targets = ", ".join((*ENGINES, "iphone-15", "jetson-orin-nano"))
    weights = root / "recipes/detection/scenes-faster-rcnn.safetensors"
    out, report, code = built(
        "faster", folder, targets=targets, steps="  - prune: {ratio: 0.05, round_to: 1}", weights=weights
    )
    assert code == 0, report.outcome
    return out, report


@pytest.mark.build
@pytest.mark.xdist_group("two-stage")
def test_a_two_stage_network_goes_through_every_step(faster: tuple[Path, Report]) -> None:
    out, report = faster
    effect = next(step.effect for step in report.steps if step.kind == "prune")
    assert float(effect["macs_after"]) < float(effect["macs_before"])
    figures = {item.target: item for item in report.artifacts if item.role == "optimized"}
    assert set(figures) == {*ENGINES, "iphone-15", "jetson-orin-nano"}
    for target, item in figures.items():
        assert item.error == "", target
    for target in ENGINES:
        accuracy = figures[target].accuracy
        assert accuracy is not None
        assert accuracy.value > 0.5
        manifest = read_manifest(out / target)
        assert (manifest.precision, manifest.family.head) == ("int8", "rcnn")


@pytest.mark.build
@pytest.mark.xdist_group("two-stage")
def test_the_engines_find_the_same_boxes(faster: tuple[Path, Report]) -> None:
    out, _ = faster
    image = Scene(SceneSpec(seed=9)).at(2.0).image
    found: list[Detections] = []
    for target in ENGINES:
        with load_artifact(out / target) as model:
            result = model.predict(image)
        assert isinstance(result, Detections)
        found.append(result)
    assert len(found[0]) > 0
    for other in found[1:]:
        sure = found[0].boxes[found[0].scores > 0.3]
        near = np.abs(sure[:, None] - other.boxes[None]).max(axis=2).min(axis=1) < 4
        assert near.mean() >= 0.9


@pytest.mark.build
@pytest.mark.xdist_group("two-stage")
def test_it_is_proven_and_runs_on_a_camera(
    faster: tuple[Path, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = faster
    artifact = str(out / "host-onnxruntime")
    assert cli.main(["verify", artifact]) == 0
    capsys.readouterr()
    assert cli.main(["eval", artifact, "--json", "--data", "scenes-boxes:test", "--limit", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 5
    seen = frames_of(artifact, tmp_path / "out.mp4")
    assert any(len(item.result) for item in seen)
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def frames_of(artifact: str, video: Path) -> list[FrameResult]:
    """What a loop over ten frames of the synthetic camera says, drawn into ``video``."""
    seen: list[FrameResult] = []
    spec = PipelineSpec(
        camera="synthetic:size=320x240,seed=5",
        model=(artifact,),
        sinks=(f"video={video}",),
        policy="every",
        frames=10,
        threads=1,
    )
    with open_session(spec, on_result=seen.append) as session:
        session.start()
        assert session.wait(120)
    assert session.error is None
    assert len(seen) == 10
    return seen


@pytest.mark.slow
@pytest.mark.xdist_group("two-stage-mask")
def test_masks_come_out_of_the_graph(tmp_path: Path) -> None:
    out = line_of("mask", tmp_path)
    manifest = read_manifest(out / "host-onnxruntime")
    assert [item.shape for item in manifest.outputs] == [(1, 4, 4), (1, 4), (1, 4), (1, 4, 28, 28)]
    frames_of(str(out / "host-litert"), tmp_path / "out.mp4")


@pytest.mark.slow
@pytest.mark.xdist_group("two-stage-keypoint")
def test_keypoints_come_out_of_the_graph(tmp_path: Path) -> None:
    out = line_of("keypoint", tmp_path)
    manifest = read_manifest(out / "host-onnxruntime")
    assert [item.shape for item in manifest.outputs] == [(1, 4, 4), (1, 4), (1, 4 * 17, 56, 56)]
    seen = frames_of(str(out / "host-openvino"), tmp_path / "out.mp4")
    poses = [item.result for item in seen]
    assert all(isinstance(item, Poses) for item in poses)
    assert any(len(item) for item in poses)


def line_of(kind: str, folder: Path) -> Path:
    """The run of a network with random weights, cut and in int8 for every engine, which all compute the same."""
    out, report, _ = built(kind, folder, targets=", ".join(TARGETS), steps="  - prune: {ratio: 0.1, round_to: 1}")
    effect = next(step.effect for step in report.steps if step.kind == "prune")
    assert float(effect["macs_after"]) < float(effect["macs_before"])
    for item in report.artifacts:
        assert item.error == "", item.target
        if item.role == "optimized" and item.target in ENGINES:
            rung = rungs_of(item)[f"compiled {item.backend}"]
            told = {name: (rung.outcome, rung.sqnr_db) for name, rung in rungs_of(item).items()}
            assert rung.outcome == "pass", f"{item.target}: {told}"
    return out
