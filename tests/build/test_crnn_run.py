"""The whole line for CRNN: its convolutions pruned and in int8, its recurrent layers float, on every target."""

from __future__ import annotations

from typing import Any

import pytest

from edgecv.core.artifact import read_manifest
from tests.lines import TARGETS, Line, check_line, loop_lines, run_line

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("crnn")]

WORDS = {"kind": "scenes-words", "split": "train"}
RECIPE: dict[str, Any] = {
    "model": {
        "source": "python:edgecv.models.reference_crnn:crnn",
        "options": {"num_classes": 37, "hidden": 16, "width_share": 0.125},
        "input": {"size": [32, 96], "color": "gray", "mean": [0.5], "std": [0.25], "resize": "letterbox"},
    },
    "family": {"kind": "text", "head": "ctc", "labels": [*"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"]},
    "data": {
        "train": {**WORDS, "limit": 48},
        "eval": {"kind": "scenes-words", "split": "test", "limit": 8},
        "calibration": {"source": {**WORDS, "limit": 16}, "samples": 16},
    },
    "steps": [
        {"prune": {"ratio": 0.25, "round_to": 4, "importance": "magnitude", "repair": False}},
        {"finetune": {"epochs": 2, "batch_size": 8}},
        {"quantize": {"method": "ptq", "scheme": "portable", "ranges": "minmax"}},
    ],
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A finished run of a narrow CRNN that has seen 48 words."""
    return run_line(tmp_path_factory.mktemp("crnn"), RECIPE)


def test_every_engine_computes_the_quantised_network(reader: Line) -> None:
    assert reader.code == 0, reader.report.outcome
    check_line(reader)
    assert int(reader.effect("quantize")["int8_tensors"]) > 20
    for target in TARGETS:
        outputs = read_manifest(reader.folder / "out" / target).outputs
        assert [item.shape for item in outputs] == [(1, 25, 37)], target


def test_it_reads_in_the_camera_loop(reader: Line) -> None:
    told = loop_lines(reader)
    assert len(told) == 4
    assert all("text" in line for line in told), told[0]
