"""The whole line for text: a csv of printed lines in; a network that reads them out, pruned, in int8, in the loop."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgecv
from edgecv import cli
from edgecv.core.results import Detections
from edgecv.families.text import Text
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from edgecv.runtime.second import open_second
from edgecv.runtime.spec import SecondStage
from edgecv.vision.draw import draw

from .print_lines import write_lines

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("print")]

RUN_HERE = ("host-onnxruntime", "host-openvino", "host-litert")
RECIPE = """\
recipe: 1
name: print
model:
  source: python:edgecv.models.reference_text:ctc_cnn
  options: {num_classes: 11, width: 10}
  input: {size: [32, 96], color: gray, mean: [0.5], std: [0.5], resize: stretch}
family: {kind: text, labels: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]}
data:
  train: {kind: text, path: train/labels.csv}
  eval: {kind: text, path: test/labels.csv}
  calibration: {source: {kind: text, path: train/labels.csv}, samples: 24, select: random}
steps:
  - prune: {ratio: 0.15, round_to: 2}
  - finetune: {epochs: 22, lr: 5.0e-3, optimizer: adamw, batch_size: 32}
  - quantize: {method: ptq}
targets: [host-onnxruntime, host-openvino, host-litert]
budgets: {accuracy: {metric: exact, min: 0.7}}
measure: {protocol: smoke}
"""


@dataclass(frozen=True)
class Run:
    """A finished run, and the test pictures' texts by file."""

    folder: Path
    code: int
    report: Report
    truths: dict[str, str]

    def artifact(self, target: str) -> Path:
        return self.folder / "out" / target

    def figures(self, target: str) -> ArtifactFigures:
        return next(item for item in self.report.artifacts if item.target == target and item.role == "optimized")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that was pruned, taught to read, and compiled in int8."""
    folder = tmp_path_factory.mktemp("print")
    write_lines(folder / "train", 900, seed=1)
    write_lines(folder / "test", 80, seed=2)
    (folder / "print.yaml").write_text(RECIPE)
    words = ["optimize", str(folder / "print.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    with (folder / "test/labels.csv").open(encoding="utf-8") as stream:
        truths = {row["file"]: row["text"] for row in csv.DictReader(stream)}
    return Run(folder, code, read_report(folder / "out"), truths)


def test_it_learns_to_read_and_keeps_it_on_every_engine(printed: Run) -> None:
    assert printed.code == 0, printed.report.outcome
    effects = {step.kind: step.effect for step in printed.report.steps}
    assert float(effects["prune"]["parameters_after"]) < float(effects["prune"]["parameters_before"])
    for target in RUN_HERE:
        figures = printed.figures(target)
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("exact", 80)
        assert figures.accuracy.value >= 0.8
        assert figures.accuracy.extras["cer"] < 0.08
        assert figures.ladder is not None
        assert figures.ladder.first_broken is None


def test_the_engines_read_the_same(printed: Run) -> None:
    images = [cv2.imread(str(printed.folder / "test" / name), cv2.IMREAD_GRAYSCALE) for name in printed.truths]
    answers = []
    for target in RUN_HERE:
        with load_artifact(printed.artifact(target)) as model:
            answers.append([model.predict(image).text for image in images if image is not None])
    assert len(answers[0]) == 80
    for other in answers[1:]:
        assert np.mean([one == two for one, two in zip(answers[0], other, strict=True)]) >= 0.95


def test_verify_eval_and_run(printed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, data = str(printed.artifact("host-litert")), f"text:{printed.folder / 'test/labels.csv'}"
    assert cli.main(["verify", artifact]) == 0
    assert "pass: decoded results" in capsys.readouterr().out
    assert cli.main(["eval", artifact, "--data", data, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = printed.figures("host-litert").accuracy
    assert expected is not None
    assert (found["metric"], found["value"]) == ("exact", expected.value)
    right = 0
    for name in list(printed.truths)[:5]:
        assert cli.main(["run", artifact, str(printed.folder / "test" / name), "--json"]) == 0
        right += json.loads(capsys.readouterr().out)["text"] == printed.truths[name]
    assert right >= 3


def test_broken_data_are_named(printed: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.csv").write_text("file,text\n0.png,12\n1.png,1x\n")
    assert cli.main(["eval", str(printed.artifact("host-litert")), "--data", f"text:{tmp_path / 'labels.csv'}"]) == 2
    assert "'x' (U+0078) is no label: labels.csv:3" in capsys.readouterr().err


def test_a_file_of_ones_own_is_imported(printed: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = printed.artifact("host-onnxruntime") / "model.onnx"
    (tmp_path / "digits.txt").write_text("\n".join("0123456789"))
    look = ["--size", "32", "96", "--family", "text", "--color", "gray", "--mean", "0.5", "--std", "0.5"]
    words = ["import", str(onnx), "--out", str(tmp_path / "own"), "--labels", str(tmp_path / "digits.txt"), *look]
    assert cli.main(words) == 0, capsys.readouterr().err
    capsys.readouterr()
    data = f"text:{printed.folder / 'test/labels.csv'}"
    assert cli.main(["eval", str(tmp_path / "own"), "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] >= 0.8


def test_in_the_camera_loop(printed: Run, tmp_path: Path) -> None:
    texts = [
        item.result.text
        for item in edgecv.run(model=str(printed.artifact("host-openvino")), camera=str(printed.folder / "test"))
    ]
    right = [one == two for one, two in zip(texts, printed.truths.values(), strict=True)]
    assert np.mean(right) >= 0.8


def test_as_a_second_stage_it_reads_what_a_detector_found(printed: Run) -> None:
    """The box is cut out as it is: widened as for other families, its neighbours would stand in the picture too."""
    names = list(printed.truths)[:12]
    frame = np.full((480, 640, 3), 200, np.uint8)
    boxes = []
    for number, name in enumerate(names):
        left, top = 40 + (number % 3) * 190, 20 + (number // 3) * 100
        picture: Any = cv2.imread(str(printed.folder / "test" / name))
        frame[top : top + 32, left : left + 96] = picture
        boxes.append([left, top, left + 96, top + 32])
    count = len(boxes)
    found = Detections(
        np.array(boxes, np.float32), np.full(count, 0.9, np.float32), np.zeros(count, np.int64), ("line",)
    )
    stage = open_second(SecondStage(str(printed.artifact("host-onnxruntime")), max_objects=count), ("line",), threads=1)
    try:
        read = stage.apply(frame, found)
    finally:
        stage.close()
    assert all(isinstance(answer, Text) for answer in read.second)
    right = [answer.text == printed.truths[name] for answer, name in zip(read.second, names, strict=True)]
    assert sum(right) >= 9
    assert read.to_dict()["objects"][0]["second"]["text"] == read.second[0].text
    shown, bare = frame.copy(), frame.copy()
    draw(shown, read)
    draw(bare, found)
    beside = slice(boxes[3][1] - 14, boxes[3][1] - 3), slice(boxes[3][0] + 60, boxes[3][0] + 100)
    assert (shown[beside] != bare[beside]).any(), "the text stands beside the name"
