"""SimCC through the whole line: keypoints of made-up persons in, two int8 classifications a keypoint out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecv.core.stream import FrameResult
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec, SecondStage
from tests.lines import ENGINES, Line, check_line, run_line, rungs_of

INPUT = {"size": [64, 48], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize": "stretch"}
PRUNE = {"ratio": 0.25, "round_to": 4, "importance": "magnitude", "repair": False}


def recipe(model: dict[str, Any], family: dict[str, Any], *, pictures: int, **finetune: Any) -> dict[str, Any]:
    """Persons cut out of scenes to learn from and to be judged by, a cut, some training, and int8."""
    persons = {"kind": "scenes-keypoints", "crop": 0.75}
    train = {**persons, "split": "train", "limit": pictures}
    return {
        "model": {"input": INPUT, **model},
        "family": {"kind": "pose", "labels": ["person"], **family},
        "data": {
            "train": train,
            "eval": {**persons, "split": "test", "limit": 12},
            "calibration": {"source": {**train, "limit": 16}, "samples": 16, "select": "random"},
        },
        "steps": [
            {"prune": PRUNE},
            {"finetune": {"batch_size": 8, **finetune}},
            {"quantize": {"method": "ptq", "scheme": "portable"}},
        ],
    }


def skeletons(line: Line, root: Path, video: Path) -> int:
    """How many persons got a pose by the network behind a detector, in a loop over the synthetic camera."""
    found: list[FrameResult] = []
    spec = PipelineSpec(
        camera="synthetic:size=320x240,seed=5",
        detect=(str(root / "edgecv/demo/onnxruntime"),),
        second=SecondStage(str(line.folder / "out/host-openvino"), classes=("person",)),
        sinks=(f"video={video}",),
        policy="every",
        frames=6,
        threads=1,
    )
    with open_session(spec, on_result=found.append) as session:
        session.start()
        assert session.wait(120)
    assert session.error is None
    assert video.stat().st_size > 1000
    return sum(pose is not None for item in found for pose in item.result.second)


@pytest.fixture(scope="module")
def simcc(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A SimCC network that learned a little."""
    model = {
        "source": "python:edgecv.models.reference_pose:simcc_pose",
        "options": {"height": 64, "width": 48, "widths": [16, 24, 32, 48]},
    }
    family = {"head": "simcc", "options": {"softmax": True, "sigma": 2.0, "pck_share": 0.2}}
    made = recipe(model, family, pictures=160, epochs=25, lr=4e-3)
    made["budgets"] = {"accuracy": {"metric": "pck", "max_drop": 0.1}}
    return run_line(tmp_path_factory.mktemp("simcc"), made)


@pytest.mark.build
@pytest.mark.xdist_group("simcc")
def test_two_classifications_a_keypoint_are_learned_and_survive_int8(simcc: Line) -> None:
    assert simcc.code == 0, simcc.report.outcome
    check_line(simcc)
    for target in ENGINES:
        accuracy = simcc.made(target).accuracy
        assert accuracy is not None
        before = rungs_of(simcc.made(target))["float torch"].metric
        assert before is not None
        assert before > 0.6, "it did not learn"
        assert accuracy.value > before - 0.05, f"{target} loses what was learned"


@pytest.mark.build
@pytest.mark.xdist_group("simcc")
def test_they_stand_behind_a_detector(simcc: Line, root: Path, tmp_path: Path) -> None:
    assert skeletons(simcc, root, tmp_path / "out.mp4") >= 3
