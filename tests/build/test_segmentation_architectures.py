"""Every architecture for segmentation, from its recipe to four engines and the camera loop with its overlay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lines import ENGINES, check_line, loop_lines, run_line

LABELS = ["background", "disc", "box", "triangle", "person"]
SEGFORMER: dict[str, Any] = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "decoder_hidden_size": 16,
    "num_attention_heads": [1, 1, 2, 2],
}
PSPNET: dict[str, Any] = {"backbone": "resnet10t", "width": 16, "options": {"channels": [16, 24, 32, 48]}}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "lr-aspp": ("torchvision:lraspp_mobilenet_v3_large", {}),
    "pspnet": ("python:edgecv.models.reference_psp:pspnet", PSPNET),
    "segformer": ("transformers:SegformerForSemanticSegmentation", SEGFORMER),
    "deeplab-v3": ("torchvision:deeplabv3_mobilenet_v3_large", {}),
    "fcn": ("torchvision:fcn_resnet50", {}),
}


def recipe(name: str) -> dict[str, Any]:
    """Cut, tuned on labels and quantised, for pictures of 64 x 96."""
    source, options = NETWORKS[name]
    return {
        "model": {"source": source, "options": options, "input": {"size": [64, 96], "resize": "stretch"}},
        "family": {"kind": "segmentation", "labels": LABELS},
        "data": {
            "train": {"kind": "scenes-masks", "split": "train", "limit": 24},
            "eval": {"kind": "scenes-masks", "split": "test", "limit": 6},
            "calibration": {"source": {"kind": "scenes-masks", "split": "train", "limit": 8}, "samples": 8},
        },
        "steps": [
            {"prune": {"ratio": 0.25, "round_to": 4, "importance": "magnitude", "repair": False}},
            {"finetune": {"epochs": 2, "batch_size": 4}},
            {"quantize": {"method": "ptq", "scheme": "portable"}},
        ],
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_architecture_goes_to_every_engine(name: str, tmp_path: Path) -> None:
    line = run_line(tmp_path, recipe(name))
    check_line(line)
    assert line.effect("finetune")["epochs"] == 2
    assert line.effect("quantize")["float_tensors"] == 0
    for engine in ENGINES:
        accuracy = line.made(engine).accuracy
        assert accuracy is not None
        assert (accuracy.metric, accuracy.samples) == ("miou", 6)
    told = loop_lines(line)
    assert len(told) == 4
    for frame in told:
        assert {item["label"] for item in frame["classes"]} <= set(LABELS)
        assert sum(item["share"] for item in frame["classes"]) == pytest.approx(1, abs=0.01)
