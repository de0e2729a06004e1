"""Training in int8 on boxes: a cut detector learns from labels, without a teacher, what its int8 form then keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.core.artifact import read_manifest
from tests.lines import run_line

ENGINES = ("host-onnxruntime", "host-openvino")
SCENES = {"kind": "scenes-boxes", "split": "train"}


@pytest.mark.build
def test_a_cut_detector_learns_from_boxes_in_its_int8_form(tmp_path: Path, root: Path) -> None:
    """There is no fine-tuning: what the cut cost is won back by the quantised graph itself."""
    line = run_line(
        tmp_path,
        {
            "model": {
                "source": "python:edgecv.models.reference_detection:yolo11_like",
                "weights": str(root / "recipes/detection/scenes-yolo.safetensors"),
                "input": {"size": [160, 192], "mean": [0.5] * 3, "std": [0.25] * 3, "resize": "stretch"},
            },
            "family": {
                "kind": "detection",
                "head": "yolo",
                "labels": ["disc", "box", "triangle", "person"],
                "score_threshold": 0.01,
                "iou_threshold": 0.65,
            },
            "data": {
                "train": {**SCENES, "limit": 96},
                "eval": {"kind": "scenes-boxes", "split": "test", "limit": 40},
                "calibration": {"source": {**SCENES, "limit": 16}, "samples": 16},
            },
            "steps": [
                {"prune": {"importance": "taylor", "ratio": 0.1, "round_to": 2, "samples": 32}},
                {"quantize": {"method": "qat", "scheme": "portable", "epochs": 4, "lr": 1e-3, "batch_size": 8}},
            ],
            "targets": [*ENGINES],
            "budgets": {"accuracy": {"metric": "ap50", "max_drop": 0.05}},
        },
    )
    learned = line.effect("quantize")
    assert int(learned["epochs"]) == 4
    assert float(learned["last_epoch_loss"]) < 0.95 * float(learned["first_epoch_loss"])
    assert "held_out_minus_loss" in learned, "the loss is that on labels, not the distance from a teacher"
    for target in ENGINES:
        artifact = line.made(target)
        assert artifact.error == ""
        assert artifact.accuracy is not None
        assert artifact.drop is not None
        assert (artifact.accuracy.metric, artifact.accuracy.samples) == ("ap50", 40)
        assert artifact.accuracy.value > 0.85, target
        assert artifact.drop.drop < 0.05, target
        assert read_manifest(line.folder / "out" / target).precision == "int8"
