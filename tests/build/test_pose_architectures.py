"""A transformer for poses through the whole line: cut, tuned on keypoints, int8 on four targets, in the loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lines import check_line, loop_lines, run_line

PERSONS = {"kind": "scenes-keypoints", "crop": 0.75}
BACKBONE = {
    "model_type": "vitpose_backbone",
    "image_size": [128, 96],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "out_features": ["stage2"],
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("simple", [True, False])
def test_a_pose_transformer_goes_to_every_engine(tmp_path: Path, simple: bool) -> None:
    """ViTPose (Xu et al., arXiv:2204.12484) with the head that only enlarges, and the one that learns to."""
    train = {**PERSONS, "split": "train", "limit": 24}
    recipe = {
        "model": {
            "source": "transformers:VitPoseForPoseEstimation",
            "input": {"size": [128, 96], "mean": [0.5] * 3, "std": [0.25] * 3, "resize": "stretch"},
            "options": {"backbone_config": BACKBONE, "use_simple_decoder": simple, "num_labels": 17},
        },
        "family": {"kind": "pose", "labels": ["person"], "head": "heatmap"},
        "data": {
            "train": train,
            "eval": {**PERSONS, "split": "test", "limit": 12},
            "calibration": {"source": {**train, "limit": 16}, "samples": 16, "select": "random"},
        },
        "steps": [
            {"prune": {"ratio": 0.25, "round_to": 4, "importance": "magnitude", "repair": False}},
            {"finetune": {"batch_size": 8, "epochs": 2}},
            {"quantize": {"method": "ptq", "scheme": "portable"}},
        ],
    }
    line = run_line(tmp_path, recipe)
    check_line(line)
    tuned = line.effect("finetune")
    assert float(tuned["last_epoch_loss"]) < float(tuned["first_epoch_loss"])
    said = loop_lines(line)
    assert len(said[0]["poses"][0]["keypoints"]) == 17
