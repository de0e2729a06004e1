"""The whole line for inspection: good pictures in, an int8 network out that tells defects, proven and in the loop."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact

RECIPE = """\
recipe: 1
name: plates
model:
  source: python:edgecv.models.reference_anomaly:patchcore
  options: {levels: 2, layers: ["0", "1"], width: 16, bank: 64, patches: 4000}
  input: {size: [64, 64], resize: stretch}
family: {kind: anomaly, labels: [defect], score_threshold: 0.5}
data:
  train: {kind: anomaly, path: train}
  eval: {kind: anomaly, path: test, truth: ground_truth}
  calibration: {source: {kind: images, path: train/good}, samples: 16}
steps:
  - fit: {samples: 32, quantile: 1.0}
  - prune: {importance: magnitude, ratio: 0.2, round_to: 4}
  - fit: {samples: 32, quantile: 1.0}
  - quantize: {method: ptq, scheme: portable, keep_float: ["memory*"]}
targets: [host-onnxruntime, host-openvino, host-litert, iphone-15]
budgets: {accuracy: {metric: auroc, min: 0.6}}
measure: {protocol: smoke}
"""
ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")


def write_pictures(folder: Path) -> None:
    """Metal surfaces laid out as MVTec AD is; the defects of kind color have no masks."""
    for split, place, limit in (("train", "train", 32), ("test", "test", 40)):
        spec = DataSpec("textures", split=split, only="metal", limit=limit)  # type: ignore[arg-type]
        for sample in open_reader(spec, base=folder, labels=()):
            _, kind, name = sample.id.split("/")
            for top in (place, "ground_truth"):
                (folder / top / kind).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / place / kind / f"{name}.png"), sample.image)
            if sample.truth.defect and kind != "color":
                mask = sample.truth.mask * np.uint8(255)
                assert cv2.imwrite(str(folder / "ground_truth" / kind / f"{name}_mask.png"), mask)
    (folder / "ground_truth/color").rmdir()
    (folder / "test/good/broken.png").write_bytes(b"no picture")


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Report]:
    """A finished run: its folder, exit code and report."""
    folder = tmp_path_factory.mktemp("plates")
    write_pictures(folder)
    (folder / "plates.yaml").write_text(RECIPE)
    words = ["optimize", str(folder / "plates.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder, code, read_report(folder / "out")


def optimized(report: Report, target: str) -> ArtifactFigures:
    return next(item for item in report.artifacts if item.target == target and item.role == "optimized")


@pytest.mark.build
@pytest.mark.xdist_group("plates")
def test_the_report_tells_once_how_the_pictures_were_understood(plates: tuple[Path, int, Report]) -> None:
    folder, _, report = plates
    told = [note for note in report.notes if note.startswith("evaluation data: ")]
    assert len(told) == 2, report.notes
    assert "no masks for color: judged by whole pictures only" in told[0]
    assert "1 of 41 samples left out. good/broken.png: " in told[1]
    again = folder / "again"
    words = ["optimize", str(folder / "plates.yaml"), "--out", str(again), "--cache", str(folder / "cache")]
    cli.main(words)
    assert [note for note in read_report(again).notes if note.startswith("evaluation data: ")] == told, "from the cache"


@pytest.mark.build
@pytest.mark.xdist_group("plates")
def test_an_inspector_goes_through_every_step(plates: tuple[Path, int, Report]) -> None:
    folder, code, report = plates
    assert code == 0, report.outcome
    kinds = [step.kind for step in report.steps]
    assert kinds[:7] == ["load", "fit", "export", "prune", "fit", "quantize", "export"], (
        "the fitted network is exported"
    )
    effects = [step.effect for step in report.steps if step.kind == "fit"]
    assert all(effect["pictures"] == 24 and effect["held_out"] == 8 for effect in effects)
    assert float(next(step.effect["macs_after"] for step in report.steps if step.kind == "prune")) > 0
    assert optimized(report, "iphone-15").error == ""
    before = next(item for item in report.artifacts if item.target == ENGINES[0] and item.role == "float")
    assert before.accuracy is not None
    assert before.accuracy.value > 0.8, "the original network is the fitted one"
    for target in ENGINES:
        figures = optimized(report, target)
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("auroc", 40)
        assert figures.accuracy.interval is not None
        assert {"pixel_auroc", "pro", "false_alarms", "missed"} <= set(figures.accuracy.extras)
        assert figures.ladder is not None
        assert figures.ladder.first_broken is None
        manifest = read_manifest(folder / "out" / target)
        assert manifest.precision == "int8"
        assert manifest.family.score_threshold == 0.5


@pytest.mark.build
@pytest.mark.xdist_group("plates")
def test_the_engines_find_the_same_and_the_commands_say_so(
    plates: tuple[Path, int, Report], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, report = plates
    picture = next((folder / "test/hole").iterdir())
    image = cv2.imread(str(picture))
    mask = cv2.imread(str(folder / "ground_truth/hole" / f"{picture.stem}_mask.png"), cv2.IMREAD_UNCHANGED)
    maps = []
    for target in ENGINES:
        with load_artifact(folder / "out" / target) as model:
            maps.append(model.predict(image))
    assert all(found.verdict == "defect" for found in maps)
    assert maps[0].values.shape == image.shape[:2]
    assert np.abs(maps[0].values - maps[1].values).max() < 0.1 * maps[0].score
    column, row = maps[0].peak
    assert cv2.dilate(mask, np.ones((17, 17), np.uint8))[row, column] > 0
    artifact = str(folder / "out/host-onnxruntime")
    capsys.readouterr()
    data = f"anomaly:{folder / 'test'},truth={folder / 'ground_truth'}"
    assert cli.main(["eval", artifact, "--json", "--data", data]) == 0
    accuracy = optimized(report, "host-onnxruntime").accuracy
    assert accuracy is not None
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(accuracy.value)
    assert cli.main(["verify", artifact]) == 0
    capsys.readouterr()
    assert cli.main(["run", artifact, str(picture), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "defect"


@pytest.mark.build
@pytest.mark.xdist_group("plates")
def test_the_loop_marks_the_defect(
    plates: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = plates
    words = ["run", "--model", str(folder / "out/host-onnxruntime"), "--camera", str(folder / "test/hole"), "--quiet"]
    words += ["--policy", "every", "--sink", f"jsonl={tmp_path / 'out.jsonl'}", "--sink", f"video={tmp_path / 'o.mp4'}"]
    assert cli.main(words) == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert all("verdict" in json.dumps(line) for line in lines)
    video = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    done, frame = video.read()
    assert done
    assert frame.shape == (128, 128, 3)
    edge = frame[0:2, 30:100].reshape(-1, 3).mean(axis=0)
    assert edge[2] > edge[1] + 60, "a red frame says defect"


@pytest.mark.build
@pytest.mark.xdist_group("plates")
def test_broken_sets_end_with_2(
    plates: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = plates
    words = [
        "optimize",
        str(folder / "plates.yaml"),
        "--out",
        str(tmp_path / "out"),
        "--cache",
        str(tmp_path / "cache"),
    ]
    assert cli.main([*words, "--set", "data.eval.path=ground_truth"]) == 2
    assert "has no picture; good pictures are needed" in capsys.readouterr().err
