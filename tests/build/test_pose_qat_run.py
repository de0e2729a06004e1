"""Training in int8 on keypoints: a cut pose network learns from labels what its int8 form then keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecv.core.artifact import read_manifest
from tests.lines import Line, run_line, rungs_of

ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")
PERSONS = {"kind": "scenes-keypoints", "crop": 0.75}
MARGIN = 0.05
"""So much of OKS AP labels must give at least, on 40 persons; 0.24 were measured."""


def run(folder: Path, root: Path, quantize: dict[str, Any], targets: tuple[str, ...]) -> Line:
    """A heatmap network that knows the persons of scenes loses a sixth of its channels, and is quantised."""
    train = {**PERSONS, "split": "train", "limit": 64}
    return run_line(
        folder,
        {
            "model": {
                "source": "python:edgecv.models.reference_pose:simple_pose",
                "weights": str(root / "recipes/pose/scenes-pose.safetensors"),
                "input": {"size": [128, 96], "mean": [0.5] * 3, "std": [0.25] * 3, "resize": "stretch"},
            },
            "family": {
                "kind": "pose",
                "head": "heatmap",
                "labels": ["person"],
                "options": {"refine": "taylor", "sigma": 1.5},
            },
            "data": {
                "train": train,
                "eval": {**PERSONS, "split": "test", "limit": 40},
                "calibration": {"source": {**train, "limit": 16}, "samples": 16, "select": "random"},
            },
            "steps": [
                {"prune": {"ratio": 0.15, "round_to": 2, "importance": "magnitude", "repair": False}},
                {"quantize": {"scheme": "portable", **quantize}},
            ],
            "targets": [*targets],
        },
    )


def accuracy(line: Line, target: str) -> float:
    """OKS AP of a compiled file."""
    figures = line.made(target).accuracy
    assert figures is not None
    assert (figures.metric, figures.samples) == ("oks_ap", 40)
    return figures.value


@pytest.mark.build
def test_a_cut_pose_network_learns_from_keypoints_in_its_int8_form(tmp_path: Path, root: Path) -> None:
    before = accuracy(run(tmp_path, root, {"method": "ptq"}, ENGINES[:1]), ENGINES[0])
    line = run(tmp_path, root, {"method": "qat", "epochs": 4, "lr": 1e-3, "batch_size": 8}, ENGINES)
    learned = line.effect("quantize")
    assert line.code == 0, line.report.outcome
    assert int(learned["epochs"]) == 4
    assert float(learned["last_epoch_loss"]) < 0.6 * float(learned["first_epoch_loss"])
    assert "held_out_minus_loss" in learned, "the loss is that on labels, not the distance from a teacher"
    for target in ENGINES:
        artifact = line.made(target)
        assert artifact.error == ""
        assert read_manifest(line.folder / "out" / target).precision == "int8"
        assert accuracy(line, target) > before + MARGIN, "the labels taught nothing"
        assert accuracy(line, target) == pytest.approx(accuracy(line, ENGINES[0]), abs=0.01)
        rung = rungs_of(artifact)[f"compiled {artifact.backend}"]
        assert rung.sqnr_db is not None
        assert rung.sqnr_db > 40, f"{target} computes other numbers than the Q/DQ graph"
