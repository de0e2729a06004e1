"""The whole line for masks of objects: COCO's masks in, an int8 network out, proven, evaluated, tracked and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.masks import ObjectMask
from edgecv.core.results import Detections
from edgecv.core.stream import FrameResult
from edgecv.families.instance import agree
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec
from edgecv.vision.draw import picture_of
from edgecv.vision.scenes import LABELS, Scene, SceneSpec

RECIPE = """\
recipe: 1
name: things
model:
  source: python:edgecv.models.reference_instance:yolo_seg
  weights: {weights}
  input: {{size: [128, 160], mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25], resize: stretch}}
family:
  kind: instance
  head: prototypes
  labels: [disc, box, triangle, person]
  score_threshold: 0.05
  iou_threshold: 0.6
data:
  train: {{kind: coco-masks, path: things.json, root: pictures, only: "train*"}}
  eval: {{kind: coco-masks, path: things.json, root: pictures, only: "eval*"}}
  calibration: {{source: {{kind: coco-masks, path: things.json, root: pictures, only: "train*"}}, samples: 16,
    select: random}}
  unlabelled: {{kind: images, path: pictures}}
steps:
  - prune: {{importance: taylor, ratio: 0.05, round_to: 2}}
  - finetune: {{epochs: 2, lr: 1.0e-3, batch_size: 8, distill: 0.3, augment: crop-flip, validation: 0.1}}
  - quantize: {{method: ptq, scheme: portable}}
