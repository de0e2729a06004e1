"""Networks for clips of other kinds through the whole line: a picture network frame by frame, and a transformer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from tests.lines import ENGINES, Line, check_line, run_line

from .test_video_run import write_motion

CLIPS: dict[str, Any] = {"kind": "scenes-motions", "split": "train"}
VIDEOMAE = {
    "image_size": 32,
    "patch_size": 16,
    "tubelet_size": 2,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
NETWORKS: dict[str, dict[str, Any]] = {
    # L. Wang et al., arXiv:1608.00859
    "tsn": {
        "source": "python:edgecv.models.reference_video:tsn",
        "options": {"backbone": "timm:test_resnet"},
        "input": {"size": [48, 64], "clip": {"frames": 4, "fps": 4}},
    },
    # Z. Tong et al., arXiv:2203.12602
    "videomae": {
        "source": "transformers:VideoMAEForVideoClassification",
        "options": VIDEOMAE,
        "input": {"size": [32, 32], "clip": {"frames": 4, "fps": 4, "layout": "TCHW"}},
    },
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("video-architectures")]


@pytest.fixture(scope="module", params=NETWORKS)
def clips(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A finished run of one of the networks: cut, two epochs on clips, int8."""
    model = dict(NETWORKS[request.param])
    model["input"] = {**model["input"], "mean": [0.5] * 3, "std": [0.25] * 3, "resize": "stretch"}
    recipe = {
        "model": model,
        "family": {"kind": "video", "labels": ["left", "right", "grow"]},
        "data": {
            "train": {**CLIPS, "limit": 48},
            "eval": {**CLIPS, "split": "test", "limit": 12},
            "calibration": {"source": {**CLIPS, "limit": 12}, "samples": 12},
        },
        "steps": [
            {"prune": {"ratio": 0.25, "round_to": 4, "importance": "magnitude", "repair": False}},
            {"finetune": {"epochs": 3, "lr": 2e-3, "batch_size": 8}},
            {"quantize": {"method": "ptq", "scheme": "portable"}},
        ],
    }
    return run_line(tmp_path_factory.mktemp(request.param), recipe)


def test_a_network_for_clips_goes_to_every_engine(clips: Line) -> None:
    check_line(clips)
    tuned = clips.effect("finetune")
    assert float(tuned["last_epoch_loss"]) < float(tuned["first_epoch_loss"])
    for target in ENGINES:
        accuracy = clips.made(target).accuracy
        assert accuracy is not None
        assert (accuracy.metric, accuracy.samples) == ("top1", 12)
        clip = read_manifest(clips.folder / "out" / target).contract.clip
        assert clip is not None
        assert clip.frames == 4


def test_the_loop_answers_every_frame_of_a_video(clips: Line, tmp_path: Path) -> None:
    video, told = write_motion(tmp_path / "left.avi", "left", 3_000_020), tmp_path / "told.jsonl"
    words = ["run", "--model", str(clips.folder / "out/host-litert"), "--camera", str(video), "--quiet"]
    assert cli.main([*words, "--policy", "every", "--sink", f"jsonl={told}"]) == 0
    lines = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
    assert len(lines) > 40
    assert all('"label": ' in json.dumps(line) for line in lines)
