"""Ready recipes with published weights on real pictures, on the host's engines: FastestDet and LPRNet."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.measure.ladder import COMPILER_MIN_DB
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from tests.lines import ENGINES, rungs_of

pytestmark = pytest.mark.slow


def optimized(report: Report) -> dict[str, ArtifactFigures]:
    """The int8 artifacts by target."""
    return {item.target: item for item in report.artifacts if item.role == "optimized"}


def run_recipe(recipe: Path, folder: Path, sets: dict[str, str]) -> tuple[int, Report]:
    """`edgecv optimize` of a ready recipe for the host's engines and the telephone; its exit code and report."""
    values = {"measure.protocol": "smoke", "targets": f"[{', '.join(ENGINES)}, iphone-15]", **sets}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    code = cli.main(["optimize", str(recipe), "--out", str(folder / "out"), "--cache", str(folder / "cache"), *words])
    return code, read_report(folder / "out")


def check_recipe(report: Report, folder: Path, *, metric: str, samples: int, floor: float, most: float) -> None:
    """Float has at least ``floor``; each int8 file loses at most ``most`` and is what the quantised graph computes."""
    made = optimized(report)
    assert set(made) == {*ENGINES, "iphone-15"}
    for target, artifact in made.items():
        assert artifact.error == "", target
        assert read_manifest(folder / "out" / target).precision == "int8"
    for target in ENGINES:
        accuracy, drop = made[target].accuracy, made[target].drop
        assert accuracy is not None
        assert drop is not None
        assert (accuracy.metric, accuracy.samples) == (metric, samples)
        assert accuracy.value + drop.drop > floor
        assert drop.drop <= most, target
        compiled = rungs_of(made[target])[f"compiled {made[target].backend}"].sqnr_db
        assert compiled is not None
        assert compiled >= COMPILER_MIN_DB, target


def test_fastestdet_keeps_its_precision_in_int8(
    root: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe as it is. No layer is float, so every engine gives the numbers of the quantised graph."""
    monkeypatch.setenv("EDGECV_DATA", str(shared_data))
    code, report = run_recipe(root / "recipes/detection/fastestdet.yaml", tmp_path, {})
    assert code in (0, 4), "44 pictures may not decide"
    check_recipe(report, tmp_path, metric="ap", samples=44, floor=0.16, most=0.01)
    for artifact in (optimized(report)[target] for target in ENGINES):
        compiled = rungs_of(artifact)[f"compiled {artifact.backend}"].sqnr_db
        assert compiled is not None
        assert compiled > 100
    picture = cv2.imread(str(shared_data / "models/fastestdet/3.jpg"))
    for target in ENGINES:
        with load_artifact(tmp_path / "out" / target) as model:
            found = model.predict(picture)
        sure = found.select(found.scores > 0.6)
        assert [sure.labels[number] for number in sure.class_ids] == ["person"] * 4, target


def test_lprnet_reads_plates_in_int8(
    root: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the recipe's 280 plates at most two more are misread, and a plate is read by command."""
    monkeypatch.setenv("EDGECV_DATA", str(shared_data))
    _, report = run_recipe(root / "recipes/text/lprnet-plates.yaml", tmp_path, {})
    plates = sorted((shared_data / "ocr-mini/plates").glob("lp_0[3-9]*"))
    check_recipe(report, tmp_path, metric="exact", samples=len(plates), floor=0.85, most=0.01)
    lines = (shared_data / "ocr-mini/plates/labels.csv").read_text(encoding="utf-8").splitlines()
    texts = dict(line.split(",") for line in lines)
    capsys.readouterr()
    for target in ENGINES:
        assert cli.main(["run", str(tmp_path / "out" / target), str(plates[0])]) == 0
        assert texts[plates[0].name] in capsys.readouterr().out, target