targets: [host-onnxruntime, host-openvino, host-litert, iphone-15]
budgets: {{accuracy: {{metric: mask_ap50, min: 0.5}}}}
measure: {{protocol: smoke}}
"""
ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")
Run = tuple[Path, int, Report]


def write_pictures(folder: Path) -> None:
    """Scenes with the masks of their objects as COCO writes them, as runs of pixels: 16 to judge, 24 to train on."""
    images: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    for number in range(40):
        name = f"{'eval' if number < 16 else 'train'}{number:02d}.png"
        frame = Scene(SceneSpec(seed=6000 + number, objects=5)).at(3.0)
        assert cv2.imwrite(str(folder / name), frame.image)
        images.append({"id": number, "file_name": name, "width": 320, "height": 240})
        for place, (mark, kind) in enumerate(zip(frame.shape_ids, frame.shape_class_ids, strict=True)):
            mask = ObjectMask.of(frame.shapes == place + 1, (240, 320))
            if mask.area == 0:
                continue
            notes.append(
                {
                    "id": len(notes),
                    "image_id": number,
                    "category_id": int(kind) + 1,
                    "iscrowd": int(mark not in frame.ids),
                    "bbox": [mask.left, mask.top, mask.width, mask.height],
                    "segmentation": mask.to_rle(),
                }
            )
    categories = [{"id": index + 1, "name": label} for index, label in enumerate(LABELS)]
    tables = {"images": images, "annotations": notes, "categories": categories}
    (folder.parent / "things.json").write_text(json.dumps(tables))


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Run:
    """A finished run: its folder, exit code and report."""
    folder = tmp_path_factory.mktemp("things")
    (folder / "pictures").mkdir()
    write_pictures(folder / "pictures")
    (folder / "things.yaml").write_text(RECIPE.format(weights=root / "recipes/instance/scenes-yoloseg.safetensors"))
    words = ["optimize", str(folder / "things.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder, code, read_report(folder / "out")


def figures_of(report: Report, target: str, role: str) -> ArtifactFigures:
    return next(item for item in report.artifacts if item.target == target and item.role == role)


@pytest.mark.build
@pytest.mark.xdist_group("things")
def test_a_network_with_masks_goes_through_every_step(things: Run) -> None:
    folder, code, report = things
    assert code == 0, report.outcome
    effects = [step.effect for step in report.steps if step.kind == "prune"]
    assert float(effects[0]["macs_after"]) < float(effects[0]["macs_before"])
    (tuned,) = [step.effect for step in report.steps if step.kind == "finetune"]
    assert tuned["unlabelled_pictures"] == 24  # all 40 but those of the evaluation set
    for target in ENGINES:
        figures = figures_of(report, target, "optimized")
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("mask_ap50", 16)
        assert figures.accuracy.value > 0.6, "masks are lost on the way"
        assert figures.accuracy.extras["mask_ap"] > 0.4
        assert figures.drop is not None
        assert figures.drop.interval.low < figures.drop.interval.high
        assert read_manifest(folder / "out" / target).precision == "int8"
    assert (folder / "out/iphone-15").is_dir()
    assert figures_of(report, "iphone-15", "optimized").error == ""


@pytest.mark.build
@pytest.mark.xdist_group("things")
def test_the_engines_find_the_same_masks(things: Run) -> None:
    folder, _, _ = things
    found = []
    for target in ENGINES:
        with load_artifact(folder / "out" / target) as model:
            found.append([model.predict(cv2.imread(str(folder / f"pictures/eval{n:02d}.png"))) for n in range(6)])
    for other in found[1:]:
        same = [
            agree(one.select(one.scores > 0.4), two.select(two.scores > 0.4))
            for one, two in zip(found[0], other, strict=True)
        ]
        assert sum(same) >= 5


@pytest.mark.build
@pytest.mark.xdist_group("things")
def test_eval_verify_import_and_run_by_command(things: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, report = things
    artifact = folder / "out/host-onnxruntime"
    capsys.readouterr()
    data = f"coco-masks:{folder / 'things.json'},root={folder / 'pictures'},only=eval*"
    assert cli.main(["eval", str(artifact), "--json", "--metric", "mask_ap50", "--data", data]) == 0
    figures = json.loads(capsys.readouterr().out)
    accuracy = figures_of(report, "host-onnxruntime", "optimized").accuracy
    assert accuracy is not None
    assert figures["value"] == pytest.approx(accuracy.value)
    assert cli.main(["verify", str(artifact)]) == 0
    capsys.readouterr()
    words = ["run", str(artifact), str(folder / "pictures/eval00.png"), "--json"]
    assert cli.main(words) == 0
    objects = json.loads(capsys.readouterr().out)["objects"]
    assert objects[0]["mask"]["size"] == [240, 320]
    assert sum(objects[0]["mask"]["counts"]) == 240 * 320
    model = artifact / read_manifest(artifact).model
    imported = ["import", str(model), "--out", str(tmp_path / "again"), "--family", "instance", "--head", "prototypes"]
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    size = ["--size", "128", "160", "--mean", *["0.5"] * 3, "--std", *["0.25"] * 3]
    assert cli.main([*imported, *size, "--labels", str(tmp_path / "labels.txt")]) == 0
    assert cli.main(["run", str(tmp_path / "again"), str(folder / "pictures/eval00.png"), "--json"]) == 0


@pytest.mark.build
@pytest.mark.xdist_group("things")
def test_broken_masks_stop_the_run_before_any_work(
    things: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = things
    tables = json.loads((folder / "things.json").read_text())
    tables["annotations"][2]["segmentation"]["counts"].append(5)
    (tmp_path / "things.json").write_text(json.dumps(tables))
    words = ["optimize", str(folder / "things.yaml"), "--out", str(tmp_path / "out"), "--cache", str(folder / "cache")]
    assert cli.main([*words, "--set", f"data.eval.path={tmp_path / 'things.json'}"]) == 2
    assert "annotations[2] (id 2): segmentation has counts that sum to 76805" in capsys.readouterr().err


@pytest.mark.build
@pytest.mark.xdist_group("things")
@pytest.mark.parametrize("tracked", [False, True])
def test_masks_in_the_camera_loop(things: Run, tmp_path: Path, tracked: bool) -> None:
    folder, _, _ = things
    seen: list[FrameResult] = []
    artifact = str(folder / "out/host-onnxruntime")
    finds: dict[str, Any] = {"detect": (artifact,), "track": "bytetrack"} if tracked else {"model": (artifact,)}
    spec = PipelineSpec(
        camera="synthetic:size=320x240,seed=5",
        sinks=(f"video={tmp_path / 'out.mp4'}",),
        policy="every",
        frames=12,
        threads=1,
        score=0.4,
        **finds,
    )
    with open_session(spec, on_result=seen.append) as session:
        session.start()
        assert session.wait(120)
    assert session.error is None
    assert len(seen) == 12
    results = [item.result for item in seen if len(item.result)]
    assert len(results) > 6
    for result in results:
        assert isinstance(result, Detections)
        assert len(result.masks) == len(result)
        assert (result.track_ids is not None) == tracked
    assert (tmp_path / "out.mp4").stat().st_size > 1000


@pytest.mark.build
@pytest.mark.xdist_group("things")
def test_the_overlay_lies_on_the_objects(things: Run) -> None:
    folder, _, _ = things
    frame = Scene(SceneSpec(seed=6001, objects=5)).at(3.0)
    with load_artifact(folder / "out/host-onnxruntime") as model:
        found = model.predict(frame.image)
    assert isinstance(found, Detections)
    found = found.select(found.scores > 0.4)
    drawn = picture_of(frame.image, found)
    changed = (drawn != frame.image).any(axis=2)
    covered = np.any([mask.full() for mask in found.masks], axis=0)
    assert changed[covered].mean() > 0.95
    assert (frame.shapes[covered] > 0).mean() > 0.9, "masks lie on what is there"
