"""The whole line for text on pages: the two shipped recipes, shortened, and both artifacts together in the loop."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgecv
from edgecv import cli
from edgecv.data.printed import _page
from edgecv.families.text import Text
from edgecv.families.textdet_result import TextRegions, TextTruth, pairs
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from edgecv.vision.draw import draw

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("pages")]

RUN_HERE = ("host-onnxruntime", "host-openvino", "host-litert")
PAGES = 12
FIRST = 400
"""The recipes do not look at the pages from here on."""


@dataclass(frozen=True)
class Run:
    """A finished run of a shipped recipe."""

    folder: Path
    code: int
    report: Report

    def artifact(self, target: str) -> str:
        return str(self.folder / target)

    def figures(self, target: str) -> ArtifactFigures:
        return next(item for item in self.report.artifacts if item.target == target and item.role == "optimized")


def run_recipe(name: str, root: Path, folder: Path, *, train: int, samples: int) -> Run:
    """The recipe on fewer samples, pruned but hardly trained again."""
    short = [
        f"data.train.limit={train}",
        f"data.eval.limit={samples}",
        "data.calibration.source.limit=32",
        "data.calibration.samples=32",
        "steps.1.finetune.epochs=1",
        "measure.protocol=smoke",
        "budgets.accuracy.max_drop=0.08",
        f"targets=[{', '.join(RUN_HERE)}]",
    ]
    words = ["optimize", str(root / f"recipes/text/{name}.yaml"), "--out", str(folder / "out")]
    words += ["--cache", str(folder / "cache")]
    for item in short:
        words += ["--set", item]
    code = cli.main(words)
    return Run(folder / "out", code, read_report(folder / "out"))


@pytest.fixture(scope="module")
def finder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that finds words."""
    return run_recipe("scenes-textdet", root, tmp_path_factory.mktemp("finder"), train=64, samples=40)


@pytest.fixture(scope="module")
def reader(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that reads them."""
    return run_recipe("scenes-words", root, tmp_path_factory.mktemp("reader"), train=320, samples=120)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TextTruth]]:
    """Pictures of pages that no recipe has seen, and their words."""
    folder, truths = tmp_path_factory.mktemp("pages"), []
    for number in range(PAGES):
        image, truth = _page(f"test-{FIRST + number:05d}")
        cv2.imwrite(str(folder / f"{number:02d}.png"), image)
        truths.append(truth)
    return folder, truths


def test_words_are_found_on_every_engine(finder: Run) -> None:
    assert finder.code == 0, finder.report.outcome
    for target in RUN_HERE:
        figures = finder.figures(target)
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("hmean", 40)
        assert figures.accuracy.value >= 0.75
        assert set(figures.accuracy.extras) == {"precision", "recall"}
        assert figures.ladder is not None
        assert figures.ladder.first_broken is None


def test_words_are_read_on_every_engine(reader: Run) -> None:
    assert reader.code == 0, reader.report.outcome
    for target in RUN_HERE:
        figures = reader.figures(target)
        assert figures.accuracy is not None
        assert (figures.accuracy.metric, figures.accuracy.samples) == ("exact", 120)
        assert figures.accuracy.value >= 0.85


def test_the_engines_find_the_same(finder: Run, pages: tuple[Path, list[TextTruth]]) -> None:
    images = [cv2.imread(str(path)) for path in sorted(pages[0].glob("*.png"))]
    answers: list[list[TextRegions]] = []
    for target in RUN_HERE:
        with load_artifact(finder.artifact(target)) as model:
            answers.append([model.predict(image) for image in images if image is not None])
    assert len(answers[0]) == PAGES
    for other in answers[1:]:
        assert np.mean([one.likeness(two) for one, two in zip(answers[0], other, strict=True)]) >= 0.9


def test_a_page_is_read_in_the_loop(finder: Run, reader: Run, pages: tuple[Path, list[TextTruth]]) -> None:
    """Page to strings: found by one artifact, cut out upright, read by the other."""
    folder, truths = pages
    results = [
        item.result
        for item in edgecv.run(
            detect=finder.artifact("host-openvino"), second=reader.artifact("host-onnxruntime"), camera=str(folder)
        )
    ]
    assert len(results) == PAGES
    found, right, total = 0, 0, 0
    for result, truth in zip(results, truths, strict=True):
        assert isinstance(result, TextRegions)
        assert all(isinstance(answer, Text) for answer in result.second)
        wanted = [row for row, mark in enumerate(truth.ignored) if not mark]
        partners = pairs([np.array(truth.polygons[row], np.float32) for row in wanted], result.polygons)
        total += len(wanted)
        found += len(partners)
        right += sum(result.second[partner].text == truth.texts[wanted[row]] for row, partner in partners)
        assert sorted(row for line in result.lines for row in line.rows) == list(range(len(result)))
        assert bool(result.to_dict().get("text")) == any(answer.text for answer in result.second)
    assert total > 50
    assert right / found >= 0.75
    assert right / total >= 0.65
    image = cv2.imread(str(folder / "00.png"))
    assert image is not None
    shown = image.copy()
    draw(shown, results[0])
    assert (shown != image).any()


def test_verify_eval_and_run(
    finder: Run, reader: Run, pages: tuple[Path, list[TextTruth]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = finder.artifact("host-litert")
    assert cli.main(["verify", artifact]) == 0
    assert "pass: decoded results" in capsys.readouterr().out
    assert cli.main(["eval", artifact, "--data", "scenes-text:", "--limit", "40", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = finder.figures("host-litert").accuracy
    assert expected is not None
    assert (found["metric"], found["value"]) == ("hmean", expected.value)
    page = str(sorted(pages[0].glob("*.png"))[0])
    assert cli.main(["run", artifact, page, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["regions"]) >= 1
    words = ["run", "--detect", artifact, "--second", reader.artifact("host-litert"), "--camera", str(pages[0])]
    out = tmp_path / "found.jsonl"
    assert cli.main([*words, "--sink", f"jsonl={out}", "--frames", "2", "--quiet"]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) >= 2
    assert "second" in json.dumps(lines)


def test_text_is_not_followed(finder: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--detect", finder.artifact("host-litert"), "--track", "sort", "--camera", "synthetic:"]
    assert cli.main([*words, "--frames", "1"]) == 2
    assert "no objects that can be followed" in capsys.readouterr().err


def test_broken_data_are_named(finder: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    bad = {"data_list": [{"img_path": "a.png", "instances": [{"polygon": [1, 2, 3]}]}]}
    (tmp_path / "t.json").write_text(json.dumps(bad))
    assert cli.main(["eval", finder.artifact("host-litert"), "--data", f"textdet:{tmp_path / 't.json'}"]) == 2
    said = capsys.readouterr().err
    assert "has 3 numbers" in said
    assert "t.json" in said


def test_a_file_of_ones_own_is_imported(finder: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = str(Path(finder.artifact("host-onnxruntime")) / "model.onnx")
    look = ["--size", "192", "256", "--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25"]
    head = ["--family", "text-detection", "--head", "db", "--option", "shrink=0.6"]
    assert cli.main(["import", onnx, "--out", str(tmp_path / "own"), *head, *look]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert cli.main(["eval", str(tmp_path / "own"), "--data", "scenes-text:", "--limit", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] >= 0.7
