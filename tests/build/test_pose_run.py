"""The whole line for poses: COCO keypoints in, an int8 network out, proven, evaluated, and behind a detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.results import Poses
from edgecv.core.stream import FrameResult
from edgecv.families.pose_truth import COCO_KEYPOINTS
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec, SecondStage
from edgecv.vision.scenes import LABELS, Scene, SceneSpec

RECIPE = """\
recipe: 1
name: persons
model:
  source: python:edgecv.models.reference_pose:simple_pose
  weights: {weights}
  input: {{size: [128, 96], mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25], resize: stretch}}
family: {{kind: pose, head: heatmap, labels: [person], options: {{refine: taylor, sigma: 1.5}}}}
data:
  train: {{kind: coco-keypoints, path: persons.json, root: pictures, only: "train*", crop: 0.75}}
  eval: {{kind: coco-keypoints, path: persons.json, root: pictures, only: "eval*", crop: 0.75}}
  calibration: {{source: {{kind: coco-keypoints, path: persons.json, root: pictures, only: "train*", crop: 0.75}},
    samples: 16, select: random}}
steps:
  - prune: {{ratio: 0.1, round_to: 2}}
  - finetune: {{epochs: 3, lr: 1.0e-3, batch_size: 8, distill: 0.3, augment: crop-flip, validation: 0.1}}
  - quantize: {{method: ptq, scheme: portable}}
