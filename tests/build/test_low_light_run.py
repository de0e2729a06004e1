"""The ready recipe for dark pictures with its published weights: float answers as references, then int8 on engines."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from edgecv.vision.fidelity import psnr_db
from tests.lines import ENGINES, Line, loop_lines, rungs_of

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("low-light")]

RECIPE = "recipes/restoration/zero-dce.yaml"
WEIGHTS = "models/zero_dce/Epoch99.pth"
CHANGES = ("model.input.size=[64, 96]", "data.calibration.samples=8", "measure.protocol=smoke")
SMALL = [word for change in CHANGES for word in ("--set", change)]


def write_data(source: Path, place: Path) -> None:
    """What the recipe's head asks for: dark pictures (parts, 96 x 160), pictures to calibrate with, weights."""
    dark, bright = place / "restoration-mini/lowlight_dicm", place / "coco-mini/images"
    for folder in (dark, bright, (place / WEIGHTS).parent):
        folder.mkdir(parents=True)
    (place / WEIGHTS).symlink_to(source / WEIGHTS)
    for path in sorted((source / "restoration-mini/lowlight_dicm").glob("*.jpg")):
        image = cv2.resize(cv2.imread(str(path)), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        for part in range(2):
            top, left = 40 + 60 * part, 40 + 120 * part
            cv2.imwrite(str(dark / f"{path.stem}-{part}.png"), image[top : top + 96, left : left + 160])
    for path in sorted((source / "coco-mini/images").glob("*.jpg"))[:8]:
        (bright / path.name).symlink_to(path)


@pytest.fixture(scope="module")
def line(root: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The two runs of the recipe's head: a float one, whose answers are the references, and the recipe itself."""
    folder = tmp_path_factory.mktemp("light")
    data, recipe = folder / "data", str(root / RECIPE)
    write_data(shared_data, data)
    dark, light = data / "restoration-mini/lowlight_dicm", data / "restoration-mini/lowlight_zero_dce"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECV_DATA", str(data))
        words = ["optimize", recipe, "--cache", str(folder / "cache"), *SMALL]
        plain = f"data.eval={{kind: noisy, path: {dark}, noise: 0}}"
        first = ["--set", "steps=[]", "--set", plain, "--set", "budgets={}", "--set", "targets=[host-onnxruntime]"]
        assert cli.main([*words, *first, "--out", str(folder / "float")]) == 0
        pictures = [str(path) for path in sorted(dark.glob("*.png"))]
        made = ["run", str(folder / "float/host-onnxruntime"), *pictures, "--save", str(light)]
        assert cli.main(made) == 0
        code = cli.main([*words, "--out", str(folder / "out")])
    return Line(folder, code, read_report(folder / "out"))


def test_every_engine_stays_near_the_float_network(line: Line) -> None:
    assert line.code in (0, 4), line.report.outcome  # 4: eight small pictures may be too few to be sure
    for target in ENGINES:
        made = line.made(target)
        assert made.error == ""
        assert made.accuracy is not None
        assert (made.accuracy.metric, made.accuracy.samples) == ("psnr", 8)
        assert made.accuracy.value > 35
        assert rungs_of(made)[f"compiled {made.backend}"].outcome != "fail"


def test_dark_pictures_become_light_alike_on_every_engine(line: Line) -> None:
    pictures = [cv2.imread(str(path)) for path in (line.folder / "data/restoration-mini/lowlight_dicm").glob("*.png")]
    dark = min(pictures, key=lambda image: float(image.mean()))
    assert dark.mean() < 100
    made = []
    for target in ENGINES:
        assert cli.main(["verify", str(line.folder / "out" / target)]) == 0
        with load_artifact(line.folder / "out" / target) as model:
            made.append(model.predict(dark).picture)
        assert made[-1].shape == dark.shape
        assert made[-1].mean() > 1.3 * dark.mean()
        assert psnr_db(made[-1].astype(np.float64), made[0].astype(np.float64)) > 40


def test_the_loop_brings_light(line: Line) -> None:
    said = loop_lines(line)
    assert len(said) == 4
    assert all('"picture"' in json.dumps(item) for item in said)
