"""The whole line for monocular depth: made-up scenes in, an int8 network out, proven, evaluated and in the loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from edgecv import cli
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.runtime.load import load_artifact
from tests.lines import ENGINES, Line, check_line, loop_lines, run_line


def scenes(split: str, limit: int) -> dict[str, Any]:
    return {"kind": "scenes-depth", "split": split, "limit": limit}


@pytest.fixture(scope="module")
def line(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The shipped network, pruned and tuned a little."""
    shipped = yaml.safe_load((root / "recipes/depth/scenes-depth.yaml").read_text(encoding="utf-8"))
    weights = str(root / "recipes/depth" / shipped["model"]["weights"])
    recipe = {
        "model": {**shipped["model"], "weights": weights},
        "family": shipped["family"],
        "data": {
            "train": scenes("train", 40),
            "eval": scenes("test", 40),
            "calibration": {"source": scenes("train", 24), "samples": 24},
        },
        "steps": [
            {"prune": {"importance": "magnitude", "ratio": 0.1, "round_to": 2, "repair": False}},
            {"finetune": {"epochs": 3, "lr": 2e-3, "batch_size": 8}},
            {"quantize": {"method": "ptq", "scheme": "portable"}},
        ],
        "budgets": {"accuracy": {"metric": "delta1", "min": 0.8}},
    }
    return run_line(tmp_path_factory.mktemp("depth"), recipe)


@pytest.mark.build
@pytest.mark.xdist_group("depth")
def test_a_depth_network_goes_through_every_step(line: Line) -> None:
    """The weights beside the recipe reach what it says of them; pruned, tuned and in int8 little of that is lost."""
    assert line.code == 0, line.report.outcome
    check_line(line)
    for target in ENGINES:
        figures = line.made(target).accuracy
        assert figures is not None
        assert (figures.metric, figures.samples) == ("delta1", 40)
        plain = next(item for item in line.report.artifacts if item.target == target and item.role == "float").accuracy
        assert plain is not None
        assert plain.value >= 0.9
        assert plain.extras["abs_rel"] < 0.15
        assert figures.value >= plain.value - 0.05
        assert figures.extras["abs_rel"] <= 1.3 * plain.extras["abs_rel"]


@pytest.mark.build
@pytest.mark.xdist_group("depth")
def test_engines_agree_on_metres(line: Line) -> None:
    reader = open_reader(DataSpec(**scenes("test", 2)), base=line.folder, labels=())
    maps = []
    for target in ENGINES:
        with load_artifact(line.folder / "out" / target) as model:
            maps.append(model.predict(reader[0].image).values)
    for other in maps[1:]:
        assert np.median(np.abs(other / maps[0] - 1)) < 0.01


@pytest.mark.build
@pytest.mark.xdist_group("depth")
def test_eval_verify_and_run_by_command(line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = str(line.folder / "out/host-onnxruntime")
    capsys.readouterr()
    assert cli.main(["eval", artifact, "--json", "--data", "scenes-depth:test,limit=40"]) == 0
    figures = json.loads(capsys.readouterr().out)
    told = line.made("host-onnxruntime").accuracy
    assert told is not None
    assert figures["value"] == pytest.approx(told.value)
    assert cli.main(["verify", artifact]) == 0
    reader = open_reader(DataSpec(**scenes("test", 1)), base=tmp_path, labels=())
    picture = tmp_path / "scene.png"
    cv2.imwrite(str(picture), reader[0].image)
    capsys.readouterr()
    assert cli.main(["run", artifact, str(picture), "--json", "--save", str(tmp_path / "drawn")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["size"] == list(reader[0].image.shape[:2])
    drawn = cv2.imread(str(tmp_path / "drawn/scene.png"))
    assert drawn is not None
    assert np.abs(drawn.astype(int) - reader[0].image).mean() > 10, "nothing is painted"


@pytest.mark.build
@pytest.mark.xdist_group("depth")
def test_the_loop_tells_how_far_things_are(line: Line) -> None:
    for target in ENGINES:
        said = loop_lines(line, target)
        assert len(said) == 4
        for one in said:
            assert one["unit"] == "m"
            assert 0.5 <= one["low"] < one["high"] <= 20.0
