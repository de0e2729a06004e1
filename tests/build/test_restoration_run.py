"""The whole line for a picture-to-picture network: prune, fine-tune on pairs, int8, compile, prove, judge in dB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.runtime.load import load_artifact
from edgecv.vision.fidelity import psnr_db
from tests.lines import ENGINES, Line, check_line, loop_lines, run_line

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("twice")]

RECIPE: dict[str, Any] = {
    "name": "twice",
    "model": {
        "source": "python:edgecv.models.reference_restoration:imdn_rtc",
        "options": {"blocks": 1, "width": 16},
        "input": {"size": [24, 24]},
    },
    "family": {"kind": "restoration", "labels": ["picture"], "options": {"scale": 2, "overlap": 8}},
    "data": {
        "eval": {"kind": "pairs", "path": "eval/small", "truth": "eval/large"},
        "train": {"kind": "pairs", "path": "train/small", "truth": "train/large"},
        "calibration": {"source": {"kind": "images", "path": "calibration"}, "samples": 16},
    },
    "steps": [
        {"finetune": {"epochs": 2, "lr": 3.0e-3, "batch_size": 4}},
        {"prune": {"ratio": 0.5, "round_to": 2, "importance": "magnitude", "repair": False}},
        {"finetune": {"epochs": 2, "lr": 3.0e-3, "batch_size": 4}},
        {"quantize": {"method": "ptq", "scheme": "portable"}},
    ],
    "budgets": {"accuracy": {"metric": "psnr", "max_drop": 30, "min": 1}},
}


def write_pairs(folder: Path, count: int, *, seed: int) -> None:
    for part in ("small", "large"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        noise = np.random.default_rng(seed + index).integers(0, 256, (80, 104, 3), dtype=np.uint8)
        large = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
        cv2.imwrite(str(folder / f"large/{index}.png"), large)
        cv2.imwrite(str(folder / f"small/{index}.png"), cv2.resize(large, (52, 40), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp("twice")
    write_pairs(folder / "eval", 8, seed=0)
    write_pairs(folder / "train", 12, seed=100)
    write_pairs(folder / "more", 16, seed=200)
    (folder / "more/small").rename(folder / "calibration")
    return run_line(folder, RECIPE)


def test_a_network_that_enlarges_goes_to_every_engine(line: Line) -> None:
    assert line.code in (0, 4)  # 4: too few pictures to be sure of a few dB
    check_line(line)


@pytest.mark.parametrize("target", ENGINES)
def test_the_metric_is_in_db_on_whole_pictures(line: Line, target: str) -> None:
    item = line.made(target)
    assert item.error == ""
    assert item.accuracy is not None
    assert (item.accuracy.metric, item.accuracy.samples) == ("psnr", 8)
    assert {verdict.unit for verdict in item.verdicts if verdict.budget.startswith("accuracy.")} == {"dB"}
    assert item.ladder is not None
    assert item.ladder.first_broken is None


def test_the_artifacts_prove_themselves_and_enlarge_alike(line: Line) -> None:
    image = cv2.imread(str(line.folder / "eval/small/0.png"))
    made = []
    for target in ENGINES:
        folder = line.folder / "out" / target
        assert cli.main(["verify", str(folder)]) == 0
        with load_artifact(folder) as model:
            made.append(model.predict(image).picture)
        assert made[-1].shape == (80, 104, 3)
        assert psnr_db(made[-1].astype(np.float64), made[0].astype(np.float64)) > 40


def test_eval_says_what_the_report_says(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    item = line.made(ENGINES[0])
    data = f"pairs:{line.folder / 'eval/small'},truth={line.folder / 'eval/large'}"
    capsys.readouterr()
    assert cli.main(["eval", str(line.folder / "out" / item.target), "--data", data]) == 0
    assert item.accuracy is not None
    assert f"psnr {item.accuracy.value:.4f}" in capsys.readouterr().out


def test_the_loop_films_what_is_made(line: Line) -> None:
    assert len(loop_lines(line)) == 4