targets: [host-onnxruntime, host-openvino, host-litert, iphone-15]
budgets: {{accuracy: {{metric: oks_ap, min: 0.3}}}}
measure: {{protocol: smoke}}
"""
ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")
PERSON = LABELS.index("person")


def write_pictures(folder: Path) -> int:
    """Scenes of persons with their keypoints as COCO writes them: 14 to judge and 16 to train on; persons to judge."""
    images: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    judged = 0
    for number in range(30):
        name = f"{'eval' if number < 14 else 'train'}{number:02d}.png"
        frame = Scene(SceneSpec(seed=4000 + number, classes=(PERSON,), objects=4)).at(3.0)
        assert cv2.imwrite(str(folder / name), frame.image)
        images.append({"id": number, "file_name": name, "width": 320, "height": 240})
        for box, points in zip(frame.boxes.astype(float), frame.keypoints.astype(float), strict=True):
            labelled = points * [1, 1, 2]
            labelled[points[:, 2] == 0] = 0
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            entry = {"id": len(notes), "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": sides}
            notes.append({**entry, "area": 0.4 * sides[2] * sides[3], "keypoints": labelled.ravel().tolist()})
            judged += number < 14
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS)}]
    tables = {"images": images, "annotations": notes, "categories": categories}
    (folder.parent / "persons.json").write_text(json.dumps(tables))
    return judged


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory, root: Path) -> tuple[Path, int, Report, int]:
    """A finished run: its folder, exit code and report, and how many persons are judged."""
    folder = tmp_path_factory.mktemp("persons")
    (folder / "pictures").mkdir()
    judged = write_pictures(folder / "pictures")
    (folder / "persons.yaml").write_text(RECIPE.format(weights=root / "recipes/pose/scenes-pose.safetensors"))
    words = ["optimize", str(folder / "persons.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder, code, read_report(folder / "out"), judged


def figures_of(report: Report, target: str, role: str) -> ArtifactFigures:
    return next(item for item in report.artifacts if item.target == target and item.role == role)


@pytest.mark.build
@pytest.mark.xdist_group("persons")
def test_a_pose_network_goes_through_every_step(persons: tuple[Path, int, Report, int]) -> None:
    folder, code, report, judged = persons
    assert code == 0, report.outcome
    effects = [step.effect for step in report.steps if step.kind == "prune"]
    assert float(effects[0]["macs_after"]) < float(effects[0]["macs_before"])
    for target in ENGINES:
        figures = figures_of(report, target, "optimized")
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("oks_ap", judged)
        assert figures.accuracy.value > 0.5, "keypoints are lost on the way"
        assert figures.accuracy.interval is not None
        assert figures.accuracy.extras["nme"] < 0.15
        assert figures.drop is not None
        assert figures.drop.interval.low < figures.drop.interval.high
        assert read_manifest(folder / "out" / target).precision == "int8"
    assert (folder / "out/iphone-15").is_dir()
    assert figures_of(report, "iphone-15", "optimized").error == ""


@pytest.mark.build
@pytest.mark.xdist_group("persons")
def test_the_engines_find_the_same_joints(persons: tuple[Path, int, Report, int]) -> None:
    folder, _, _, _ = persons
    scene = Scene(SceneSpec(seed=4100, classes=(PERSON,), objects=3)).at(3.0)
    row = int(scene.visible.argmax())
    x1, y1, x2, y2 = (int(value) for value in scene.boxes[row])
    part = np.ascontiguousarray(scene.image[y1:y2, x1:x2])
    found = []
    for target in ENGINES:
        with load_artifact(folder / "out" / target) as model:
            result = model.predict(part)
        assert isinstance(result, Poses)
        found.append(result.keypoints[0, :, :2])
    for other in found[1:]:
        assert np.median(np.linalg.norm(found[0] - other, axis=1)) < 1.5


@pytest.mark.build
@pytest.mark.xdist_group("persons")
def test_eval_verify_and_run_by_command(
    persons: tuple[Path, int, Report, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, report, judged = persons
    artifact = str(folder / "out/host-onnxruntime")
    capsys.readouterr()
    data = f"coco-keypoints:{folder / 'persons.json'},root={folder / 'pictures'},only=eval*,crop=0.75"
    assert cli.main(["eval", artifact, "--json", "--data", data]) == 0
    figures = json.loads(capsys.readouterr().out)
    accuracy = figures_of(report, "host-onnxruntime", "optimized").accuracy
    assert accuracy is not None
    assert figures["samples"] == judged
    assert figures["value"] == pytest.approx(accuracy.value)
    assert cli.main(["verify", artifact]) == 0
    capsys.readouterr()
    assert cli.main(["run", artifact, str(folder / "pictures/eval00.png"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["poses"][0]["keypoints"]) == 17
    assert cli.main(["eval", artifact, "--data", data.replace("0.75", "wide")]) == 2
    assert "crop is a width over a height" in capsys.readouterr().err


@pytest.mark.build
@pytest.mark.xdist_group("persons")
def test_broken_keypoints_stop_the_run_before_any_work(
    persons: tuple[Path, int, Report, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _, _ = persons
    tables = json.loads((folder / "persons.json").read_text())
    tables["annotations"][2]["keypoints"][2] = 7
    (tmp_path / "persons.json").write_text(json.dumps(tables))
    words = ["optimize", str(folder / "persons.yaml"), "--out", str(tmp_path / "out"), "--cache", str(folder / "cache")]
    assert cli.main([*words, "--set", f"data.eval.path={tmp_path / 'persons.json'}"]) == 2
    assert "annotations[2] (id 2): keypoint 0 has visibility 7" in capsys.readouterr().err


@pytest.mark.build
@pytest.mark.xdist_group("persons")
def test_skeletons_behind_a_detector(persons: tuple[Path, int, Report, int], root: Path, tmp_path: Path) -> None:
    folder, _, _, _ = persons
    seen: list[FrameResult] = []
    spec = PipelineSpec(
        camera="synthetic:size=320x240,seed=5",
        detect=(str(root / "edgecv/demo/onnxruntime"),),
        second=SecondStage(str(folder / "out/host-onnxruntime"), classes=("person",)),
        sinks=(f"video={tmp_path / 'out.mp4'}",),
        policy="every",
        frames=20,
        threads=1,
    )
    with open_session(spec, on_result=seen.append) as session:
        session.start()
        assert session.wait(120)
    assert session.error is None
    answers = [
        (item.result.boxes[row], item.result.second[row])
        for item in seen
        for row in range(len(item.result))
        if item.result.second and item.result.second[row] is not None
    ]
    assert len(answers) >= 10
    inside = [
        ((pose.keypoints[0, :, :2] >= box[:2] - 10) & (pose.keypoints[0, :, :2] <= box[2:] + 10)).all(axis=1).mean()
        for box, pose in answers
    ]
    assert np.mean(inside) > 0.9, "joints lie in the person's box"
    assert (tmp_path / "out.mp4").stat().st_size > 1000
