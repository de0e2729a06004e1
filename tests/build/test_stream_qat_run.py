"""A network that streams through the line with training in its int8 form, and up to the last rung of the ladder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.report.schema_io import read_report

from .test_video_run import optimized

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("stream-qat")]

RECIPE = Path(__file__).resolve().parents[2] / "recipes/video/scenes-tsm.yaml"
SMALL = (
    "data.train.limit=36",
    "data.eval.limit=54",
    "data.calibration.source.limit=18",
    "data.calibration.samples=18",
    "targets=[host-onnxruntime]",
    "budgets.accuracy.max_drop=0.2",
)


def run(folder: Path, quantize: str) -> int:
    """The exit code of the recipe with less data and this step."""
    words = ["optimize", str(RECIPE), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    for setting in (*SMALL, f"steps=[{{quantize: {quantize}}}]"):
        words += ["--set", setting]
    return cli.main(words)


def test_training_goes_through_clips_and_the_steps_are_deployed(tmp_path: Path) -> None:
    assert run(tmp_path, "{method: qat, epochs: 1, lr: 1.0e-4, batch_size: 12, augment: crop}") == 0
    figures = optimized(read_report(tmp_path / "out"), "host-onnxruntime")
    assert figures.accuracy is not None
    assert figures.accuracy.value >= 0.9
    assert figures.ladder is not None
    assert figures.ladder.first_broken is None
    manifest = read_manifest(tmp_path / "out/host-onnxruntime")
    assert manifest.precision == "int8"
    assert manifest.inputs[0].shape == (1, 3, 48, 64), "one frame"
    assert [item.shape for item in manifest.state][:2] == [(1, 2, 12, 16)] * 2


def test_the_ladder_trains_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.optimize.repair.RUNGS", ())
    monkeypatch.setattr("edgecv.optimize.repair.acceptable", lambda judged: False)
    step = "{method: ptq, ranges: minmax, repair: full, epochs: 1, lr: 1.0e-4, batch_size: 12, distill: 1.0}"
    assert run(tmp_path, step) == 0
    report = read_report(tmp_path / "out")
    assert any("quantisation-aware training" in note for note in report.notes)
    found = json.loads((tmp_path / "out/host-onnxruntime/buildinfo.json").read_text())
    assert found["quantization"]["repair"]["rungs"][-1]["after"] > 0.9
