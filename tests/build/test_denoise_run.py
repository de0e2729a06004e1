"""The whole line for denoising: noisy scenes in, a pruned int8 network out, proven, judged in dB, in tiles and live."""

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
from edgecv.vision.fidelity import psnr_db
from edgecv.vision.image import Image
from edgecv.vision.noise import add_noise
from tests.lines import ENGINES, Line, check_line, loop_lines, run_line

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("denoise")]

RECIPE = "recipes/restoration/scenes-denoise.yaml"
JUDGED = 4


def scenes(split: str, limit: int) -> dict[str, Any]:
    return {"kind": "scenes-noisy", "split": split, "limit": limit, "noise": 25}


@pytest.fixture(scope="module")
def line(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The ready recipe with its own weights, on few scenes and hardly tuned."""
    recipe = yaml.safe_load((root / RECIPE).read_text(encoding="utf-8"))
    recipe["model"]["weights"] = str(root / "recipes/restoration" / recipe["model"]["weights"])
    recipe["data"] = {
        "train": scenes("train", 24),
        "eval": scenes("test", JUDGED),
        "calibration": {"source": scenes("train", 8), "samples": 8, "select": "random"},
    }
    recipe["steps"] = [
        {"prune": {"importance": "magnitude", "ratio": 0.125, "round_to": 2, "repair": False}},
        {"finetune": {"epochs": 1, "lr": 2.0e-3, "batch_size": 4}},
        {"quantize": {"method": "ptq", "scheme": "portable"}},
    ]
    recipe["budgets"] = {"accuracy": {"metric": "psnr", "min": 20}}
    del recipe["targets"]
    return run_line(tmp_path_factory.mktemp("denoise"), recipe)


def large(root: Path) -> tuple[Image, Image]:
    """A clean picture of 400 x 500 pixels, far larger than a tile, and the same with noise."""
    scene = open_reader(DataSpec("scenes-noisy", split="test", limit=1, noise=0.0), base=root, labels=("picture",))
    clean = cv2.copyMakeBorder(scene[0].truth, 80, 80, 90, 90, cv2.BORDER_REFLECT)
    return clean, add_noise(clean, sigma=25.0, shot=0.0, draws=np.random.default_rng(5))


def test_a_denoiser_goes_through_every_step(line: Line) -> None:
    assert line.code == 0, line.report.outcome
    check_line(line)
    for target in ENGINES:
        made = line.made(target)
        assert made.accuracy is not None
        assert (made.accuracy.metric, made.accuracy.samples) == ("psnr", JUDGED)
        assert made.accuracy.value > 23, "noise alone leaves 20.3 dB"
        assert made.ladder is not None
        assert made.ladder.first_broken is None


def test_int8_costs_little(line: Line) -> None:
    """Of the rungs with a metric: Q/DQ and compiled files lose less than 0.2 dB of the tuned float network."""
    for target in ENGINES:
        ladder = line.made(target).ladder
        assert ladder is not None
        known = [rung.metric for rung in ladder.rungs if rung.metric is not None and rung.name != "original torch"]
        assert len(known) >= 2
        assert max(known) - min(known) < 0.2, ladder


def test_a_large_picture_is_cleaned_in_tiles_alike_everywhere(line: Line, root: Path) -> None:
    clean, noisy = large(root)
    made = []
    for target in ENGINES:
        with load_artifact(line.folder / "out" / target) as model:
            made.append(model.predict(noisy).picture)
        assert made[-1].shape == clean.shape == (400, 500, 3)
        gain = psnr_db(*(item.astype(np.float64) for item in (made[-1], clean)))
        gain -= psnr_db(*(item.astype(np.float64) for item in (noisy, clean)))
        assert gain > 2
        assert psnr_db(made[-1].astype(np.float64), made[0].astype(np.float64)) > 40
    # No seam: the error near the edges of the tiles is that of everywhere.
    error = np.abs(made[0].astype(float) - clean).mean(axis=(1, 2))
    assert error[100:140].max() < 2 * np.median(error)


def test_eval_verify_and_run_by_command(
    line: Line, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = str(line.folder / "out/host-onnxruntime")
    data = ["--data", "scenes-noisy:test,noise=25", "--limit", str(JUDGED)]
    capsys.readouterr()
    assert cli.main(["eval", artifact, "--json", *data]) == 0
    accuracy = line.made("host-onnxruntime").accuracy
    assert accuracy is not None
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(accuracy.value)
    assert cli.main(["verify", artifact]) == 0
    clean, noisy = large(root)
    (tmp_path / "clean").mkdir()
    cv2.imwrite(str(tmp_path / "clean/a.png"), clean)
    cv2.imwrite(str(tmp_path / "noisy.png"), noisy)
    assert cli.main(["run", artifact, str(tmp_path / "noisy.png"), "--save", str(tmp_path / "out")]) == 0
    saved = cv2.imread(str(tmp_path / "out/noisy.png"))
    assert psnr_db(saved.astype(np.float64), clean.astype(np.float64)) > 22
    capsys.readouterr()
    found = {}
    for noise in ("noise=10", "noise=40", "noise=0,shot=1"):
        assert cli.main(["eval", artifact, "--json", "--data", f"noisy:{tmp_path / 'clean'},{noise}"]) == 0
        found[noise] = json.loads(capsys.readouterr().out)["value"]
    # It learned to expect noise of 25: less leaves more of the picture, more stays in it.
    assert min(found["noise=10"], found["noise=0,shot=1"]) > found["noise=40"] + 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("noisy:clean,noise=much", "noise is a standard deviation in steps of 0..255"),
        ("noisy:clean,shot=65", "shot is how many steps of 0..255 one electron makes, 0 to 64"),
        ("pairs:clean,truth=clean,noise=5", "kind pairs takes no noise: noisy, scenes-noisy do"),
    ],
)
def test_bad_noise_on_the_command_line_is_named(
    line: Line, data: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", str(line.folder / "out/host-onnxruntime"), "--data", data]) == 2
    assert words in capsys.readouterr().err


def test_the_loop_films_clean_pictures(line: Line) -> None:
    said = loop_lines(line)
    assert len(said) == 4
    assert all('"picture"' in json.dumps(item) for item in said)
