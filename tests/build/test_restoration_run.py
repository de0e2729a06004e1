"""The whole line for a picture-to-picture network: prune, fine-tune on pairs, int8, compile, prove, judge in dB."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact

pytestmark = pytest.mark.build

RECIPE = """\
recipe: 1
name: twice
model:
  source: python:edgecv.models.reference_restoration:imdn_rtc
  options: {blocks: 1}
  input: {size: [24, 24]}
family: {kind: restoration, labels: [picture], options: {scale: 2, overlap: 8}}
data:
  eval: {kind: pairs, path: eval/small, truth: eval/large}
  train: {kind: pairs, path: train/small, truth: train/large}
  calibration: {source: {kind: images, path: calibration}, samples: 16}
steps:
  - finetune: {epochs: 2, lr: 3.0e-3, batch_size: 4}
  - quantize: {method: ptq}
targets: [host-onnxruntime]
budgets: {accuracy: {metric: psnr, max_drop: 30, min: 1}}
measure: {protocol: smoke}
"""


def write_pairs(folder: Path, count: int, *, seed: int) -> None:
    for part in ("small", "large"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        noise = np.random.default_rng(seed + index).integers(0, 256, (80, 104, 3), dtype=np.uint8)
        large = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
        cv2.imwrite(str(folder / f"large/{index}.png"), large)
        cv2.imwrite(str(folder / f"small/{index}.png"), cv2.resize(large, (52, 40), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twice")
    write_pairs(folder / "eval", 8, seed=0)
    write_pairs(folder / "train", 12, seed=100)
    write_pairs(folder / "more", 16, seed=200)
    (folder / "more/small").rename(folder / "calibration")
    (folder / "twice.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def report(place: Path) -> Report:
    words = ["optimize", str(place / "twice.yaml"), "--out", str(place / "out"), "--cache", str(place / "cache")]
    assert cli.main(words) in (0, 4)  # 4: too few pictures to be sure of a few dB
    return read_report(place / "out")


def optimized(report: Report) -> ArtifactFigures:
    return next(item for item in report.artifacts if item.role == "optimized")


def test_the_metric_is_in_db_on_whole_pictures(report: Report) -> None:
    item = optimized(report)
    assert item.error == ""
    assert item.accuracy is not None
    assert (item.accuracy.metric, item.accuracy.samples) == ("psnr", 8)
    assert {verdict.unit for verdict in item.verdicts if verdict.budget.startswith("accuracy.")} == {"dB"}
    assert item.ladder is not None
    assert item.ladder.first_broken is None


def test_the_artifact_proves_itself_and_enlarges(report: Report, place: Path) -> None:
    folder = place / "out" / optimized(report).target
    assert cli.main(["verify", str(folder)]) == 0
    image = cv2.imread(str(place / "eval/small/0.png"))
    with load_artifact(folder) as model:
        assert model.predict(image).picture.shape == (80, 104, 3)


def test_eval_says_what_the_report_says(report: Report, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = optimized(report)
    data = f"pairs:{place / 'eval/small'},truth={place / 'eval/large'}"
    assert cli.main(["eval", str(place / "out" / item.target), "--data", data]) == 0
    assert item.accuracy is not None
    assert f"psnr {item.accuracy.value:.4f}" in capsys.readouterr().out
