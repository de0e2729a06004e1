"""Method qat on labelled masks: what post-training leaves as it was, the labels go on teaching, in integers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv import cli
from edgecv.report.schema import Report
from edgecv.report.schema_io import read_report
from tests.lines import rungs_of

from .test_segmentation_run import ENGINES, RECIPE, optimized, write_pictures

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("blobs-qat")]
STEPS = """\
steps:
  - finetune: {epochs: 2, lr: 1.0e-2, batch_size: 8, augment: crop-flip, validation: 0.1}
  - quantize: %s
"""
QAT = "{method: qat, scheme: portable, epochs: 8, lr: 3.0e-3, batch_size: 8, augment: crop-flip}"
PTQ = "{method: ptq, scheme: portable}"


def run(folder: Path, quantize: str, targets: str) -> Report:
    """`edgecv optimize` of a network that a few epochs have begun to teach, then this quantisation."""
    begin, rest = RECIPE.split("steps:\n")
    recipe = begin + STEPS % quantize + "targets:" + rest.split("targets:")[1]
    (folder / "blobs.yaml").write_text(recipe)
    words = ["optimize", str(folder / "blobs.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    assert cli.main([*words, "--set", f"targets={targets}", "--set", "budgets={}"]) == 0
    return read_report(folder / "out")


def accuracy(report: Report, target: str) -> float:
    figures = optimized(report, target).accuracy
    assert figures is not None
    return figures.value


def test_qat_learns_from_masks_and_the_compiled_files_keep_it(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    before = accuracy(run(tmp_path, PTQ, "[host-onnxruntime]"), "host-onnxruntime")
    report = run(tmp_path, QAT, "[host-onnxruntime, host-openvino, host-litert, iphone-15]")
    steps = {step.kind: step.effect for step in report.steps}
    assert steps["quantize"]["epochs"] == 8
    assert float(steps["quantize"]["held_out_minus_loss"]) > float(steps["finetune"]["held_out_minus_loss"]) + 0.02
    for target in ENGINES:
        artifact = optimized(report, target)
        assert accuracy(report, target) > before + 0.05, "the labels taught nothing"
        assert accuracy(report, target) == pytest.approx(accuracy(report, "host-onnxruntime"), abs=0.02)
        assert artifact.error == ""
        rungs = rungs_of(artifact)
        assert rungs[f"compiled {artifact.backend}"].outcome == "pass"
        # The labels left the network before far behind: what counts is that the answers became no worse.
        assert rungs["Q/DQ torch"].outcome == "pass"
    assert optimized(report, "iphone-15").error == ""
