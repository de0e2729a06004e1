"""Detectors of several architectures through the line: pruned, tuned on boxes, int8 on four targets, in the loop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from edgecv.models import reference_detectors as nets
from tests.lines import Line, check_line, loop_lines, run_line
from tests.models.transformer_nets import DETR

LABELS = ["disc", "box", "triangle", "person"]
PARTS = "python:edgecv.models.reference_detectors"
CELLS = "python:edgecv.models.reference_detection"


@dataclass(frozen=True)
class Detector:
    """Where a network comes from, what its head is told, and how sure it has to be of an object."""

    source: str
    head: str
    size: tuple[int, int] = (96, 128)
    options: dict[str, Any] = field(default_factory=dict)
    head_options: dict[str, Any] = field(default_factory=dict)
    background: bool = False
    threshold: float = 0.01
    slow: bool = True


def anchored(name: str, options: dict[str, Any], **more: Any) -> Detector:
    """One of the small networks made of torchvision's parts."""
    return Detector(f"{PARTS}:small_{name}", name, options={}, head_options=options, background=True, **more)


SSD = {**nets.SSD_OPTIONS, "feature_maps": [[12, 16], [6, 8], [3, 4]]}
DETECTORS = {
    "ssdlite": anchored("ssd", SSD, slow=False),
    "ssd": replace(anchored("ssd", SSD), options={"lite": False}),
    "retinanet": anchored("retinanet", nets.RETINANET_OPTIONS),
    "fcos": anchored("fcos", nets.FCOS_OPTIONS),
    "fastestdet": Detector(f"{PARTS}:small_fastestdet", "fastestdet"),
    "yolox": Detector(f"{CELLS}:yolox_like", "yolox", threshold=1e-4),  # two shares that begin with 0.02 each
    "detr": Detector("transformers:DetrForObjectDetection", "detr", options=DETR),
}


def recipe_of(detector: Detector) -> dict[str, Any]:
    """From boxes of made-up scenes to int8: two epochs of training, eight pictures to calibrate with."""
    scenes = {"kind": "scenes-boxes", "split": "train"}
    prune = {"ratio": 0.25, "round_to": 4, "importance": "magnitude", "repair": False}
    return {
        "model": {
            "source": detector.source,
            "input": {"size": list(detector.size), "resize": "stretch"},
            "options": detector.options,
        },
        "family": {
            "kind": "detection",
            "head": detector.head,
            "labels": LABELS,
            "background": detector.background,
            "score_threshold": detector.threshold,
            "max_detections": 20,
            "options": detector.head_options,
        },
        "data": {
            "train": {**scenes, "limit": 24},
            "eval": {"kind": "scenes-boxes", "split": "test", "limit": 6},
            "calibration": {"source": {**scenes, "limit": 8}, "samples": 8},
        },
        "steps": [
            {"prune": prune},
            {"finetune": {"epochs": 2, "batch_size": 8}},
            {"quantize": {"method": "ptq", "scheme": "portable"}},
        ],
    }


RUNS = [
    pytest.param(name, marks=pytest.mark.slow if net.slow else pytest.mark.build) for name, net in DETECTORS.items()
]


@pytest.fixture(scope="module", params=RUNS)
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A finished run of an architecture."""
    name: str = request.param
    return run_line(tmp_path_factory.mktemp(name), recipe_of(DETECTORS[name]))


@pytest.mark.xdist_group("detectors")
def test_every_engine_computes_the_quantised_detector(detector: Line) -> None:
    assert detector.code == 0, detector.report.outcome
    check_line(detector)
    learned = detector.effect("finetune")
    assert "held_out_minus_loss" in learned, "trained on labels"
    assert float(learned["last_epoch_loss"]) < float(learned["first_epoch_loss"])


@pytest.mark.xdist_group("detectors")
def test_the_camera_loop_shows_boxes(detector: Line) -> None:
    told = loop_lines(detector)
    assert len(told) == 4
    found = [item for line in told for item in line["objects"]]
    assert found, "no object in any frame"
    assert {item["label"] for item in found} <= {*LABELS}
    for item in found:
        left, top, right, bottom = item["box"]
        assert 0 <= left < right <= 320
        assert 0 <= top < bottom <= 240
