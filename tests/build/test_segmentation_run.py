"""The whole line for segmentation: pictures and masks in, an int8 U-Net out, proven, evaluated and in the loop."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact

RECIPE = """\
recipe: 1
name: blobs
model:
  source: python:edgecv.models.reference_segmentation:unet
  options: {width: 8, levels: 2}
  input: {size: [48, 64], resize: letterbox}
family: {kind: segmentation, labels: [background, disc, block], options: {dice: 0.3}}
data:
  train: {kind: masks, path: train, truth: "masks/{stem}.png"}
  eval: {kind: masks, path: eval, truth: masks, ignore_index: 200}
  calibration: {source: {kind: images, path: train}, samples: 16}
steps:
  - finetune: {epochs: 10, lr: 1.0e-2, batch_size: 8, augment: crop-flip, validation: 0.1}
  - prune: {ratio: 0.25, round_to: 2}
  - finetune: {epochs: 4, lr: 3.0e-3, batch_size: 8, augment: crop-flip, validation: 0.1}
  - quantize: {method: ptq, scheme: portable}
targets: [host-onnxruntime, host-openvino, host-litert, iphone-15]
budgets: {accuracy: {min: 0.5}}
measure: {protocol: smoke}
"""
ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")


def write_pictures(folder: Path) -> None:
    """Discs and blocks on a darker ground with their masks; a border is not judged in those of the evaluation."""
    random = np.random.default_rng(1)
    for place in ("train", "eval", "masks"):
        (folder / place).mkdir()
    for number in range(60):
        judged = number >= 48
        image = cv2.resize(random.integers(0, 110, (6, 8, 3), dtype=np.uint8), (96, 64))
        mask = np.zeros((64, 96), np.uint8)
        for _ in range(2):
            x, y = int(random.integers(14, 82)), int(random.integers(14, 50))
            if random.random() < 0.5:
                cv2.circle(image, (x, y), 11, (60, 200, int(random.integers(190, 255))), -1)
                cv2.circle(mask, (x, y), 11, 1, -1)
            else:
                cv2.rectangle(image, (x - 10, y - 10), (x + 10, y + 10), (int(random.integers(190, 255)), 160, 60), -1)
                cv2.rectangle(mask, (x - 10, y - 10), (x + 10, y + 10), 2, -1)
        if judged:
            mask[:2] = 200
        name = f"{number:02d}.png"
        assert cv2.imwrite(str(folder / ("eval" if judged else "train") / name), image)
        assert cv2.imwrite(str(folder / "masks" / name), mask)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Report]:
    """A finished run: its folder, exit code and report."""
    folder = tmp_path_factory.mktemp("blobs")
    write_pictures(folder)
    (folder / "blobs.yaml").write_text(RECIPE)
    words = ["optimize", str(folder / "blobs.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder, code, read_report(folder / "out")


def optimized(report: Report, target: str) -> ArtifactFigures:
    return next(item for item in report.artifacts if item.target == target and item.role == "optimized")


@pytest.mark.build
@pytest.mark.xdist_group("blobs")
def test_a_segmenter_goes_through_every_step(blobs: tuple[Path, int, Report]) -> None:
    folder, code, report = blobs
    assert code == 0, report.outcome
    effects = [step.effect for step in report.steps if step.kind == "prune"]
    assert float(effects[0]["macs_after"]) < float(effects[0]["macs_before"])
    for target in ENGINES:
        figures = optimized(report, target)
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("miou", 12)
        assert figures.accuracy.value > 0.6, "training on masks teaches nothing"
        assert figures.accuracy.interval is not None
        assert figures.ladder is not None
        assert figures.ladder.first_broken is None
        assert read_manifest(folder / "out" / target).precision == "int8"


@pytest.mark.build
@pytest.mark.xdist_group("blobs")
def test_the_compiled_file_finds_the_pixels(blobs: tuple[Path, int, Report]) -> None:
    folder, _, _ = blobs
    image = cv2.imread(str(folder / "eval/50.png"))
    mask = cv2.imread(str(folder / "masks/50.png"), cv2.IMREAD_UNCHANGED)
    maps = []
    for target in ENGINES:
        with load_artifact(folder / "out" / target) as model:
            maps.append(model.predict(image).classes)
        assert maps[-1].shape == mask.shape
        assert (maps[-1] == mask)[2:].mean() > 0.85
    assert (maps[0] == maps[1]).mean() > 0.99


@pytest.mark.build
@pytest.mark.xdist_group("blobs")
def test_eval_verify_and_run_by_command(
    blobs: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, report = blobs
    artifact = str(folder / "out/host-onnxruntime")
    capsys.readouterr()
    data = f"masks:{folder / 'eval'},truth={folder / 'masks'},ignore_index=200"
    assert cli.main(["eval", artifact, "--json", "--data", data]) == 0
    figures = json.loads(capsys.readouterr().out)
    accuracy = optimized(report, "host-onnxruntime").accuracy
    assert accuracy is not None
    assert figures["value"] == pytest.approx(accuracy.value)
    assert cli.main(["verify", artifact]) == 0
    capsys.readouterr()
    assert cli.main(["run", artifact, str(folder / "eval/50.png"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["size"] == [64, 96]
    assert told["classes"][0]["label"] == "background"


@pytest.mark.build
@pytest.mark.xdist_group("blobs")
def test_the_loop_paints_what_it_finds(
    blobs: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = blobs
    words = ["run", "--model", str(folder / "out/host-onnxruntime"), "--camera", str(folder / "eval"), "--quiet"]
    words += ["--policy", "every", "--sink", f"jsonl={tmp_path / 'out.jsonl'}", "--sink", f"video={tmp_path / 'o.mp4'}"]
    assert cli.main(words) == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    assert all("classes" in json.dumps(line) for line in lines)
    video = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    done, frame = video.read()
    assert done
    plain = cv2.imread(str(folder / "eval/48.png"))
    assert frame.shape == plain.shape
    mask = cv2.imread(str(folder / "masks/48.png"), cv2.IMREAD_UNCHANGED)
    change = np.abs(frame.astype(int) - plain.astype(int)).mean(axis=2)
    assert change[mask > 0][:400].mean() > change[:30][mask[:30] == 0].mean() + 10


@pytest.mark.build
@pytest.mark.xdist_group("blobs")
def test_broken_masks_are_named(
    blobs: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = blobs
    words = ["optimize", str(folder / "blobs.yaml"), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert cli.main([*words, "--set", "data.eval.ignore_index=255", "--set", "data.eval.strict=true"]) == 2
    error = capsys.readouterr().err
    assert "masks/48.png: the mask holds 200; allowed are the classes 0..2 and 255" in error


@pytest.mark.build
@pytest.mark.xdist_group("blobs")
def test_zero_points_are_used_where_all_targets_take_them(blobs: tuple[Path, int, Report]) -> None:
    """The plan says so, and the build does so: what a ReLU gives has all 256 steps."""
    folder, _, _ = blobs
    made = json.loads((folder / "out/host-openvino/buildinfo.json").read_text())["quantization"]
    assert made["scheme"] == "affine"
    behind_relu = [item for item in made["tensors"] if item["kind"] == "activation" and "relu" in item["node"]]
    assert behind_relu
    assert {item["zero_point"] for item in behind_relu} == {-128}
