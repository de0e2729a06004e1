"""A transformer and HRNet for poses through the whole line: cut, tuned, int8 on four targets, in the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lines import ENGINES, check_line, loop_lines, run_line, rungs_of

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


def line_recipe(model: dict[str, Any], *, epochs: int) -> dict[str, Any]:
    """Persons cut out of scenes, a network whose maps are larger than their number, a cut, some training, and int8."""
    train = {**PERSONS, "split": "train", "limit": 24}
    size = {"size": [128, 96], "mean": [0.5] * 3, "std": [0.25] * 3, "resize": "stretch"}
    return {
        "model": {"input": size, **model},
        "family": {"kind": "pose", "labels": ["person"], "head": "heatmap"},
        "data": {
            "train": train,
            "eval": {**PERSONS, "split": "test", "limit": 12},
            "calibration": {"source": {**train, "limit": 16}, "samples": 16, "select": "random"},
        },
        "steps": [
            {"prune": {"ratio": 0.25, "round_to": 4, "importance": "magnitude", "repair": False}},
            {"finetune": {"batch_size": 8, "epochs": epochs}},
            {"quantize": {"method": "ptq", "scheme": "portable"}},
        ],
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("simple", [True, False])
def test_a_pose_transformer_goes_to_every_engine(tmp_path: Path, simple: bool) -> None:
    """ViTPose (Xu et al., arXiv:2204.12484) with the head that only enlarges, and the one that learns to."""
    options = {"backbone_config": BACKBONE, "use_simple_decoder": simple, "num_labels": 17}
    line = run_line(
        tmp_path, line_recipe({"source": "transformers:VitPoseForPoseEstimation", "options": options}, epochs=2)
    )
    check_line(line)
    tuned = line.effect("finetune")
    assert float(tuned["last_epoch_loss"]) < float(tuned["first_epoch_loss"])
    said = loop_lines(line)
    assert len(said[0]["poses"][0]["keypoints"]) == 17


@pytest.mark.slow
def test_branches_that_are_summed_at_each_size_go_to_every_engine(tmp_path: Path) -> None:
    """HRNet (Sun et al., arXiv:1902.09212) is all integers inside, so its engines do not differ in a single step.

    Three to four branches are enlarged and summed, and a value that one of them rounded apart would reach all.
    """
    options = {"name": "hrnet_w18_small", "width": 8, "stem": 16, "blocks": 1}
    model = {"source": "python:edgecv.models.reference_hrnet:hrnet_pose", "options": options}
    line = run_line(tmp_path, line_recipe(model, epochs=2))
    check_line(line)
    tuned = line.effect("finetune")
    assert float(tuned["last_epoch_loss"]) < float(tuned["first_epoch_loss"])
    assert int(line.effect("quantize")["float_tensors"]) == 0
    for target in ENGINES:
        artifact = line.made(target)
        compiled = rungs_of(artifact)[f"compiled {artifact.backend}"].sqnr_db
        assert compiled is not None
        assert compiled > 60, target
    said = loop_lines(line)
    assert len(said[0]["poses"][0]["keypoints"]) == 17
