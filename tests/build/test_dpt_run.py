"""Transformers and backbones for depth through the whole line: a small DPT, whose answer is relative inverse depth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgecv import cli
from edgecv.runtime.load import load_artifact
from edgecv.vision.scenes import Scene, SceneSpec
from tests.lines import ENGINES, Line, check_line, loop_lines, run_line
from tests.networks import SMALL_DPT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("dpt")]


def scenes(split: str, limit: int) -> dict[str, Any]:
    return {"kind": "scenes-depth", "split": split, "limit": limit}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    recipe = {
        "model": {
            "source": "transformers:DPTForDepthEstimation",
            "input": {"size": [64, 64], "resize": "stretch", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
            "options": SMALL_DPT,
        },
        "family": {"kind": "depth", "labels": ["depth"], "head": "relative", "options": {"min_m": 0.5, "max_m": 20.0}},
        "data": {
            "train": scenes("train", 24),
            "eval": scenes("test", 6),
            "calibration": {"source": scenes("train", 8), "samples": 8},
        },
        "steps": [
            {"prune": {"ratio": 0.25, "round_to": 4}},
            {"finetune": {"epochs": 2, "batch_size": 4}},
            {"quantize": {"method": "ptq", "scheme": "portable"}},
        ],
    }
    return run_line(tmp_path_factory.mktemp("dpt"), recipe)


def test_a_dpt_goes_to_every_engine(line: Line) -> None:
    check_line(line)
    for target in ENGINES:
        accuracy = line.made(target).accuracy
        assert accuracy is not None
        assert accuracy.metric == "delta1"
        assert {"abs_rel", "rmse_m"} <= set(accuracy.extras)


def test_its_answer_is_relative_and_alike_on_every_engine(line: Line) -> None:
    image, maps = Scene(SceneSpec(haze=True)).frame(30).image, []
    for target in ENGINES:
        with load_artifact(line.folder / "out" / target) as model:
            maps.append(model.predict(image))
        assert not maps[-1].metric
        assert maps[-1].values.shape == image.shape[:2]
        assert maps[-1].likeness(maps[0]) > 0.9


def test_relative_depth_is_judged_after_alignment_on_real_pictures(
    line: Line, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SUN RGB-D turns its bits; the unit is told on the command line."""
    for name, file in (("pictures/room.jpg", "SUN_color.jpg"), ("depth/room.png", "SUN_depth.png")):
        (tmp_path / name).parent.mkdir()
        shutil.copy(shared_data / "depth-mini/sun" / file, tmp_path / name)
    data = f"depth:{tmp_path}/pictures,truth={tmp_path}/depth,depth_unit=sun-rgbd"
    capsys.readouterr()
    assert cli.main(["eval", str(line.folder / "out/host-onnxruntime"), "--json", "--data", data]) == 0
    figures = json.loads(capsys.readouterr().out)
    # Of a network that knows nothing alignment leaves at worst one distance for the whole picture.
    assert 0.1 < figures["value"] <= 1.0
    assert figures["extras"]["abs_rel"] < 1.0
    assert cli.main(["eval", str(line.folder / "out/host-onnxruntime"), "--data", data.replace("sun-rgbd", "cm")]) == 2
    assert "depth_unit is mm, kitti, sun-rgbd" in capsys.readouterr().err


def test_the_loop_paints_it(line: Line) -> None:
    said = loop_lines(line)
    assert len(said) == 4
    assert all("relative inverse depth" in json.dumps(item) for item in said)
