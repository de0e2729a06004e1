"""The whole line for depth: made-up scenes in, a pruned int8 network out, proven, judged and in the loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from edgecv import cli
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.families import depth
from edgecv.models.load import load_model
from edgecv.recipe.load import load_recipe
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from edgecv.vision.image import preprocess
from tests.lines import ENGINES, Line, check_line, loop_lines, run_line

RECIPE = "recipes/depth/scenes-depth.yaml"
JUDGED = 12


def scenes(split: str, limit: int) -> dict[str, Any]:
    return {"kind": "scenes-depth", "split": split, "limit": limit}


@pytest.fixture(scope="module")
def line(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The ready recipe with its own weights, pruned harder and on fewer scenes."""
    recipe = yaml.safe_load((root / RECIPE).read_text(encoding="utf-8"))
    recipe["model"]["weights"] = str(root / "recipes/depth" / recipe["model"]["weights"])
    recipe["data"] = {
        "train": scenes("train", 48),
        "eval": scenes("test", JUDGED),
        "calibration": {"source": scenes("train", 12), "samples": 12, "select": "random"},
    }
    recipe["steps"] = [
        {"prune": {"importance": "magnitude", "ratio": 0.125, "round_to": 4, "repair": False}},
        {"finetune": {"epochs": 3, "lr": 2.0e-3, "batch_size": 8}},
        {"quantize": {"method": "ptq", "scheme": "portable"}},
    ]
    recipe["budgets"] = {"accuracy": {"metric": "delta1", "min": 0.3}}
    del recipe["targets"]
    return run_line(tmp_path_factory.mktemp("depth"), recipe)


@pytest.mark.build
@pytest.mark.xdist_group("depth")
def test_a_depth_network_goes_through_every_step(line: Line) -> None:
    check_line(line)
    assert line.code == 0, line.report.outcome
    for target in ENGINES:
        made = line.made(target)
        assert made.accuracy is not None
        assert (made.accuracy.metric, made.accuracy.samples) == ("delta1", JUDGED)
        assert made.accuracy.value > 0.75, "pruning, tuning or int8 costs more than the shipped network can lose"
        assert set(made.accuracy.extras) == {"abs_rel", "rmse_m"}
        assert made.ladder is not None
        assert made.ladder.first_broken is None


@pytest.mark.build
@pytest.mark.xdist_group("depth")
@pytest.mark.parametrize(
    ("budget", "code", "outcomes"),
    [
        ({"metric": "abs_rel", "max": 0.5}, 0, {"pass"}),
        ({"metric": "abs_rel", "max": 0.001}, 3, {"fail"}),
        ({"metric": "rmse_m", "max_drop": 90}, 0, {"pass"}),
    ],
    ids=["below its highest", "above it", "grown by less than allowed"],
)
def test_errors_are_budgets_too(
    line: Line, tmp_path: Path, budget: dict[str, Any], code: int, outcomes: set[str]
) -> None:
    """The same files, judged anew: what was built comes out of the store."""
    words = ["optimize", str(line.folder / "line.yaml"), "--out", str(tmp_path / "out")]
    words += ["--cache", str(line.folder / "cache"), "--set", f"budgets.accuracy={json.dumps(budget)}"]
    assert cli.main([*words, "--set", "targets=[host-onnxruntime]"]) == code
    (made,) = [item for item in read_report(tmp_path / "out").artifacts if item.role == "optimized"]
    assert {verdict.outcome for verdict in made.verdicts if verdict.budget.startswith("accuracy")} == outcomes
    assert made.accuracy is not None
    assert made.accuracy.metric == budget["metric"]
    assert "delta1" in made.accuracy.extras
    before = next(item.accuracy for item in read_report(tmp_path / "out").artifacts if item.role == "float")
    assert before is not None
    assert made.drop is not None
    assert made.drop.drop == pytest.approx(made.accuracy.value - before.value)
    assert made.ladder is not None
    assert made.ladder.first_broken is None


@pytest.mark.build
@pytest.mark.xdist_group("depth")
def test_the_engines_see_the_same_distances(line: Line, tmp_path: Path) -> None:
    sample = open_reader(DataSpec("scenes-depth", split="test", limit=1), base=tmp_path, labels=("depth",))[0]
    maps = []
    for target in ENGINES:
        with load_artifact(line.folder / "out" / target) as model:
            maps.append(model.predict(sample.image))
        assert maps[-1].values.shape == sample.image.shape[:2]
        assert maps[-1].likeness(maps[0]) > 0.99
    near, far = sample.truth.metres < 5.0, sample.truth.metres > 9.0
    assert np.median(maps[0].values[near]) < np.median(maps[0].values[far])


@pytest.mark.build
@pytest.mark.xdist_group("depth")
def test_eval_verify_and_run_by_command(line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = str(line.folder / "out/host-onnxruntime")
    capsys.readouterr()
    assert cli.main(["eval", artifact, "--json", "--data", "scenes-depth:test", "--limit", str(JUDGED)]) == 0
    figures = json.loads(capsys.readouterr().out)
    accuracy = line.made("host-onnxruntime").accuracy
    assert accuracy is not None
    assert figures["value"] == pytest.approx(accuracy.value)
    assert figures["extras"]["abs_rel"] == pytest.approx(accuracy.extras["abs_rel"])
    assert cli.main(["verify", artifact]) == 0
    image = open_reader(DataSpec("scenes-depth", split="test", limit=1), base=tmp_path, labels=("depth",))[0].image
    cv2.imwrite(str(tmp_path / "scene.png"), image)
    capsys.readouterr()
    assert cli.main(["run", artifact, str(tmp_path / "scene.png"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["size"], told["unit"]) == ([240, 320], "m")
    assert 0.5 <= told["low"] < told["high"] <= 20.0


@pytest.mark.build
@pytest.mark.xdist_group("depth")
def test_the_loop_paints_the_distances(line: Line) -> None:
    said = loop_lines(line)
    assert len(said) == 4
    assert all('"unit": "m"' in json.dumps(item) for item in said)
    video = cv2.VideoCapture(str(line.folder / "host-onnxruntime.mp4"))
    done, frame = video.read()
    assert done
    # Seven tenths of each pixel are the colours of the distances, which are strong everywhere.
    assert (frame.max(axis=2).astype(int) - frame.min(axis=2)).mean() > 60


@pytest.mark.build
def test_the_shipped_weights_know_the_distances(root: Path) -> None:
    """As the recipe's head states it for all 250 scenes."""
    loaded = load_recipe(root / RECIPE)
    recipe = loaded.recipe
    module = load_model(recipe.model, family=recipe.family, base=loaded.base, cache=Path(), seed=0).eval()
    reader = open_reader(DataSpec("scenes-depth", split="test", limit=100), base=root, labels=("depth",))
    metric = depth.metric(recipe.family, "delta1")
    for sample in (reader[index] for index in range(len(reader))):
        with torch.no_grad():
            logs = module(torch.from_numpy(preprocess(sample.image, recipe.model.input)[None])).numpy()
        size = (sample.image.shape[0], sample.image.shape[1])
        metric.update(depth.decode([logs], recipe.family, recipe.model.input, picture=size), sample.truth)
    figures = metric.compute()
    assert figures.value >= 0.9
    assert figures.extras["abs_rel"] < 0.1
    assert figures.extras["rmse_m"] < 1.0
