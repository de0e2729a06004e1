"""The whole line for a transformer detector: RT-DETR's weights and COCO boxes in; artifacts for every engine out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.report.schema import Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from tests.lines import Line, loop_lines
from tests.models.transformer_nets import RT_DETR, old_names, tiny

from .test_detection_run import optimized, write_pictures

ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")
TARGETS = (*ENGINES, "iphone-15")
FLOAT = ["model.decoder*", "model.enc_*"]
RECIPE: dict[str, Any] = {
    "recipe": 1,
    "name": "tiny",
    "model": {
        "source": "transformers:RTDetrForObjectDetection",
        "weights": {"path": "tiny.safetensors"},
        "input": {"size": [64, 96]},
        "options": RT_DETR,
    },
    "family": {
        "kind": "detection",
        "head": "detr",
        "labels": ["disc", "block", "other"],
        "score_threshold": 0.3,
        "max_detections": 50,
    },
    "data": {
        "eval": {"kind": "coco", "path": "boxes.json", "root": "pictures", "only": "eval*"},
        "calibration": {"source": {"kind": "images", "path": "pictures/train*"}, "samples": 8},
    },
    "steps": [
        {"prune": {"ratio": 0.25, "round_to": 4, "protect": FLOAT}},
        {"finetune": {"epochs": 0}},
        {"quantize": {"method": "ptq", "ranges": "minmax", "keep_float": FLOAT}},
    ],
    "targets": list(TARGETS),
    "budgets": {"accuracy": {"max_drop": 0.9}},
    "measure": {"protocol": "smoke"},
}


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Report]:
    """A finished run of a small network with random weights: its folder, exit code and report."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("rtdetr")
    (folder / "pictures").mkdir()
    write_pictures(folder / "pictures")
    state = old_names(tiny("RTDetrForObjectDetection").state_dict())
    save_file({name: value.clone() for name, value in state.items()}, folder / "tiny.safetensors")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    words = ["optimize", str(folder / "tiny.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder, code, read_report(folder / "out")


@pytest.mark.build
@pytest.mark.xdist_group("tiny-rtdetr")
def test_a_transformer_detector_goes_through_every_step(tiny_run: tuple[Path, int, Report]) -> None:
    folder, _, report = tiny_run
    effects = {step.kind: step.effect for step in report.steps}
    assert float(effects["prune"]["macs_after"]) < 0.9 * float(effects["prune"]["macs_before"])
    assert int(effects["quantize"]["int8_tensors"]) > 50
    for target in TARGETS:
        figures = optimized(report, target)
        assert figures.error == ""
        assert read_manifest(folder / "out" / target).precision == "int8"
        if target in ENGINES:
            assert figures.accuracy is not None
            assert (figures.accuracy.metric, figures.accuracy.samples) == ("ap", 12)


@pytest.mark.build
@pytest.mark.xdist_group("tiny-rtdetr")
def test_the_compiled_file_finds_objects_and_tells_them(
    tiny_run: tuple[Path, int, Report], capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights: engines may pick other queries where scores are nearly equal, so each is looked at alone."""
    folder, _, _ = tiny_run
    picture = cv2.imread(str(folder / "pictures/eval00.png"))
    for target in ENGINES:
        with load_artifact(folder / "out" / target) as model:
            found = model.predict(picture)
        capsys.readouterr()
        words = ["run", str(folder / "out" / target), str(folder / "pictures/eval00.png"), "--json"]
        assert cli.main(words) == 0
        told = json.loads(capsys.readouterr().out)
        assert len(told["objects"]) == len(found)


@pytest.mark.build
@pytest.mark.xdist_group("tiny-rtdetr")
def test_in_the_camera_loop(tiny_run: tuple[Path, int, Report]) -> None:
    """LiteRT's file, whose queries are picked inside, sees every frame and draws them into a video."""
    folder, code, report = tiny_run
    told = loop_lines(Line(folder, code, report), "host-litert")
    assert len(told) == 4
    assert {item["label"] for line in told for item in line["objects"]} <= {"disc", "block", "other"}
